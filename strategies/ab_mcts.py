"""AB-MCTS: a tree of answers that grows wider, by new answers, or deeper, by refinements, as promises more.

Source: Inoue et al. 2025, "Wider or Deeper? Scaling LLM Inference-Time Compute with Adaptive Branching Tree Search"
(arXiv 2503.04412): a child of the root is a new answer to the question; a child of an answer is that answer refined in
sight of what a verifier said of it. Every answer is judged by the verifier, and where the next is written is decided
by Thompson sampling over those scores (`stepping/branching.py`), in the paper's two variants: with node aggregation
(AB-MCTS-A), or with a mixed model of the scores (AB-MCTS-M).
Cost: n calls, exactly, and the verifier's for each answer.

Scores that are probabilities, fractions or logits count as such; others relative to the lowest and highest so far; an
acceptance without a score counts as 1, a rejection as 0. All answers flow out, as they are judged; what chooses
comes after. They are numbered in the order in which they came, and an answer's parents are those that it was shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.steps import convert
from archon.strategies.stepping.branching import Asked, Branching, Posterior, Variant
from archon.strategies.stepping.tree import Born, Tree, path
from archon.strategies.writing import Writing, numbered
from archon.verifier import AnyVerifier, Verifier

PROMPT = """\
{question}

{answers}

{remarks}

Above are a question, an attempt to answer it (or several, each made from the one before it), and remarks: each remark \
says what a check made of the attempt of the same number. A check can be mistaken, but take it seriously: find what in \
the last attempt it speaks of. Then write the answer anew, whole, in the form that the question asks for: put right \
what is wrong with the last attempt, and keep what is right. Where nothing is wrong with it, look for what else it \
lacks. Your answer stands for itself: do not speak of attempts or remarks."""

_MOST = 1e100
"""Scores beyond this count as this: their squares are still numbers."""


class ABMCTS(Writing):
    """Write n answers, each new or a refinement of an earlier one, as Thompson sampling decides."""

    name: ClassVar[str] = "ab_mcts"
    takes: ClassVar[bool] = False
    related: ClassVar[bool] = True
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "verdicts", "scores"})

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many answers are written."""
    verifier: AnyVerifier
    """Who judges them: a verifier's name, or `{name: settings}`."""
    called: Annotated[str, Field(min_length=1)] | None = None
    """What its verdicts go by; the verifier's name where not given."""
    variant: Variant = "node_aggregation"
    """How it is decided where the next answer is written: AB-MCTS-A or AB-MCTS-M."""
    posterior: Posterior = "gaussian"
    """What scores are taken to be drawn from. `beta` is for node aggregation; a mixed model is Gaussian."""
    batch: Annotated[int, Field(ge=1)] = 1
    """How many answers are in flight in one round. Those of a round do not know of each other."""
    context: Annotated[int, Field(ge=1)] = 1
    """How many answers a refinement is shown: the one that it refines, the one that this was made from, and so on."""
    first_system: str | None = None
    """A system message for new answers, before the problem's messages."""
    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answers|answers_text|replies_text",
            optional=("remarks", "remarks_text", "form", "mark"),
        ),
    ] = PROMPT
    """What the model is asked for a refinement. `{replies_text}` is `{answers_text}` by another name: `Reply 1:`."""

    @field_validator("verifier")
    @classmethod
    def _judges_each_alone(cls, verifier: Verifier) -> Verifier:
        if verifier.together:
            raise ValueError(
                f"`verifier` {verifier.name!r} compares all answers with each other, and each has to be judged when it "
                "is written, so that the search knows where to go on"
            )
        return verifier

    @model_validator(mode="after")
    def _uses_its_posterior(self) -> Self:
        if self.variant == "mixed_model" and self.posterior != "gaussian":
            raise ValueError(
                f"`posterior` {self.posterior!r} is for `variant: node_aggregation`: a mixed model is Gaussian. "
                "Leave it out"
            )
        return self

    @property
    def branching(self) -> Branching:
        """The algorithm, without its effects."""
        return Branching(self.n, self.batch, self.posterior, self.variant)

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Round by round: write, judge, choose where to go on."""
        branching = self.branching
        state = branching.start(run.rng.getrandbits(63))
        answers: list[Candidate | None] = [None]
        """By their place in the tree."""
        while wanted := branching.ask(state):
            written = await run.gather(
                *(self._written(problem, state.tree, answers, asked, run) for asked in wanted)
            )
            new = [answer for some in written for answer in some]
            judged = await self._verified(
                [numbered(answer, len(answers) - 1 + place) for place, answer in enumerate(new)], run
            )
            answers.extend(judged)
            told = iter(judged)
            grown = [[_known(next(told)) for _ in some] for some in written]
            state = branching.tell(state, grown, all(calibrated(_verdict(one)) for one in judged))
            for answer in judged:
                yield answer
            if not judged and run.scope.exhausted is not None:
                return

    async def _written(
        self, problem: Problem, tree: Tree, answers: Sequence[Candidate | None], asked: Asked, run: Run
    ) -> list[Candidate]:
        """New answers, or refinements of one."""
        line = [answer for place in path(tree, asked.place) if (answer := answers[place]) is not None]
        if line:
            shown = line[: self.context][::-1]
            texts, remarks = [answer.text for answer in shown], [remark(_verdict(answer)) for answer in shown]
            posed = pose(
                self.prompt, question=question_of(problem), answers=texts, replies=texts, remarks=remarks
            )
            draw = self.write(run, posed, asked.times, parents=shown)
        else:
            draw = run.sample(self.model, n=asked.times, system=self.first_system, sampling=self.sampling)
        return sorted([answer async for answer in draw], key=lambda answer: answer.index)

    async def _verified(self, answers: Sequence[Candidate], run: Run) -> list[Candidate]:
        """The answers with their verdicts; judged in batches of the verifier's, all at once."""
        size = max(1, self.verifier.batch)
        batches = [answers[start : start + size] for start in range(0, len(answers), size)]
        judged = await run.gather(*(run.verify(self.verifier, batch) for batch in batches))
        return [answer for batch in judged for answer in batch]

    # --- what is known before ----------------------------------------------------------------------

    def plan(self, incoming: Count) -> Plan:
        """A call for every answer, and the verifier's for it."""
        most = self.n * (1 + self.verifier.calls_per_candidate) + self.verifier.calls_per_problem
        return Plan(Count(self.n, most), Count(self.n, self.n))

    @property
    def title(self) -> str:
        """What is said here, or the verifier's name."""
        return self.called or self.verifier.name

    @property
    def models(self) -> tuple[str, ...]:
        """The writer, and the verifier's models."""
        return tuple(dict.fromkeys((self.model, *self.verifier.models)))


