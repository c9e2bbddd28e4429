"""What a tuning found, in figures: `tune.json`. docs/tuning.md documents every field."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from archon.backends.vllm.config import VLLM
from archon.benchmarks.statistics.intervals import LEVEL, student_interval
from archon.benchmarks.tuning.measuring import first_token, latencies, percentile, throughput
from archon.benchmarks.tuning.tuner import BASELINE, Contender, Found, Leg, Pair, Tuner
from archon.config import dump
from archon.search.history import Trial, importance

SCHEMA = 1
_SHOWN = 5


def summarise(tuner: Tuner, found: Found, notes: Sequence[str]) -> dict[str, Any]:
    """Everything that `tune.json` says."""
    settings, history = tuner.settings, tuner.study.history()
    base = tuner.baseline(tuner.space.default_load)
    rounds = [one for leg in tuner.legs.values() for one in leg.rounds]
    notes = [*notes, *tuner.proposer.notes]
    if settings.limits.latency is not None and rounds:
        requests = settings.rounds.count * settings.workload.requests
        if requests * (100 - settings.limits.percentile) < 100:
            notes.append(
                f"p{settings.limits.percentile:g} of the {requests} requests of a start is their largest latency; "
                "with more requests it says more"
            )
    return {
        "schema": SCHEMA,
        "objective": settings.objective,
        "unit": settings.unit,
        "limits": {"latency": settings.limits.latency, "percentile": settings.limits.percentile},
        "workload": {**settings.workload.model_dump(mode="json"), "concurrency": tuner.space.loads},
        "rounds": settings.rounds.model_dump(mode="json"),
        "best": None if found.winner is None else _best(tuner, found, found.winner),
        "recommended": _recommended(tuner, found),
        "baseline": {
            "model": tuner.space.plain(tuner.space.default),
            "in_flight": base.in_flight,
            **_figures(tuner, [tuner.legs.get((base.key, "trial"), Leg())]),
        },
        "confirmation": _confirmation(tuner, found),
        "refused": found.refused,
        "importance": importance(history, tuner.space.axes),
        "trials": [_trial(tuner, trial) for trial in history],
        "states": {
            state: sum(trial.state == state for trial in history)
            for state in ("complete", "pruned", "failed")
        },
        "starts": {"count": len(tuner.starts), "seconds": sum(tuner.starts)},
        "requests": sum(len(one.latencies) for one in rounds),
        "tokens": {
            "prompt": sum(one.prompt_tokens for one in rounds),
            "completion": sum(one.tokens for one in rounds),
        },
        "notes": notes,
        "ended": found.ended,
    }


def verdict(ratio: Mapping[str, Any] | None) -> str:
    """`better`, `worse`, `no difference`, or `unknown` where there is no interval."""
    if ratio is None or ratio["low"] is None or ratio["high"] is None:
        return "unknown"
    return "better" if ratio["low"] > 1 else "worse" if ratio["high"] < 1 else "no difference"


def ratio_of(pairs: Sequence[Pair], objective: str) -> dict[str, Any] | None:
    """How many times the baseline's throughput the winner has: the geometric mean over pairs, with Student's interval
    of the logarithm. None where no pair has both."""
    ratios = []
    for pair in pairs:
        sides = [_rate(leg, objective) for leg in (pair.winner, pair.baseline)]
        if all(sides) and not pair.winner.failed and not pair.baseline.failed:
            ratios.append(sides[0] / sides[1])
    return {**_speed(ratios), "pairs": len(ratios), "level": LEVEL} if ratios else None


def best_yaml(tuner: Tuner, contender: Contender, said: Sequence[str]) -> str:
    """A configuration for `archon run`, with what was found as comments."""
    head = "".join(f"# {' '.join(line.split())}\n" for line in said)
    return head + dump(tuner.load.config(contender.model))


def _recommended(tuner: Tuner, found: Found) -> str | None:
    """What `best.yaml` holds: the winner; the baseline where nothing else is within the limits, or where it is surely
    faster than the winner; None where neither is within the limits."""
    if found.winner is None:
        leg = tuner.legs.get((tuner.baseline(tuner.space.default_load).key, "trial"), Leg())
        return BASELINE if leg.rounds and not leg.failed and not tuner.over([leg]) else None
    if verdict(ratio_of(found.pairs, tuner.settings.objective)) != "worse":
        return "winner"
    return "winner" if tuner.over([pair.baseline for pair in found.pairs]) else BASELINE


def _best(tuner: Tuner, found: Found, winner: Contender) -> dict[str, Any]:
    assert winner.configuration is not None
    legs = [pair.winner for pair in found.pairs] or [
        leg for name in ("trial", "again") if (leg := tuner.legs.get((winner.key, name))) is not None
    ]
    told: dict[str, Any] = {
        "configuration": winner.configuration.as_json(),
        "in_flight": winner.in_flight,
        "model": tuner.space.plain(winner.model),
        "pipeline": "best.yaml",
        "confirmed": bool(found.pairs),
        **_figures(tuner, legs),
        "chosen_by": tuner.rate([tuner.legs.get((winner.key, "trial"), Leg())]),
    }
    if isinstance(winner.model, VLLM) and winner.model.url is None:
        told["command"] = shlex.join(["vllm", "serve", winner.model.model, *winner.model.engine_flags])
    return told


def _confirmation(tuner: Tuner, found: Found) -> dict[str, Any] | None:
    if not found.pairs or found.winner is None:
        return None
    objective = tuner.settings.objective
    baselines = [pair.baseline for pair in found.pairs]
    failed = next((leg.failed for leg in baselines if leg.failed), "")
    ratio = ratio_of(found.pairs, objective)
    over = "" if failed else tuner.over(baselines)
    return {
        "ratio": ratio,
        "verdict": verdict(ratio),
        "baseline": {
            **_figures(tuner, [leg for leg in baselines if not leg.failed]),
            "in_flight": found.winner.in_flight,
            "failed": failed,
            "over_limit": over,
        },
        "pairs": [
            {
                "winner": _rate(pair.winner, objective),
                "baseline": _rate(pair.baseline, objective) or None,
                "first": "winner" if pair.winner_first else BASELINE,
            }
            for pair in found.pairs
        ],
    }


def _figures(tuner: Tuner, legs: Sequence[Leg]) -> dict[str, Any]:
    """Throughput with an interval over starts, or over rounds where there was one start; and latency."""
    objective = tuner.settings.objective
    known = [leg for leg in legs if leg.rounds]
    over = "starts" if len(known) > 1 else "rounds"
    parts = [_rate(leg, objective) for leg in known]
    if len(known) == 1:
        parts = [one.rate(objective) for one in known[0].rounds]
    rounds = [one for leg in known for one in leg.rounds]
    return {
        "throughput": {**_speed(parts), "over": over, "count": len(parts)},
        "latency": _latency(tuner, known),
        "first_token": first_token(rounds),
        "preempted": sum(one.preempted for one in rounds),
        "prompt_tokens": _mean([one.prompt_tokens / len(one.latencies) for one in rounds if one.latencies]),
        "completion_tokens": _mean([one.tokens / len(one.latencies) for one in rounds if one.latencies]),
        "failed": next((leg.failed for leg in legs if leg.failed), ""),
    }


def _latency(tuner: Tuner, legs: Sequence[Leg]) -> dict[str, Any] | None:
    limit = tuner.settings.limits.percentile
    seen = latencies(one for leg in legs for one in leg.rounds)
    if not seen:
        return None
    percents = sorted({50.0, 95.0, 99.0, float(limit)})
    of_legs = [percentile(latencies(leg.rounds), limit) for leg in legs]
    return {
        **{f"p{one:g}": percentile(seen, one) for one in percents},
        "largest": max(seen),
        "requests": len(seen),
        "of_starts": of_legs,
    }


def _trial(tuner: Tuner, trial: Trial) -> dict[str, Any]:
    return {
        "configuration": trial.configuration.as_json(),
        "state": trial.state,
        "throughput": None if trial.values is None else trial.values[0],
        "latency": trial.details.get("latency", {}),
        "first_token": trial.details.get("first_token"),
        "within": bool(trial.details.get("within", False)),
        "rounds": trial.problems,
        "reason": trial.reason,
        "proposer": trial.proposer,
    }


def _rate(leg: Leg, objective: str) -> float:
    return throughput(leg.rounds, objective)


def _speed(parts: Sequence[float]) -> dict[str, Any]:
    """The geometric mean with Student's interval of the logarithm: rates are above 0, and their noise is relative."""
    known = [math.log(one) for one in parts if one > 0]
    if len(known) < len(parts) or not known:
        return {"value": _mean(parts), "low": None, "high": None}
    found = student_interval(known)
    low, high = (math.exp(end) if math.isfinite(end) else None for end in (found.low, found.high))
    return {"value": math.exp(found.value), "low": low, "high": high}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# --- in words ------------------------------------------------------------------------------------------


