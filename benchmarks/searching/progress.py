"""How a search is coming along: a line every so often, on standard error."""

from __future__ import annotations

import sys
import time

from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.benchmarks.searching.wording import amount, is_share
from archon.search.search import Search
from archon.usage import dollars, total

_EVERY_SECONDS = 10.0
_LEAST_SHARE = 0.005
"""How much of the effort has to be made before anything is said of the rest."""


class Lines:
    """Says how many configurations were tried, which leads, what was spent, and how long it may take."""

    def __init__(self, evaluator: LocalEvaluator, *, quiet: bool = False) -> None:
        self._evaluator = evaluator
        self._quiet = quiet
        self._began = self._said = time.monotonic()
        self._first: tuple[float, float] | None = None
        """When we first looked, and what share of the effort was made by then, also by others and before us."""

    def tried(self, search: Search) -> None:
        """Say it, if it is time."""
        if self._quiet:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (now, self.share(search))
        if now - self._said < _EVERY_SECONDS:
            return
        self._said = now
        print(self.line(search, now), file=sys.stderr, flush=True)

    def line(self, search: Search, now: float) -> str:
        """What there is to say at a time of `time.monotonic()`."""
        ended, begun = search.ended_trials, search.begun_trials
        limit = search.settings.spending.trials
        of = f" of {limit}" if limit is not None else ""
        parts = [
            f"{duration(now - self._began)}: {ended}{of} configurations done, {begun - ended} under way, "
            f"{search.evaluations:,} evaluations"
        ]
        leader = search.race.leader()
        known = {} if leader is None else search.known.get(leader, {})
        on_search = [known[problem] for problem in search.parts.search if problem in known]
        if on_search:
            value = search.settings.value
            best = amount(value.mean(on_search), is_share(value.name))
            parts.append(f"best so far {best} over {len(on_search)} problems")
        fresh, used = self._evaluator.fresh, self._evaluator.used
        parts.append(f"{fresh.tokens:,} fresh of {used.tokens:,} tokens")
        parts.append("unpriced" if fresh.unpriced else dollars(fresh.usd))
        parts.append(self._rest(self.share(search), now))
        return ", ".join(part for part in parts if part)

    def share(self, search: Search) -> float:
        """How much of the effort is made, in all processes, from 0 to 1: of whatever ends first."""
        spending = search.settings.spending
        closed = {trial.key for trial in search.study.history()}
        seen = {key: search.race.seen(key) for key in search.race.keys}
        shares = [0.0]
        if spending.trials is not None:
            begun = sum(problems for key, problems in seen.items() if key not in closed)
            shares.append((len(closed) + begun / len(search.parts.search)) / spending.trials)
        if spending.evaluations is not None:
            shares.append(sum(seen.values()) / spending.evaluations)
        if spending.tokens is not None or spending.usd is not None:
            kept = total(one.fresh for known in search.known.values() for one in known.values())
            ours = self._evaluator.fresh
            if spending.tokens is not None:
                shares.append(max(kept.tokens, ours.tokens) / spending.tokens)
            if spending.usd is not None:
                shares.append(float(max(kept.usd, ours.usd) / spending.usd))
        return min(1.0, max(shares))

    def _rest(self, share: float, now: float) -> str:
        """How long the search may still take, if it goes on as it went since we first looked."""
        if share >= 1:
            return "finishing, validating and testing"
        if self._first is None:
            return ""
        then, before = self._first
        if share - before < _LEAST_SHARE:
            return ""
        left = (now - then) * (1 - share) / (share - before)
        return f"about {duration(left)} left, then validation and test"


def duration(seconds: float) -> str:
    """A time for people: 3:07, or 1:03:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
