"""Atom of Thoughts: a question is taken apart and contracted, step by step, until what is left is easy to answer.

Source: Teng et al. 2025, "Atom of Thoughts for Markov LLM Test-Time Scaling" (arXiv 2502.12018), section 3 and
algorithm 1. A step works the question out, writes down its smaller questions and what each of them needs, takes the
answers of those that need nothing for given, and asks for one new question with the same answer. D steps are taken, D
being the longest way through the first graph; each step sees the last question only. The last question is answered
by `solver`, any pipeline, as is the first; of that direct answer, the decomposed one (of the first working out) and the
contracted one a model picks the best. AoT* is `runs: 3`: as many runs, and one choice among what they arrive at.

Cost, with S calls of `solver` (one sample: 1), and D steps in each of R runs:
    R (2 S + 3 D + 1) calls, and one more where R > 1.
Where the first graph has no needs, D is 0 and nothing is contracted: R (S + 3); where a later one has none, the steps
end there, which has taken 2 calls more than they did. A choice among equal answers takes no call. What is read (graph,
contraction, choice) may be asked `again`. Without `direct` among the answers, S counts once. With a `part_solver`, a
step takes a call for the graph, those of `part_solver` for each part, and one for the contraction.

The authors' public code differs: exactly one contraction and six calls, whatever the graph (`depth: 1`), and no
choice but a fourth answer, made from the three; of these the first is taken that agrees with it best, so the direct
one where none does (`choose: synthesis`). It computes a depth, by shortest ways, and does not use it.

As a plug-in before any other pipeline: `answers: [contracted]`, `choose: all`, `depth: 1`; what `solver` gives flows
on as it arrives. A graph with a circle, a wrong number or a missing key is asked for again, then mended as far as it
can be (strategies/thought_graph.py). What fails or is cut short leaves the answers that there are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from archon.answers import extract, normal_form
from archon.candidate import Candidate
from archon.pipeline import AnyPipeline, Pipeline
from archon.problem import Message, Problem
from archon.prompting import (
    Places,
    Unread,
    asked,
    choice_form,
    json_form,
    places_of,
    pose,
    question_of,
    read_choice,
    read_section,
    section_form,
)
from archon.run import Run
from archon.stage import NONE, Candidates, Count, Fact, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.sample import Sample
from archon.strategies.thought_graph import (
    OpenParts,
    Part,
    ThoughtGraph,
    ToldParts,
    mend_parts,
    read_assignments,
    read_parts,
)
from archon.strategies.writing import merged, numbered, whole

WORK = """\
{question}

Answer this by way of smaller questions. Say first which have to be settled on the way. Then settle them one \
after the other, each with its working, from what is given and from what is settled by then. End with the answer \
to the question itself, in the form in which it asks for it."""
GRAPH = """\
{question}

{solution}

The solution gets to its answer by way of smaller questions. List them in the order in which it settles them, at \
most {most}. Put each so that it can be understood by itself, with the answer that the solution gives to it, and \
with the numbers (from 1) of those on the list whose answers it builds on. What the question states is not on \
the list, and a smaller question that builds on such statements alone needs none. The last one is the question \
itself. {form}"""
SPLIT = """\
{question}

Do not answer this yet. Which smaller questions have to be settled on the way to the answer? List them in an \
order in which they can be settled, at most {most}. Put each so that it can be understood by itself, with the \
numbers (from 1) of those on the list whose answers it builds on; one that builds on what the question states \
alone needs none. The last one is the question itself. {form}"""
PART = """\
{question}

Not all of this is to be answered now, but one part of it:

{part}

What else has been settled by now, if anything:

{knowns}

Answer the part, from what the question states and what has been settled."""
CONTRACT = """\
{question}

Parts of this have been settled:

{knowns}

What else it takes to answer it:

{opens}

Write one new question in its place, with the same answer and fewer steps to it. State as given what has been \
settled and is still of use; leave out what is not. Whoever reads the new question sees nothing else: every \
number, condition, definition and option that is still needed must be in it, and it must ask for its answer in \
the same form. Do not answer it. {form}"""
JUDGE = """\
{question}

