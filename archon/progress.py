"""Progress of long work: done, how it went, spend, time left. A live line on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archon.ledger import Ledger
from archon.usage import Usage, dollars

_EVERY = 10.0


class Live:
    """Shows progress on standard error. Use it as a context manager.

    `good` and `bad` are what things that went well or badly are called.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        good: str = "solved",
        bad: str = "failed",
    ) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._good, self._bad = good, bad
        self._total = self._done = self._well = self._badly = 0
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, total: int) -> None:
        """So many problems will run."""
        self._total = total
        self._started = self._said = time.monotonic()
        if self._quiet or not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("problems", total=total, line="")
        self._bar.start()

    def finished(self, ledger: Ledger, *, well: bool, badly: bool) -> None:
        """One problem is done; it may have gone neither well nor badly (answered, and wrong)."""
        self._done += 1
        self._well += well
        self._badly += badly
        if self._quiet:
            return
        line = self.line(ledger)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, line=line)
            return
        now = time.monotonic()
        if now - self._said >= _EVERY or self._done == self._total:
            self._said = now
            print(f"{self._done}/{self._total} problems, {line}", file=sys.stderr, flush=True)

    def line(self, ledger: Ledger) -> str:
        """How it went, spend, time left."""
        elapsed = time.monotonic() - self._started
        left = elapsed / self._done * (self._total - self._done) if self._done else 0.0
        return f"{self._well} {self._good}, {self._badly} {self._bad}, {spend(ledger.fresh)} spent" + (
            f", about {clock(left)} left" if self._done < self._total else f", took {clock(elapsed)}"
        )


def spend(usage: Usage) -> str:
    """Money where there is a price, tokens where there is none, and what of it is unpriced."""
    if usage.requests == 0 and not usage.usd:
        return "nothing"
    if usage.unpriced >= usage.requests > 0 and not usage.usd:
        return f"{usage.tokens:,} tokens (unpriced)"
    return dollars(usage.usd) + (f" ({usage.unpriced:,} calls unpriced)" if usage.unpriced else "")


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
