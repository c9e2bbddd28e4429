"""What a search found, in figures: `search.json`. docs/search.md documents every field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from archon.benchmarks.searching.reading import SCHEMA
from archon.benchmarks.searching.wording import amount, is_share, shown
from archon.benchmarks.statistics.intervals import Interval, student_interval, wilson
from archon.benchmarks.statistics.paired import compare
from archon.search.choosing import Found
from archon.search.front import front
from archon.search.history import Trial, anytime, importance
from archon.search.objectives import Accuracy, Coverage, Evaluation, Objective
from archon.search.optimism import optimism, verdicts
from archon.search.search import Search
from archon.search.simultaneous import simultaneous
from archon.usage import NOTHING, Usage, total


def summarise(
    search: Search, found: Found, spent: Usage = NOTHING, asked: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything that `search.json` says. `spent` is what all processes of the study say that they spent: more than
    what is kept of it, where one was killed. `asked` has the digest of what each problem asks, by its id."""
    settings, study = search.settings, search.study
    history = study.history()
    counts = {
        state: sum(trial.state == state for trial in history) for state in ("complete", "pruned", "failed")
    }
    everything = [one for known in search.known.values() for one in known.values()]
    usage, fresh = total(one.usage for one in everything), total(one.fresh for one in everything)
    fresh = max(fresh, spent, key=lambda one: one.tokens)
    return {
        "schema": SCHEMA,
        "benchmark": _benchmark(search),
        "objectives": [one.name for one in settings.objectives],
        "objective_settings": [one.model_dump(mode="json") for one in settings.objectives],
        "target": settings.target,
        "best": None if found.winner is None else _best(search, found),
        "baselines": _baselines(search, found),
        "front": _front(search, found),
        "trials": len(history),
        "states": counts,
        "evaluations": len(everything),
        "requests": {"fresh": fresh.requests, "replayed": max(0, usage.requests - fresh.requests)},
        "tokens": {"fresh": fresh.tokens, "total": usage.tokens},
        "usd": {"fresh": _usd(fresh), "total": _usd(usage)},
        "importance": importance(history, search.space.axes),
        "anytime": [list(point) for point in anytime(history)],
        "tried": [_tried(trial) for trial in history],
        "by_problem": _by_problem(search, found, asked),
        "splits": {part: len(getattr(search.parts, part)) for part in ("search", "validation", "test")},
        "ended": found.ended,
        "notes": [*search.proposer.notes, *found.notes],
    }


def _best(search: Search, found: Found) -> dict[str, Any]:
    winner, value = found.winner, search.settings.value
    assert winner is not None and winner.configuration is not None
    on_search = [search.known[winner.name][p] for p in search.parts.search]
    told: dict[str, Any] = {
        "pipeline": "best.yaml",
        "stack": search.space.stack(winner.configuration),
        "configuration": winner.configuration.as_json(),
        "search": {**figure(value, on_search), "corrected": _corrected(search)},
        "validation": figure(value, found.validation.get(winner.name, [])),
        "test": figure(value, found.test.get(winner.name, [])),
        "cost": cost(found.test.get(winner.name) or on_search),
    }
    return told


def _corrected(search: Search) -> float | None:
    """What to expect of whoever leads on the search split."""
    settings = search.settings
    tried = [trial.key for trial in search.study.history() if trial.state != "failed"]

    def table(objective: Objective) -> list[list[float]]:
        rows = [search.known.get(key, {}) for key in sorted(tried)]  # of equals the same, whoever ran it
        return [
            [objective.value(row[p]) if p in row else math.nan for p in search.parts.search] for row in rows
        ]

    if not tried:
        return None
    costs = None if settings.cost is None else table(settings.cost)
    try:
        return _finite(optimism(table(settings.value), costs=costs, target=settings.target).corrected)
    except ValueError:
        return None


def _baselines(search: Search, found: Found) -> dict[str, Any]:
    value, names = search.settings.value, [name for name in search.baselines if name in found.test]
    told: dict[str, Any] = {
        name: {"test": figure(value, found.test[name]), "cost": cost(found.test[name])} for name in names
    }
    winner = None if found.winner is None else found.test.get(found.winner.name)
    if winner:
        rows = {name: _by_id(value, found.test[name]) for name in names}
        for name, held in verdicts(_by_id(value, winner), rows, compare).items():
            told[name]["winner"] = {**held.as_json(), "sentence": held.sentence("the winner", name)}
    return told


def _benchmark(search: Search) -> dict[str, str]:
    """Its name, and the digest of all its problems, which the study was begun with."""
    name, _, digest = str(search.study.facts["benchmark"]).rpartition(" ")
    return {"name": name, "sha256": digest}


def _tried(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "key": trial.key,
        "stack": trial.details.get("stack", trial.key),
        "configuration": trial.configuration.as_json(),
        "state": trial.state,
        "values": None if trial.values is None else list(trial.values),
        "problems": trial.problems,
        "fresh_tokens": trial.fresh_tokens,
        "proposer": trial.proposer,
        "reason": trial.reason,
    }


