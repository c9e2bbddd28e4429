"""Multi-agent debate: several agents answer, see each other's answers, and answer again.

Source: Du et al. 2023, "Improving Factuality and Reasoning in Language Models through Multiagent Debate" (arXiv
2305.14325), section 2: in the first round every agent answers the question by itself; in every further round each is
shown its own answer and those of the others in the round before, and answers again. The last answers flow out, one
per agent: vote on them. Cost: agents × rounds calls, exactly.

The paper's agents are copies of one model with the whole conversation before them; ours may be different models, and
see the last round alone. What agent a says in round r (both from 0) is candidate number a × rounds + r.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.draw import Draw
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.writing import Writing, numbered, whole

PROMPT = """\
{question}

{own_answer}

{answers}

Above are a question, your own answer to it, and the answers of others, who have not seen yours. Look at where they \
differ from yours, and find out who is right there, by the reasons and not by how many say it. Take over what is right \
and keep what you still hold to be right against them. Then answer the question anew, whole and in the form that it \
asks for; do not speak of the other answers beyond what the reasons need."""


class Debate(Writing):
    """Let agents answer in rounds, each in sight of the others' last answers.

    An agent whose call gives nothing whole in a round (a budget, a failure, a reply that is blank or cut off) stands
    by its answer before; one that has never answered takes no part.
    """

    takes: ClassVar[bool] = False
    related: ClassVar[bool] = True
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    agents: Annotated[int, Field(ge=2)] = 3
    """How many debate."""
    agent_models: tuple[str, ...] = ()
    """Their models, in turn; `model` for all where not given."""
    rounds: Annotated[int, Field(ge=1)] = 2
    """How many rounds, the first one, in which they answer alone, included."""
    first_system: str | None = None
    """A system message for the first round, before the problem's messages."""
    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answers|answers_text|replies_text",
            optional=("own_answer", "own_answer_text", "form", "mark"),
        ),
    ] = PROMPT
    """What an agent is asked in the later rounds: `{own_answer}` is its own answer, `{answers}` are the others'.
    `{replies_text}` is `{answers_text}` by another name: `Reply 1:`."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Round by round; each begins when all have spoken."""
        said = await self._opening(run)
        for number in range(1, self.rounds):
            if len(said) < 2:  # there is nobody to debate with
                break
            agents = sorted(said)
            replies = await run.gather(*(self._reply(problem, a, said, number, run) for a in agents))
            said = dict(zip(agents, replies, strict=True))
        for agent in sorted(said):
            yield said[agent]

    def plan(self, incoming: Count) -> Plan:
        """A call for each agent in each round."""
        calls = self.agents * self.rounds
        return Plan(Count(calls, calls), Count(self.agents, self.agents))

    @property
    def models(self) -> tuple[str, ...]:
        """The agents' models."""
        return tuple(dict.fromkeys(self.agent_models[: self.agents])) or (self.model,)

    def model_of(self, agent: int) -> str:
        """Which model an agent is, counted from 0."""
        return self.agent_models[agent % len(self.agent_models)] if self.agent_models else self.model

    async def _opening(self, run: Run) -> dict[int, Candidate]:
        """What each agent says by itself; samples of one model are drawn together."""
        seats: dict[str, list[int]] = {}
        for agent in range(self.agents):
            seats.setdefault(self.model_of(agent), []).append(agent)
        draws: list[Coroutine[Any, Any, dict[int, Candidate]]] = []
        start = 0
        for model, agents in seats.items():
            draw = run.sample(model, n=len(agents), system=self.first_system, sampling=self.sampling)
            draws.append(self._seated(draw, agents, start))
            start += len(agents)
        return {agent: answer for some in await run.gather(*draws) for agent, answer in some.items()}

    async def _reply(
        self, problem: Problem, agent: int, said: Mapping[int, Candidate], number: int, run: Run
    ) -> Candidate:
        """What an agent says in a later round; what it said before, where that is nothing."""
        own = said[agent]
        others = [said[other] for other in sorted(said) if other != agent and said[other].text.strip()]
        if not others:
            return own
        texts = [other.text for other in others]
        posed = pose(
            self.prompt, question=question_of(problem), own_answer=own.text, answers=texts, replies=texts
        )
        reply = await whole(self.write(run, posed, parents=(own, *others), model=self.model_of(agent)))
        return own if reply is None else numbered(reply, agent * self.rounds + number)

    async def _seated(self, draw: Draw, agents: Sequence[int], start: int) -> dict[int, Candidate]:
        """The samples of a draw, whose numbers begin at `start`, as what these agents say."""
        said = {agents[answer.index - start]: answer async for answer in draw}
        return {agent: numbered(answer, agent * self.rounds) for agent, answer in said.items()}
