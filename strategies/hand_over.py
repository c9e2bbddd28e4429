"""A cascade: a small model answers, and where it is not confident enough a large one answers instead.

Source: FrugalGPT (Chen et al. 2023, arXiv 2305.05176, section 3), where a model's answer is kept if its score is
above a threshold and else the next model is asked; agreement among samples as that score as in Yue et al. 2023,
"Large Language Model Cascades with Mixture of Thoughts Representations" (arXiv 2310.03094); uncertainty as the
trigger between a small and a large model as in FS-GEN (Zhang et al. 2024, arXiv 2406.12295), which hands over single
tokens: an API allows whole answers. Cost: 0 or n calls of the large model, beside those of the small one.

The threshold is given, or calibrated on problems whose answers are known: `calibrate`. With `samples`, the decision
falls as soon as what is still to come cannot change it, and closing the input cancels the small model's calls.
Cascades of more than two models: one after the other, `small` of each saying whose answers it judges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field

from archon.answers import normal_form
from archon.backends.base import Sampling
from archon.candidate import Candidate
from archon.draw import Draw
from archon.errors import Flaw
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.strategies.selection import check_name

if TYPE_CHECKING:
    from archon.graph import Graph

Evidence: TypeAlias = str | float | None
"""What one answer has to say of a small model's confidence; None where it says nothing."""


class HandOver(Stage):
    """Pass a small model's answers on where they are confident enough; else a large model's instead.

    Nothing that flows in, and answers whose confidence is not known, are not confident. Where the large model gives
    no answer (a budget, a failure), the small one's are passed on.
    """

    stops_early: ClassVar[bool] = True

    model: str = "large"
    """The large model."""
    confidence: Literal["agreement", "logprob", "score"] = "agreement"
    """What says how confident the small model is. `agreement`: the share of its answers that are the most frequent
    one. `logprob`: the mean log-probability of its tokens (natural log, at most 0), averaged over its answers; they
    must be asked for (`logprobs: 0` on `sample`). `score`: the highest of a verifier's scores, on its own scale
    (ranks negated)."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.7
    """The least confidence with which the small model's answers are kept."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """How many of the small model's answers are waited for: as many as it is asked for. What else would still flow in
    when the decision falls is not waited for. All that flow in are, where this is not given."""
    small: str | None = None
    """The model whose answers are judged; others are passed on as they are. All are judged where not given."""
    by: str | None = None
    """With `score`: whose; the only verifier's where not given."""
    keep: bool = False
    """Whether the small model's answers are passed on too where the large one answers, for a vote of both."""
    n: Annotated[int, Field(ge=1)] = 1
    """How many answers the large model gives."""
    system: str | None = None
    """A system message for the large model, before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The large model's; its default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """The large model's nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per answer of the large model; its own where not given."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Ask the large model for log-probabilities, for a further hand-over after this one."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Judge what arrives until the decision is certain; then let either speak."""
        seen: list[Candidate] = []
        evidence: list[Evidence] = []
        decided: bool | None = None
        passing = 0
        async for candidate in candidates:
            if self.small is not None and candidate.model != self.small:
                passing += 1
                yield candidate
                continue
            seen.append(candidate)
            evidence.append(self.evidence(problem, candidate))
            decided = self.decision(evidence, ended=False)
            if decided is not None:
                break
        check_name(self.by, seen)
        if decided is None:
            decided = self.decision(evidence, ended=True) or (not seen and passing > 0)
        if decided:
            for candidate in seen:
                yield candidate
            return
        if (close := getattr(candidates, "close", None)) is not None:
            close()  # before the large model is asked, not after
        answered = False
        async for candidate in self._large(run):
            answered = True
            yield candidate
        if self.keep or not answered:
            for candidate in seen:
                yield candidate

    def confidence_of(self, problem: Problem, answers: Sequence[Candidate]) -> float | None:
        """How confident the small model is, by its answers to a problem: what to calibrate with.

        None where that is not known: there are none, or they lack log-probabilities or scores. Answers that are
        still missing of `samples` agree with none.
        """
        check_name(self.by, answers)
        return self._confidence([self.evidence(problem, answer) for answer in answers])

    def evidence(self, problem: Problem, answer: Candidate) -> Evidence:
        """What one answer has to say of the confidence: its normal form, its log-probability or its score."""
        if self.confidence == "agreement":
            return normal_form(problem, answer.text)
        return _mean_logprob(answer) if self.confidence == "logprob" else answer.score(self.by)

    def decision(self, evidence: Sequence[Evidence], *, ended: bool) -> bool | None:
        """Whether the small model is confident, by what has come of its answers; None while that is not certain.

        What it says of the first answers is what it would say of all.
        """
        confidence = self._confidence(evidence)
        confident = confidence is not None and confidence >= self.threshold
        if ended or len(evidence) == self.samples:
            return confident
        if self.samples is None:
            return None
        left = self.samples - len(evidence)
        if self.confidence == "agreement":
            first, second = _most_frequent(evidence)
            if (first + left) / self.samples < self.threshold:
                return False
            return True if confident and first > second + left else None
        if self.confidence == "logprob":  # those to come add nothing above 0
            known = sum(float(mean) for mean in evidence if mean is not None)
            return False if None in evidence or known / self.samples < self.threshold else None
        return True if confident else None

    def _confidence(self, evidence: Sequence[Evidence]) -> float | None:
        if not evidence:
            return None
        if self.confidence == "agreement":
            return _most_frequent(evidence)[0] / max(len(evidence), self.samples or 0)
        known = [float(one) for one in evidence if one is not None]
        if self.confidence == "score":
            return max(known, default=None)
        return sum(known) / len(known) if len(known) == len(evidence) else None

    def plan(self, incoming: Count) -> Plan:
        """No calls, or n; the answers of one model or the other, or of both."""
        most = None
        if incoming.high is not None:
            most = (
                incoming.high + self.n if self.keep or self.small is not None else max(incoming.high, self.n)
            )
        return Plan(Count(0, self.n), Count(1, most))

    @property
    def models(self) -> tuple[str, ...]:
        """The large model."""
        return (self.model,)

    def rules(self, before: tuple[Stage, ...], after: tuple[Stage, ...]) -> Iterable[str]:
        """What the confidence is read from must be asked for; whose, must be clear."""
        if self.confidence == "logprob" and all(getattr(s, "logprobs", None) is None for s in before):
            yield (
                "it goes by log-probabilities, and no stage before it asks for them; "
                "set `logprobs: 0` on the stage that samples"
            )
        if self.confidence == "score" and not any("scores" in stage.provides for stage in before):
            yield "it goes by a score, and no stage before it gives any; put `verify` before it"
        if self.small is None and any(isinstance(stage, HandOver) for stage in before):
            yield "it comes after another `hand_over`; `small` says which model's answers it judges"

    def misplaced(self, graph: Graph, path: str) -> Iterable[Flaw]:
        """With `score`, whose must be clear."""
        by_any = self.confidence == "score" and self.by is None
        if by_any and (unclear := graph.rivals(self, graph.upstream[path])):
            yield Flaw(path, unclear)

    def _large(self, run: Run) -> Draw:
        given = {name: value for name, value in self.given().items() if name in Sampling.model_fields}
        return run.sample(self.model, n=self.n, system=self.system, sampling=Sampling(**given))


