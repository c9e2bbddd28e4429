"""What is answered: candidates, the verdicts on them, and the outcome of a pipeline.

Everything here is immutable: a stage derives a new candidate with `with_verdict` or `derive`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from archon.errors import ArchonError
from archon.usage import NOTHING, Usage

T = TypeVar("T")

Scale = Literal["probability", "logit", "fraction", "count", "rank", "score"]
"""What a score is, so that thresholds and softmaxes mean something: a probability of being right, its
logit, a fraction (of tests passed), a count, a rank (1 is best), or an uncalibrated score."""

Status = Literal["passed", "wrong", "failed", "timed_out", "undecided"]
"""Why a verdict is what it is; the ways not to pass stay distinct (D9)."""

Finish = Literal["stop", "stop_string", "length", "content_filter", "tool_calls", "unknown"]
"""Why a completion ended: end of sequence, a stop string, the token limit, a filter, ..."""


class TokenLogprob(NamedTuple):
    """One generated token with its log-probability (natural log) and the likeliest alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of one candidate. A verdict is not the truth (D7)."""

    verifier: str
    """The verifier's name within the pipeline."""
    accepted: bool | None
    """True, False, or None where the verifier cannot tell."""
    score: float | None = None
    """Its score; higher is better except on the scale `rank`. Not a number counts as none."""
    scale: Scale = "score"
    """What the score is."""
    status: Status = "undecided"
    """Why: passed, wrong, failed (an error), timed out, undecided."""
    detail: str = ""
    """One line for people."""

    def __post_init__(self) -> None:
        if self.score is not None and math.isnan(self.score):
            object.__setattr__(self, "score", None)  # it has no order, so it would choose at random


_NO_VERDICTS: Mapping[str, Verdict] = MappingProxyType({})
_NO_NOTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer to a problem, with where it came from and what was said of it."""

    id: str
    """Unique within one solving of one problem, and the same in every replay: `stage#index`."""
    text: str
    """The reply."""
    stage: str = ""
    """The stage that wrote it."""
    index: int = 0
    """Its index among the candidates of that stage, which is its sample index."""
    model: str = ""
    """The model that wrote it."""
    problem: str = ""
    """The id of the derived problem that it answers (`Run.solve`); empty where it answers the problem itself."""
    parents: tuple[str, ...] = ()
    """The candidates it was made from."""
    steps: tuple[str, ...] = ()
    """The steps of the text, where it was written in steps."""
    finish: Finish = "unknown"
    """Why the text ended."""
    stop: str | None = None
    """The stop string that ended it."""
    reasoning: str = ""
    """Hidden reasoning that the server returned beside the text."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Log-probabilities of its tokens, where asked for."""
    verdicts: Mapping[str, Verdict] = field(default_factory=lambda: _NO_VERDICTS)
    """Verdicts by verifier name."""
    notes: Mapping[str, str] = field(default_factory=lambda: _NO_NOTES)
    """What was said of it in words, such as a critique, by the stage that said it."""
    usage: Usage = NOTHING
    """What writing it used."""

    @property
    def accepted(self) -> bool:
        """Whether it has verdicts and every one of them accepts. Ranks say who is better, not who is right."""
        said = [v.accepted is True for v in self.verdicts.values() if v.scale != "rank"]
        return bool(said) and all(said)

    def score(self, verifier: str | None = None) -> float | None:
        """Its score by one verifier, or by the only one; None where there is none.

        Ranks are negated, so that higher is always better. Raises LookupError where several verifiers
        scored it and none is named.
        """
        if verifier is not None:
            return _as_higher_is_better(self.verdicts.get(verifier))
        scored = [v for v in self.verdicts.values() if v.score is not None]
        if len(scored) > 1:
            raise LookupError(
                f"candidate {self.id} has scores by {', '.join(sorted(v.verifier for v in scored))}; "
                "name the one to use"
            )
        return _as_higher_is_better(scored[0]) if scored else None

    def with_verdict(self, verdict: Verdict) -> Candidate:
        """This candidate with one verdict more (or replaced)."""
        return replace(self, verdicts=MappingProxyType({**self.verdicts, verdict.verifier: verdict}))

    def with_note(self, stage: str, text: str) -> Candidate:
        """This candidate with what a stage says of it in words."""
        return replace(self, notes=MappingProxyType({**self.notes, stage: text}))

    def merged(self, other: Candidate) -> Candidate:
        """This candidate with the verdicts and notes that another branch gave it.

        They stand in the order in which they were given; those of branches side by side by their names, whichever
        came first.
        """
        if other.verdicts == self.verdicts and other.notes == self.notes:
            return self
        return replace(
            self, verdicts=_joined(self.verdicts, other.verdicts), notes=_joined(self.notes, other.notes)
        )


