"""Mixture of agents: layers of models, each of which sees all answers of the layer before.

Source: Wang et al. 2024, "Mixture-of-Agents Enhances Large Language Model Capabilities" (arXiv 2406.04692), section
2. The first layer's models answer the problem by themselves; those of later layers answer it with the answers of
the layer before as references, by one and the same prompt; in the last layer one model, the aggregator, does so.
Cost: (layers - 1) × proposers + n calls, exactly.

A model may stand among the proposers several times, for as many samples of it per layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.draw import Draw
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.writing import Writing

PROMPT = """\
{question}

{answers}

Several models have answered this question, each without knowing of the others. Any of them may be wrong, in a \
detail or altogether, also where they agree. Check what they say against the question and against each other, \
keep what holds, put right what does not, add what is missing. Then write one answer of your own, better than \
any of them, in the form that the question asks for. It stands for itself: do not speak of the answers that you \
were shown."""


class MixtureOfAgents(Writing):
    """Answer by layers of models; the last layer's answer flows out.

    Where a layer gives nothing that is whole (a budget, failures, replies that are blank or cut off), whole answers
    of the layer before stand for its own, and in the end the first of them.
    """

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    model: str = "default"
    """The aggregator: the model of the last layer."""
    proposers: Annotated[tuple[str, ...], Field(min_length=1)] = ("default",) * 3
    """The models of each layer before the last."""
    layers: Annotated[int, Field(ge=2)] = 3
    """How many layers, the aggregator's included, as the paper counts them."""
    n: Annotated[int, Field(ge=1)] = 1
    """How many answers the aggregator writes."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text|replies_text", optional=("mark",))
    ] = PROMPT
    """What a model is asked that sees the answers of the layer before. `{replies_text}` are the answers for models
    that know them as replies."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Layer by layer; whole answers of the last flow on as they come."""
        answers: Sequence[Candidate] = ()
        for _ in range(self.layers - 1):
            answers = await self._layer(run, problem, answers)
        if not answers:
            return
        lacking: list[Candidate] = []
        written = 0
        async for candidate in self._asked(run, problem, answers, self.model, self.n):
            if _lack(candidate):
                lacking.append(candidate)
            else:
                written += 1
                yield candidate
        if not written:
            yield min((*lacking, *answers), key=_lack)

    def plan(self, incoming: Count) -> Plan:
        """Exactly the models of all layers."""
        calls = len(self.proposers) * (self.layers - 1) + self.n
        return Plan(Count(calls, calls), Count(self.n, self.n))

    @property
    def models(self) -> tuple[str, ...]:
        """The proposers and the aggregator."""
        return tuple(dict.fromkeys((*self.proposers, self.model)))

    async def _layer(self, run: Run, problem: Problem, answers: Sequence[Candidate]) -> Sequence[Candidate]:
        """What the proposers answer, in their order, samples of one model together."""
        draws = [self._asked(run, problem, answers, *each) for each in Counter(self.proposers).items()]
        written = sorted((c for one in await run.gather(*map(_all, draws)) for c in one), key=run.birth)
        best = min(map(_lack, (*written, *answers)), default=0)
        return [c for c in written if _lack(c) == best] or answers

    def _asked(self, run: Run, problem: Problem, answers: Sequence[Candidate], model: str, n: int) -> Draw:
        if not answers:
            return run.sample(model, n=n, sampling=self.sampling)
        texts = [c.text for c in answers]
        posed = pose(self.prompt, question=question_of(problem), answers=texts, replies=texts)
        return self.write(run, posed, n, parents=answers, model=model)


async def _all(draw: Draw) -> list[Candidate]:
    return [candidate async for candidate in draw]


def _lack(candidate: Candidate) -> int:
    """What an answer lacks: nothing, its end, or everything."""
    return 2 if not candidate.text.strip() else int(candidate.finish == "length")