def lines(told: Mapping[str, Any]) -> list[str]:
    """It in words, for the terminal."""
    best, states = told["best"], told["states"]
    found = []
    if best is None:
        if told["recommended"] == BASELINE:
            found.append("best: the baseline; no configuration kept up with it within the limits")
            found.append(f"  {_said(told, told['baseline'])}")
        else:
            found.append(
                "no configuration is within the limits and could be measured, and neither is the baseline"
            )
        reasons = list(dict.fromkeys(one["reason"] for one in told["trials"] if one["reason"]))
        found += [f"  {reason[:300]}" for reason in [*told["refused"], *reasons][:_SHOWN]]
    else:
        found.append(f"best: {_options(best['configuration'])}")
        found.append(f"  {_said(told, best)}")
        if best["confirmed"]:
            found.append(
                f"  {best['chosen_by']:,.4g} {told['unit']} when it was chosen: the best of many, so too high"
            )
        else:
            found.append("  not confirmed: this is the best of many measurements, and so too high")
        found += _compared(told)
        if "command" in best:
            found.append(f"  {best['command']}")
    if told["importance"]:
        shares = [f"{name} {share:.0%}" for name, share in list(told["importance"].items())[:_SHOWN]]
        found.append(f"what mattered for throughput: {', '.join(shares)}")
    found.append(
        f"{len(told['trials'])} configurations ({states['complete']} within the limits, {states['pruned']} ended early "
        f"or over a limit, {states['failed']} failed), {told['starts']['count']} starts "
        f"({told['starts']['seconds']:,.0f} s), {told['requests']:,} requests; it ended because {told['ended']}"
    )
    return [*found, *(f"note: {one}" for one in told["notes"])]