def remark(verdict: Verdict) -> str:
    """A verdict in words."""
    said = {
        True: "It was accepted.",
        False: "It was rejected.",
        None: "It was not decided whether it is right.",
    }
    score = "" if verdict.score is None else f" Its score is {verdict.score:.3g}, a {verdict.scale}."
    return f"{said[verdict.accepted]}{score} {verdict.detail}".strip()


def value_of(verdict: Verdict) -> float | None:
    """A verdict as a number, higher for better: from 0 to 1 where `calibrated` says so; None where it says nothing."""
    score = verdict.score
    if score is None or not math.isfinite(score):
        decided = calibrated(verdict) and verdict.accepted is not None
        return float(bool(verdict.accepted)) if decided else None
    if verdict.scale == "logit":
        return convert(score, "logit", "probability")
    if calibrated(verdict):
        return min(max(score, 0.0), 1.0)
    return min(max(-score if verdict.scale == "rank" else score, -_MOST), _MOST)


def calibrated(verdict: Verdict) -> bool:
    """Whether the scores of its scale are from 0 to 1, or can be taken there."""
    return verdict.score is None or verdict.scale in ("probability", "fraction", "logit")


def _verdict(answer: Candidate) -> Verdict:
    """The one that it has: it is new."""
    (verdict,) = answer.verdicts.values()
    return verdict


def _known(answer: Candidate) -> Born:
    return Born(value_of(_verdict(answer)), closed=not answer.text.strip())
