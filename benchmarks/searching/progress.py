"""How a search is coming along: a line every so often, on standard error."""

from __future__ import annotations

import sys
import time

from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.search.search import Search
from archon.usage import dollars

_EVERY_SECONDS = 10.0


class Lines:
    """Says how many configurations were tried, which leads, what was spent, and how long it may take."""

    def __init__(self, evaluator: LocalEvaluator, *, quiet: bool = False) -> None:
        self._evaluator = evaluator
        self._quiet = quiet
        self._began = self._said = time.monotonic()

    def tried(self, search: Search) -> None:
        """Say it, if it is time."""
        now = time.monotonic()
        if self._quiet or now - self._said < _EVERY_SECONDS:
            return
        self._said = now
        print(self._line(search, now - self._began), file=sys.stderr, flush=True)

    def _line(self, search: Search, seconds: float) -> str:
        ended, begun = search.ended_trials, search.begun_trials
        limit = search.settings.spending.trials
        of = f" of {limit}" if limit is not None else ""
        parts = [
            f"{ended}{of} configurations done, {begun - ended} under way, {search.evaluations:,} evaluations"
        ]
        leader = search.race.leader()
        if leader is not None and search.race.seen(leader):
            seen = search.race.seen(leader)
            parts.append(f"best so far {100 * search.race.mean(leader):.1f} over {seen} problems")
        fresh, used = self._evaluator.fresh, self._evaluator.used
        parts.append(f"{fresh.tokens:,} fresh of {used.tokens:,} tokens")
        parts.append("unpriced" if fresh.unpriced else dollars(fresh.usd))
        if limit is not None and 0 < ended < limit:
            left = int(seconds * (limit - ended) / ended)
            parts.append(f"about {left // 60}:{left % 60:02d} left")
        return ", ".join(parts)