def _compared(told: Mapping[str, Any]) -> list[str]:
    confirmed = told["confirmation"]
    if confirmed is None:
        return [f"baseline: {_said(told, told['baseline'])}"]
    one, ratio = confirmed["baseline"], confirmed["ratio"]
    if one["failed"]:
        return [f"baseline: it could not be measured: {one['failed'][:300]}"]
    found = [f"baseline, side by side: {_said(told, one)}"]
    if one["over_limit"]:
        found.append(f"  under this load {one['over_limit']}")
    if ratio is not None:
        ends = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        count = _of(ratio["pairs"], "pair")
        times = f"{ratio['value']:.2f} times{ends} the baseline's throughput over {count} of starts"
        found.append(
            {
                "better": f"the winner has {times}",
                "worse": f"the baseline is better: the winner has {times}",
                "no difference": f"no difference from the baseline can be told: the winner has {times}",
                "unknown": f"the winner has {times}: too few pairs for an interval",
            }[confirmed["verdict"]]
        )
    return found


def _said(told: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    speed, latency = one["throughput"], one["latency"]
    if latency is None:
        return f"not measured: {one['failed'][:300]}" if one["failed"] else "not measured"
    ends = "" if speed["low"] is None else f" [{speed['low']:,.4g}, {speed['high']:,.4g}]"
    percent = f"p{told['limits']['percentile']:g}"
    text = (
        f"{speed['value']:,.4g}{ends} {told['unit']} over {_of(speed['count'], speed['over'].removesuffix('s'))}, "
        f"{one['in_flight']} in flight; latency p50 {latency['p50']:.3g} s, {percent} {latency[percent]:.3g} s"
    )
    return text if one["first_token"] is None else f"{text}, first token {one['first_token']:.3g} s"


def _of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _options(configuration: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in configuration.items())