def _joined(one: Mapping[str, T], other: Mapping[str, T]) -> Mapping[str, T]:
    both = {**one, **other}
    if len(both) > max(len(one), len(other)):  # neither comes from the other
        shared = [
            name for name, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        ]
        names = [*shared, *sorted(both.keys() - {*shared})]
    else:
        names = [*max(one, other, key=len)]
    return MappingProxyType({name: both[name] for name in names})


def _as_higher_is_better(verdict: Verdict | None) -> float | None:
    if verdict is None or verdict.score is None:
        return None
    return -verdict.score if verdict.scale == "rank" else verdict.score


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that gave no candidate: which stage, which sample, why."""

    stage: str
    index: int
    error: ArchonError


StopReason = Literal["complete", "early", "budget", "deadline", "cancelled"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pipeline made of one problem."""

    problem: str
    """The problem's id."""
    chosen: Candidate | None
    """The chosen answer, or None: an abstention."""
    final: tuple[Candidate, ...] = ()
    """What came out of the last stage, best first where the stage ranks."""
    candidates: tuple[Candidate, ...] = ()
    """Every candidate that any stage wrote, with every verdict it got, in sample order; those of derived
    problems included."""
    failures: tuple[Failure, ...] = ()
    """Attempts that gave no candidate."""
    usage: Usage = NOTHING
    """What it used in all; replayed samples count with their recorded usage."""
    by_stage: Mapping[str, Usage] = field(default_factory=dict)
    """Usage by stage."""
    by_model: Mapping[str, Usage] = field(default_factory=dict)
    """Usage by model."""
    fresh: Usage = NOTHING
    """The part of `usage` that was spent now; the rest came from the store."""
    stopped: StopReason = "complete"
    """Why it ended: everything ran, a stage had what it needed, a budget or deadline ran out."""
    exhausted: str = ""
    """Which budget ran out, as `scope.dimension`."""

    @property
    def answer(self) -> str | None:
        """The chosen text, or None."""
        return None if self.chosen is None else self.chosen.text

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON; candidates with their verdicts, in sample order."""
        return {
            "problem": self.problem,
            "answer": self.answer,
            "chosen": None if self.chosen is None else self.chosen.id,
            "stopped": self.stopped,
            "exhausted": self.exhausted,
            "usage": self.usage.as_json(),
            "fresh": self.fresh.as_json(),
            "by_stage": {name: usage.as_json() for name, usage in self.by_stage.items()},
            "by_model": {name: usage.as_json() for name, usage in self.by_model.items()},
            "candidates": [
                {
                    "id": c.id,
                    "text": c.text,
                    "model": c.model,
                    "finish": c.finish,
                    **({"problem": c.problem} if c.problem else {}),
                    "verdicts": {
                        name: {"accepted": v.accepted, "score": v.score, "scale": v.scale, "status": v.status}
                        for name, v in c.verdicts.items()
                    },
                }
                for c in self.candidates
            ],
            "failures": [
                {"stage": f.stage, "index": f.index, "error": f"{type(f.error).__name__}: {f.error}"}
                for f in self.failures
            ],
        }