{answers}

Above are a question and several answers to it, got in different ways. Pick the one that is most likely right. \
Where they differ, work out yourself who is right; a way that looks more thorough is no reason. {form}"""
SYNTHESIS = """\
{question}

{answers}

Above are a question and several answers to it, got in different ways. Hold them against each other, settle \
where they differ, and answer the question."""
CONTRACTED = "CONTRACTED QUESTION"
"""The section that holds the new question."""

Answer = Literal["direct", "decomposed", "contracted"]


class AtomOfThoughts(Asking):
    """Take a question apart, contract it, and choose between the answers on the way."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    solver: AnyPipeline | None = None
    """What answers the question as it is, and the contracted one: any pipeline; one sample of `model` where not given.
    Its first answer counts."""
    part_solver: AnyPipeline | None = None
    """What answers the smaller questions, each once what it needs is known. Where not given, the model is told to work
    the question out, and their answers are taken from that."""
    answers: Annotated[tuple[Answer, ...], Field(min_length=1)] = ("direct", "decomposed", "contracted")
    """Which answers are made; in this order they are shown, and win ties."""
    choose: Literal["judge", "synthesis", "all"] = "judge"
    """How one is chosen: a model picks it; a model writes an answer of its own, and the first wins that agrees with it
    best; or `all` flow on, of the solver all that it gives."""
    depth: Annotated[int, Field(ge=0)] | Literal["longest"] = "longest"
    """How often it is contracted: so often, or as often as the longest way through the first graph has steps."""
    most_depth: Annotated[int, Field(ge=1)] = 4
    """With `longest`: how often at most."""
    most_parts: Annotated[int, Field(ge=1)] = 10
    """How many smaller questions, at most."""
    runs: Annotated[int, Field(ge=1)] = 1
    """How often all of it is done; then one choice is made among what was chosen. AoT* is 3."""
    read: Literal["json", "assignments"] = "json"
    """How the graph is read: as JSON, or as lines `name=what`, for models with a form of their own."""
    work_prompt: Annotated[str, Places("question|question_text")] = WORK
    """What asks for a solution by way of smaller questions: the decomposed answer."""
    graph_prompt: Annotated[
        str,
        Places("question|question_text", "solution|solution_text", optional=("most", "form")),
    ] = GRAPH
    """What asks for the graph of that solution."""
    split_prompt: Annotated[str, Places("question|question_text", optional=("most", "form"))] = SPLIT
    """With `part_solver`: what asks for the graph of the question."""
    part_prompt: Annotated[
        str,
        Places(
            "part|part_text|terms_text",
            optional=("question", "question_text", "knowns", "knowns_text", "name"),
        ),
    ] = PART
    """With `part_solver`: a smaller question as it is put. `{terms_text}` is what it needs and itself, parted by
    commas."""
    contract_prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "knowns|knowns_text|terms_text",
            optional=("opens", "opens_text", "form"),
        ),
    ] = CONTRACT
    """What asks for the new question; without `{form}` the whole reply is it. `{terms_text}` is what is known, parted
    by commas."""
    judge_prompt: Annotated[str, Places("question|question_text", "answers|answers_text", "form")] = JUDGE
    """What asks to pick an answer."""
    synthesis_prompt: Annotated[str, Places("question|question_text", "answers|answers_text")] = SYNTHESIS
    """What asks for an answer from the answers."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if len(set(self.answers)) < len(self.answers):
            raise ValueError("`answers` names one twice")
        name = "graph_prompt" if self.part_solver is None else "split_prompt"
        if self.read == "json" and "form" not in places_of(getattr(self, name)):
            raise ValueError(f"`{name}` lacks the place {{form}}, without which no graph is written as JSON")
        return self

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """All runs at once; a choice in each, and one among them."""
        if self.choose == "all":
            async for candidate in merged(run, *(self._all(problem, run, n) for n in range(self.runs))):
                yield candidate
            return
        found = await run.gather(*(self._once(problem, run, n) for n in range(self.runs)))
        chosen = await self._choice(problem, run, [c for c in found if c is not None], len(found))
        if chosen is not None:
            yield chosen

    def plan(self, incoming: Count) -> Plan:
        """The formula above, between no contraction and as many as may be."""
        solver, direct = self._solver.plan(), "direct" in self.answers
        each = self._taking_apart()
        if direct:
            each = each.plus(solver.calls)
        if "contracted" in self.answers:  # where nothing is contracted, it is the direct one
            each = each.plus(Count(0 if direct else solver.calls.low, solver.calls.high))
        choice = asked(Count(0, 1), self.again) if self.choose == "judge" else Count(0, 1)
        if self.choose == "all":
            often = direct + ("contracted" in self.answers)
            most = None if solver.passes.high is None else often * solver.passes.high
            passes = Count(0, most).plus(Count(0, int("decomposed" in self.answers))).times(self.runs)
            return Plan(each.times(self.runs), passes)
        if len(self.answers) > 1:
            each = each.plus(choice)
        calls = each.times(self.runs)
        return Plan(calls.plus(choice) if self.runs > 1 else calls, Count(0, 1))

    def _taking_apart(self) -> Count:
        """Calls of one run to take apart and to contract."""
        steps = self._most_steps if self._contracts else 0
        read, rounds = asked(Count(0, 1), self.again), max(1, steps)
        if self.part_solver is not None:
            if not (self._contracts or "decomposed" in self.answers):
                return NONE
            parts = self.part_solver.plan().calls.high
            solving = Count(0, None if parts is None else parts * self.most_parts)
            return Count(1, read.high).plus(solving).times(rounds)._replace(low=1).plus(read.times(steps))
        if not self._contracts:
            return Count(1, 1) if "decomposed" in self.answers else NONE
        return Count(0, 1).plus(read).times(rounds)._replace(low=1).plus(read.times(steps))

    @property
    def _solver(self) -> Pipeline:
        if self.solver is not None:
            return self.solver
        own = {name: value for name, value in self.sampling.given().items() if name in Sample.model_fields}
        return Pipeline([Sample(model=self.model, **own)])

    @property
    def _contracts(self) -> bool:
        return "contracted" in self.answers and self.depth != 0

    @property
    def _most_steps(self) -> int:
        return self.most_depth if self.depth == "longest" else self.depth

    # --- one run -----------------------------------------------------------------------------------

    async def _once(self, problem: Problem, run: Run, number: int) -> Candidate | None:
        """What one run chooses."""
        found: dict[Answer, Candidate | None] = {}

        async def direct() -> None:
            if "direct" in self.answers:
                found["direct"] = await self._first(problem, run, "direct", number)

        async def apart() -> None:
            decomposed, last = await self._apart(problem, run, number)
            if "decomposed" in self.answers:
                found["decomposed"] = decomposed
            if last is not None:
                found["contracted"] = await self._first(last, run, "contracted", number)

        await run.gather(direct(), apart())
        answers = [c for name in self.answers if (c := found.get(name)) is not None]
        return await self._choice(problem, run, answers, number)

    async def _first(self, problem: Problem, run: Run, kind: Answer, number: int) -> Candidate | None:
        """The first that the solver gives."""
        answers = await run.solve(self._solver, problem, kind, self._run_number(number))
        return answers[0] if answers else None

    def _run_number(self, number: int) -> int | None:
        return number + 1 if self.runs > 1 else None

    async def _all(self, problem: Problem, run: Run, number: int) -> AsyncGenerator[Candidate, None]:
        """Every answer of one run, as it arrives."""

        async def solved(last: Problem, kind: Answer) -> AsyncGenerator[Candidate, None]:
            async with aclosing(run.stream(self._solver, last, kind, self._run_number(number))) as stream:
                async for candidate in stream:
                    yield candidate

        async def apart() -> AsyncGenerator[Candidate, None]:
            decomposed, last = await self._apart(problem, run, number)
            if decomposed is not None and "decomposed" in self.answers:
                yield decomposed
            if last is not None:
                async for candidate in solved(last, "contracted"):
                    yield candidate

        direct = [solved(problem, "direct")] if "direct" in self.answers else []
        async for candidate in merged(run, *direct, apart()):
            yield candidate

    async def _apart(
        self, problem: Problem, run: Run, number: int
    ) -> tuple[Candidate | None, Problem | None]:
        """The decomposed answer, and the last question; None where that is answered directly, or not asked for."""
        first: Candidate | None = None
        last, level, steps = problem, 0, None if self.depth == "longest" else self.depth
        while self._contracts or (level == 0 and "decomposed" in self.answers):
            answer, graph = await self._decompose(last, run, number, level)
            first = answer if level == 0 else first
            if graph is None or not self._contracts:
                break
            if steps is None:
                steps = min(graph.depth, self.most_depth)
            if level == steps or (self.depth == "longest" and not graph.depth):
                break
            question = await self._contract(last, graph, run, number)
            if question is None:
                break
            level += 1
            last = asking(problem, question)
            run.trace("contracted", level=level, run=number, question=question)
            if level == steps:
                break
        if "contracted" not in self.answers or (last is problem and "direct" in self.answers):
            return first, None
        return first, last

    # --- taking apart ------------------------------------------------------------------------------

    async def _decompose(
        self, problem: Problem, run: Run, number: int, level: int
    ) -> tuple[Candidate | None, ThoughtGraph | None]:
        """An answer by way of smaller questions, and their graph, in which those that need nothing are answered."""
        if self.part_solver is not None:
            graph = await self._graph(problem, run, number, None, first=level == 0)
            if graph is None:
                return None, None
            return await self._solved(problem, graph, self.part_solver, run, number, level)
        posed = pose(self.work_prompt, question=question_of(problem))
        worked = await whole(self.write(run, posed))
        if worked is None:
            return None, None
        if level == 0:
            worked = numbered(worked, number)
        if not self._contracts:
            return worked, None
        return worked, await self._graph(problem, run, number, worked, first=level == 0)

    async def _graph(
        self, problem: Problem, run: Run, number: int, worked: Candidate | None, *, first: bool
    ) -> ThoughtGraph | None:
        """The graph of a solution, or of a question that is not answered yet."""
        question, model = question_of(problem), OpenParts if worked is None else ToldParts
        solution = {} if worked is None else {"solution": worked.text}
        posed = pose(
            self.split_prompt if worked is None else self.graph_prompt,
            lambda mark: json_form(model) if self.read == "json" else "",
            given={"most": str(self.most_parts)},
            question=question,
            **solution,
        )
        read = partial(read_assignments, question=question, most=self.most_parts)
        if self.read == "json":
            read = partial(read_parts, model=model, most=self.most_parts)
        if worked is None and first:  # all runs ask the same, so they ask together
            said = (await self.ask_several(run, posed, read, self.runs))[number]
        else:
            parents = () if worked is None else (worked,)
            said = await self.ask(run, posed, read, parents=parents, draw=number)
        if said.value is None and said.candidates and self.read == "json":
            try:
                return mend_parts(said.text, self.most_parts, told=worked is not None)
            except Unread:
                return None
        return said.value

    async def _solved(
        self, problem: Problem, graph: ThoughtGraph, solver: Pipeline, run: Run, number: int, level: int
    ) -> tuple[Candidate | None, ThoughtGraph | None]:
        """Every part solved that is of use, each as soon as what it needs is known; the last one's answer."""
        goal = len(graph.parts) - 1
        every = level == 0 and "decomposed" in self.answers
        start = (number * max(1, self._most_steps) + level) * self.most_parts + 1
        tasks: dict[int, asyncio.Task[tuple[Candidate | None, str]]] = {}

        async def solve(place: int) -> tuple[Candidate | None, str]:
            part = graph.parts[place]
            known = [(graph.parts[need], (await tasks[need])[1]) for need in part.needs]
            if not all(answer for _, answer in known):
                return None, ""
            derived = self._part_problem(problem, part, known, final=place == goal)
            found = await run.solve(solver, derived, "part", start + place)
            return (found[0], answer_of(derived, found[0])) if found else (None, "")

        for place in graph.order:
            if every or not graph.parts[place].needs:
                tasks[place] = run.spawn(solve(place))
        answers = {place: await task for place, task in tasks.items()}
        texts = [answers[place][1] if place in answers else "" for place in range(len(graph.parts))]
        usable = all(texts[place] for place, part in enumerate(graph.parts) if not part.needs)
        return answers[goal][0] if every else None, graph.answered(texts) if usable else None

    def _part_problem(
        self, problem: Problem, part: Part, known: Sequence[tuple[Part, str]], *, final: bool
    ) -> Problem:
        settled = [_settled(one, answer) for one, answer in known]
        posed = pose(
            self.part_prompt,
            given={"name": part.name, "terms_text": ", ".join((*settled, part.question))},
            question=question_of(problem),
            part=part.question,
            knowns=settled,
        )
        kind = problem.answer if final or problem.answer in ("number", "math") else "text"
        return asking(problem, posed.text).model_copy(update={"answer": kind})

    async def _contract(self, problem: Problem, graph: ThoughtGraph, run: Run, number: int) -> str | None:
        """One new question for what is left; None where none could be read."""
        settled = [_settled(part, part.answer) for part in graph.independent]
        formed = "form" in places_of(self.contract_prompt)
        posed = pose(
            self.contract_prompt,
            partial(section_form, CONTRACTED) if formed else lambda mark: "",
            given={"terms_text": ", ".join(settled)},
            question=question_of(problem),
            knowns=settled,
            opens=[part.question for part in graph.dependent],
        )
        read = partial(read_section, name=CONTRACTED, mark=posed.mark) if formed else _all_of_it
        return (await self.ask(run, posed, read, draw=number)).value

    # --- choosing ----------------------------------------------------------------------------------

    async def _choice(
        self, problem: Problem, run: Run, answers: Sequence[Candidate], draw: int
    ) -> Candidate | None:
        """One of the answers: as a model has it, else the one that most of them give; the first of equals."""
        forms = [normal_form(problem, c.text) or c.text for c in answers]
        if len(set(forms)) < 2:
            return answers[0] if answers else None
        votes = Counter(forms)
        popular = answers[max(range(len(answers)), key=lambda i: (votes[forms[i]], -i))]
        if self.choose == "judge":
            posed = pose(
                self.judge_prompt,
                partial(choice_form, len(answers)),
                question=question_of(problem),
                answers=[c.text for c in answers],
            )
            read = partial(read_choice, n=len(answers), mark=posed.mark)
            picked = (await self.ask(run, posed, read, parents=answers, draw=draw)).value
            return popular if picked is None else answers[picked]
        posed = pose(self.synthesis_prompt, question=question_of(problem), answers=[c.text for c in answers])
        written = await whole(self.write(run, posed, parents=answers))
        if written is None:
            return popular
        return max(answers, key=lambda c: agreement(problem, c.text, written.text))


def asking(problem: Problem, question: str) -> Problem:
    """A problem with another question; what kind of answer it wants, and what may be known, stays."""
    system = [m for m in problem.messages if m.role == "system"]
    messages = (*system, Message(role="user", content=question))
    return problem.model_copy(update={"messages": messages, "prompt": None, "stop": ()})


def answer_of(problem: Problem, candidate: Candidate) -> str:
    """What a candidate answers, or all it says."""
    return extract(problem, candidate.text) or candidate.text.strip()


def agreement(problem: Problem, one: str, other: str) -> float:
    """How far two replies give the same answer: 1 where it has one normal form; of texts, the F1 of their words."""
    first, second = normal_form(problem, one), normal_form(problem, other)
    if first is None or second is None:
        return 0.0
    if first == second or problem.answer != "text":
        return float(first == second)
    words, others = Counter(first.split()), Counter(second.split())
    return 2 * (words & others).total() / (words.total() + others.total())


def _settled(part: Part, answer: str) -> str:
    return f"{part.name}={answer}" if part.name else f"{part.question}\n{answer}"


def _all_of_it(text: str) -> str:
    if not text.strip():
        raise Unread("it is empty")
    return text.strip()