class Calibration(NamedTuple):
    """A threshold, and what it does on the problems that it was chosen by."""

    threshold: float
    """What to set as `threshold`."""
    share: float
    """The share of problems that it hands over."""
    accuracy: float | None
    """The accuracy of the answers that it keeps; None where it keeps none."""
    n: int
    """How many problems it was chosen by."""


def calibrate(
    pairs: Sequence[tuple[float | None, bool]],
    *,
    share: float | None = None,
    accuracy: float | None = None,
    level: float | None = None,
) -> Calibration:
    """The threshold for a target, from pairs of a small model's confidence and whether its answer was right.

    With `share`: the highest threshold that hands over at most this share of the problems. With `accuracy`: the
    lowest one whose kept answers are right at least so often; with `level` (such as 0.95) the lower bound of their
    accuracy is (Wilson's one-sided interval, by itself for each threshold: choosing among many makes it optimistic).
    Where no threshold keeps to the accuracy, it is one that hands over everything. A confidence of None, which is
    always handed over, counts so.

    Raises ValueError where there are no pairs, a confidence is not a finite number, or the target is not one share
    or accuracy from 0 to 1.
    """
    if not pairs:
        raise ValueError("`pairs` is empty; a threshold is chosen by problems whose answers are known")
    if (share is None) == (accuracy is None):
        raise ValueError("give either `share` or `accuracy`")
    for name, value in (("share", share), ("accuracy", accuracy), ("level", level)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"`{name}` is between 0 and 1, and is {value:g}")
    if level is not None and (accuracy is None or not 0.5 <= level < 1):
        raise ValueError("`level` goes with `accuracy`, and is at least 0.5 and below 1")
    if not all(confidence is None or math.isfinite(confidence) for confidence, _ in pairs):
        raise ValueError("a confidence is not a finite number; None stands for one that is not known")
    known = [(confidence, right) for confidence, right in pairs if confidence is not None]
    levels = sorted({confidence for confidence, _ in known})
    above = math.nextafter(levels[-1], math.inf) if levels else 0.0
    found = [_tried(threshold, known, len(pairs)) for threshold in (*levels, above)]
    if share is not None:
        within = [one for one in found if one.share <= share]
        return within[-1] if within else found[0]
    assert accuracy is not None
    good = (one for one in found if _at_least(accuracy, one, level))
    return next(good, found[-1])


def _tried(threshold: float, known: Sequence[tuple[float, bool]], n: int) -> Calibration:
    kept = [right for confidence, right in known if confidence >= threshold]
    return Calibration(threshold, 1 - len(kept) / n, sum(kept) / len(kept) if kept else None, n)


def _at_least(accuracy: float, one: Calibration, level: float | None) -> bool:
    """Whether what is kept is right so often, or so often with this confidence."""
    if one.accuracy is None:
        return False
    if level is None:
        return one.accuracy >= accuracy
    kept, z = round((1 - one.share) * one.n), NormalDist().inv_cdf(level)
    centre = one.accuracy + z * z / (2 * kept)
    spread = z * math.sqrt(one.accuracy * (1 - one.accuracy) / kept + z * z / (4 * kept * kept))
    return (centre - spread) / (1 + z * z / kept) >= accuracy


def _most_frequent(forms: Sequence[Evidence]) -> tuple[int, int]:
    """How often the most frequent answer was given, and the next; candidates without an answer give none."""
    counts = [count for _, count in Counter(form for form in forms if form is not None).most_common(2)]
    return (*counts, 0, 0)[0], (*counts, 0, 0)[1]


def _mean_logprob(answer: Candidate) -> float | None:
    """The mean log-probability of its tokens, at most 0; None where there are none."""
    if not answer.logprobs:
        return None
    mean = sum(token.logprob for token in answer.logprobs) / len(answer.logprobs)
    return None if math.isnan(mean) else min(0.0, mean)