def _by_problem(search: Search, found: Found, asked: Mapping[str, str] | None) -> dict[str, Any]:
    """The first objective on each problem of the test split: what another search can be compared with, paired."""

    def row(name: str) -> list[float]:
        return [search.settings.value.value(one) for one in found.test.get(name, ())]

    digests = {} if asked is None else {"sha256": [asked[problem] for problem in search.parts.test]}
    return {
        "problems": list(search.parts.test),
        **digests,
        "winner": [] if found.winner is None else row(found.winner.name),
        "baselines": {name: row(name) for name in search.baselines if name in found.test},
    }


def _by_id(value: Objective, evaluations: Sequence[Evaluation]) -> dict[str, float]:
    return {one.problem: value.value(one) for one in evaluations}


def _front(search: Search, found: Found) -> list[dict[str, Any]]:
    """The finalists and the front of the search split in the plane of value and cost, the cheapest first; empty where
    one objective was searched for. Each has the figures of the best split that it was evaluated on, and its place
    among all that were."""
    cost_of, value = search.settings.cost, search.settings.value
    if cost_of is None:
        return []
    ours = {one.name: one for one in (*found.finalists, *found.front)}
    complete = [trial.key for trial in search.study.history() if trial.state == "complete"]
    on_search = {key: [search.known[key][p] for p in search.parts.search] for key in complete}
    tested = {name: rows for name, rows in found.test.items() if name in ours}
    together = _together(value, tested, found.to_test)
    told: list[dict[str, Any]] = []
    left = set(ours)
    for split, rows in (("test", tested), ("validation", found.validation), ("search", on_search)):
        names = [name for name in rows if rows[name]]
        if not left.intersection(names):
            continue
        values = [[value.value(e) for e in rows[name]] for name in names]
        costs = [[cost_of.value(e) for e in rows[name]] for name in names]
        told += [
            {
                **point.as_json(),
                "stack": search.space.stack(ours[point.key].configuration or {}),
                "split": split,
                "together": together.get(point.key),
            }
            for point in front(names, values, costs)
            if point.key in left and point.on != "no"
        ]
        left.difference_update(names)
    return sorted(told, key=lambda point: (point["cost"], -point["value"]))


def _together(
    value: Objective, tested: Mapping[str, Sequence[Evaluation]], count: int
) -> dict[str, dict[str, Any]]:
    """Intervals of all that were tested, by name, which hold at once, whichever of them are shown; `count` is how many
    were to be tested."""
    rows = {name: [value.scaled(value.value(one)) for one in ones] for name, ones in tested.items() if ones}
    if not rows:
        return {}
    parts = {share for row in rows.values() for share in row} - {0.0, 1.0}
    whole = isinstance(value, Accuracy | Coverage) and not parts
    held = simultaneous([*rows.values()], count, whole=whole)
    ends = [[value.low + share * (value.high - value.low) for share in one] for one in held]
    return {
        name: {"low": low, "high": high, "points": count}
        for name, (low, high) in zip(rows, ends, strict=True)
    }


def figure(objective: Objective, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """A mean over problems with its 95% interval; nulls where there are none."""
    if not evaluations:
        return {"value": None, "low": None, "high": None, "problems": 0}
    values = [objective.value(one) for one in evaluations]
    whole = isinstance(objective, Accuracy | Coverage)
    found: Interval = wilson(values) if whole else student_interval(values)
    return {
        "value": found.value,
        "low": _finite(found.low),
        "high": _finite(found.high),
        "problems": len(values),
    }


def cost(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What a problem costs in the mean: what is recorded, replayed or not."""
    count = max(1, len(evaluations))
    usage = total(one.usage for one in evaluations)
    usd = _usd(usage)
    return {
        "requests": usage.requests / count,
        "tokens": usage.tokens / count,
        "usd": None if usd is None else usd / count,
        "flops": None if usage.unsized else usage.flops / count,
    }


def _usd(usage: Usage) -> float | None:
    """None where a call has no price."""
    return None if usage.unpriced else float(usage.usd)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def lines(told: Mapping[str, Any]) -> list[str]:
    """It in words, for the terminal."""
    best = told["best"]
    if best is None:
        return [f"nothing could be evaluated: {told['ended']}"]
    share = is_share(told["objectives"][0])
    found = [f"best: {best['stack']}"]
    for part in ("search", "validation", "test"):
        one = best[part]
        if one["problems"]:
            found.append(f"  {part}: {shown(one, share)} over {one['problems']} problems")
    if best["search"]["corrected"] is not None:
        found.append(
            f"  a winner of this search was to be expected at {amount(best['search']['corrected'], share)}"
        )
    found.append(
        f"  cost of a problem: {best['cost']['tokens']:,.0f} tokens, {best['cost']['requests']:.1f} calls"
    )
    for name, one in told["baselines"].items():
        found.append(f"{name}: {shown(one['test'], share)}, {one['cost']['tokens']:,.0f} tokens")
        if "winner" in one:
            found.append(f"  {one['winner']['sentence']}")
    states = told["states"]
    found.append(
        f"{told['trials']} configurations ({states['complete']} finished, {states['pruned']} dropped or left, "
        f"{states['failed']} failed), {told['evaluations']:,} evaluations, {told['tokens']['fresh']:,} fresh of "
        f"{told['tokens']['total']:,} tokens; it ended because {told['ended']}"
    )
    return found
