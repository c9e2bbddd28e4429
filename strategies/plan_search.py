"""PlanSearch: search over plans in words, for solutions that differ in their ideas and not only in their wording.

Source: Wang et al. 2024, "Planning In Natural Language Improves LLM Search For Code Generation" (arXiv 2409.03733),
section 4.3. The model makes observations about the problem; of every subset of them, of size 0 to `subset`, it derives
further ones; of all on the way to a leaf it makes a sketch of a solution; it criticises the sketch and makes a second
one that heeds the criticism; each becomes pseudocode, and that a solution.

Cost: where k observations are kept at every node, l = C(k,0) + ... + C(k,S) subsets, with L = `layers`:
    nodes = (l^L - 1) / (l - 1), tuples = l^L, codes = 2 tuples (1 without `fix`),
    calls = 2 nodes (1 without `filter`) + tuples (0 without `sketch`) + 2 tuples (0 without `fix`)
            + 2 codes (1 without `pseudocode`).
k = 3, 4, 5, 6 gives 8, 12, 17, 23 nodes, 49, 121, 256, 484 tuples, 98, 242, 512, 968 codes and 359, 871, 1826, 3434
calls. With `n` codes wanted, tuples = n / 2, rounded up, and of each level at most so many nodes are asked. Every call
but those for the solutions may be made `again` where its reply is empty, cut off or no list.

`tuples` says of what sketches are made. `leaves`, as the paper has it: for every leaf, of all observations on its way.
`levels`, as the authors' code has it: of every subset at any level, each by itself, of which there are as many. That
code spends four calls on a node, as it has the list written out, filtered and formatted in further calls; here the list
is read where it is first written, and filtered in a second call.

A part of the tree is a fair one: its branches take turns, in an order drawn from the run's generator, and a larger part
holds the smaller. `n` wants one, and so does a limit on requests, this stage's (`budget`) or one around it. Whatever
gives nothing is left out, and the chain goes on from what is there: a node without a list has no observations, a sketch
that stays empty leaves the observations, an empty criticism leaves no second sketch. Only where a sketch has no reply
at all, as a budget ran out or the call failed, there is no solution of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from archon.problem import Problem
from archon.prompting import Places, asked, items_form, pose, question_of, read_items
from archon.run import Run
from archon.stage import NONE, Candidates, Count, Fact, Plan, Stream
from archon.strategies.chains import AHEAD, Emit, chained, cut_short, requests_left
from archon.strategies.idea_search import IDEA, FromIdeas, Told
from archon.strategies.plan_tree import Harvest, Node, Shape, affordable, children, shared, tree

OBSERVE = """\
{question}

Do not answer this. Prepare the ground for somebody who will: find up to {most} observations about it that \
are not obvious. A property that every answer has, a case in which the plain approach breaks, a quantity \
that never changes, a way to make the question smaller, another question it turns into: each says one thing, \
is true, and is worth knowing by itself. Think first, in prose and without lists. Then: {form}"""
DERIVE = """\
{question}

This has been observed about it, and is taken to be true:

{observations}

Do not answer the question. What follows from the observations, from each and from all of them together? \
Find up to {most} new ones that build on them, go further than they do, and are not obvious. Repeat none. \
Think first, in prose and without lists. Then: {form}"""
FILTER = """\
{question}

Before anybody has answered it, this has been observed:

{observations}

Keep at most {most} of the observations: those that bring an answer nearer. Drop what is wrong, what says no \
more than another, and what does not help. Write each that you keep in full. {form}"""
SKETCH = """\
{question}

This has been observed about it:

{observations}

Do not answer it yet. Describe in words how it can be solved by means of these observations: the approach, \
its steps in their order, why they arrive at what is asked for, and what is done about the cases that are \
easily forgotten. Where a step rests on an observation, quote it. Somebody who has only your description \
should be able to carry it out without another idea. Write no program and no final result."""
CRITICISE = """\
{question}

{idea}

This idea of how to solve it may be wrong. Attack it: look for a step that does not follow, a case that is \
missing, a cost that is too high. Name an input or a case in which it fails, and show how. What withstands \
every attack you may say so of, in one line."""
FIX = """\
{question}

{idea}

{criticism}

The criticism is of the idea. Heed what is right in it and write the idea anew so that it holds: the whole \
approach in words, with its steps in their order. Take another approach where this one cannot be saved. \
Write of the new idea only; no program, and no final result."""
PSEUDOCODE = """\
{question}

{idea}

Turn this idea into pseudocode: one step a line, every loop, every branch and every quantity spelt out, so \
that nothing is left to decide. Where no program is asked for, let the steps be those of the working. Do not \
work it out yet."""

_MOST_TUPLES = 100_000

Template = Annotated[str, Places("question|question_text", "idea|idea_text")]


class PlanSearch(FromIdeas):
    """Search over plans in words, then write solutions; they flow on as they arrive, with the notes `observations`,
    `plan` (the sketch) and `pseudocode`."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    n: Annotated[int, Field(ge=0)] | None = None
    """How many solutions are wanted, at most; those of the whole tree where not given."""
    observations: Annotated[int, Field(ge=1, le=100)] = 10
    """How many observations are asked for at a node."""
    keep: Annotated[int, Field(ge=1, le=20)] = 6
    """How many of a node's observations are kept, at most."""
    subset: Annotated[int, Field(ge=0, le=4)] = 2
    """S: how many of a node's observations are taken together, at most."""
    layers: Annotated[int, Field(ge=1, le=4)] = 2
    """L: how many levels of observations."""
    tuples: Literal["leaves", "levels"] = "leaves"
    """Of what sketches are made: of all observations on the way to a leaf, or of every subset by itself."""
    filter: bool = True
    """Whether the model filters its observations; the first `keep` are kept where it does not."""
    sketch: bool = True
    """Whether it writes a sketch; the observations themselves are the plan where it does not."""
    fix: bool = True
    """Whether it criticises each sketch and writes a second one that heeds the criticism."""
    pseudocode: bool = True
    """Whether it turns each sketch into pseudocode before it writes the solution."""
    ahead: Annotated[int, Field(ge=1)] = AHEAD
    """How many tuples are in work at once."""
    observe_prompt: Annotated[str, Places("question|question_text", "form", optional=("most",))] = OBSERVE
    """What asks for observations where there are none yet."""
    derive_prompt: Annotated[
        str,
        Places("question|question_text", "observations|observations_text", "form", optional=("most",)),
    ] = DERIVE
    """What asks for observations that follow from others."""
    filter_prompt: Annotated[
        str,
        Places("question|question_text", "observations|observations_text", "form", optional=("most",)),
    ] = FILTER
    """What asks which observations to keep."""
    sketch_prompt: Annotated[str, Places("question|question_text", "observations|observations_text")] = SKETCH
    """What asks for a sketch that rests on observations."""
    idea_prompt: Annotated[str, Places("question|question_text")] = IDEA
    """What asks for a sketch where there are no observations."""
    criticise_prompt: Template = CRITICISE
    """What asks for a criticism of a sketch."""
    fix_prompt: Annotated[
        str, Places("question|question_text", "idea|idea_text", "criticism|criticism_text")
    ] = FIX
    """What asks for the second sketch."""
    pseudocode_prompt: Template = PSEUDOCODE
    """What asks for pseudocode."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not self.sketch and (self.fix or self.pseudocode):
            raise ValueError(
                "`sketch: false` leaves nothing to criticise or to turn into pseudocode; "
                "add `fix: false` and `pseudocode: false`"
            )
        size = tree(self.keep, self.shape)
        if self.n is None and size.tuples > _MOST_TUPLES:
            raise ValueError(
                f"the whole tree has up to {size.tuples} tuples; say with `n` how many solutions are wanted, "
                "or lower `keep`, `subset` or `layers`"
            )
        return self

    @property
    def shape(self) -> Shape:
        """Which steps are taken."""
        return Shape(self.layers, self.subset, self.filter, self.sketch, self.fix, self.pseudocode)

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Grow the tree; from every leaf that is taken a chain of calls leads to its solutions."""
        if self.n == 0:
            return
        search = _Search(self, problem, run)
        async with aclosing(chained(run, search.leaves(), search.solutions, ahead=self.ahead)) as solutions:
            async for solution in solutions:
                yield solution

    def plan(self, incoming: Count) -> Plan:
        """At least what a tree without observations takes; at most what one takes in which every node keeps all it
        may, and every reply is asked for again."""
        if self.n == 0:
            return Plan(NONE, NONE)
        most = tree(self.keep, self.shape, codes=self.n)
        least = tree(0, self.shape._replace(sketch=False, fix=False, pseudocode=False), codes=1)
        low, high = least.calls + self.sketch, asked(Count(0, most.asked), self.again).high or 0
        calls = Count(low, high + most.codes)
        limit = None if self.budget is None else self.budget.requests
        if limit is not None:
            calls = Count(min(low, limit), min(high + most.codes, limit))
        return Plan(calls, Count(min(1, calls.low), most.codes))


class _Taken(NamedTuple):
    """A leaf whose turn has come."""

    observations: tuple[str, ...]
    ideas: int
    """How many solutions are wanted of it."""


class _Search:
    """The search for one problem."""

    def __init__(self, stage: PlanSearch, problem: Problem, run: Run) -> None:
        self.stage = stage
        self.problem = problem
        self.question = question_of(problem)
        self.run = run
        self.shape = stage.shape
        self.wanted = stage.n
        """Solutions; None is all there are."""
        self._begun = 0
        self._alone = stage.tuples == "levels"
        self._salt = run.rng.getrandbits(64)
        self._harvest = Harvest(self._alone)
        self._changed = asyncio.Event()

    # --- the tree ----------------------------------------------------------------------------------

    async def leaves(self) -> AsyncIterator[_Taken]:
        """The leaves to take, each as soon as it is known and its turn has come."""
        growing = self.run.spawn(self._grow())
        growing.add_done_callback(lambda _: self._changed.set())
        while self._harvest or not growing.done():
            while self._harvest and self._begun != self.wanted:
                most = self.ideas if self.wanted is None else min(self.ideas, self.wanted - self._begun)
                self._begun += most
                yield _Taken(self._harvest.pop().known(self._alone), most)
            if growing.done():
                break
            self._changed.clear()
            await self._changed.wait()
        await growing

    @property
    def ideas(self) -> int:
        """How many sketches a leaf gives."""
        return 1 + self.shape.fix

    @property
    def _share(self) -> int | None:
        """How many leaves are wanted."""
        return None if self.wanted is None else -(-self.wanted // self.ideas)

    async def _grow(self) -> None:
        """The tree, or the part of it that is wanted and that a limit on requests is enough for."""
        calls = requests_left(self.run)
        while calls is not None and self.shape.layers and tree(1, self.shape, codes=1).calls > calls:
            self.shape = self.shape._replace(layers=self.shape.layers - 1)
            cut_short(self.run)
        below = await self._below(Node()) if self.shape.layers else [Node()]
        calls = requests_left(self.run)
        if calls is not None:
            codes = max(1, affordable(calls, self.stage.keep, self.shape, root=len(below)))
            most = tree(self.stage.keep, self.shape, root=len(below)).codes
            if codes < (most if self.wanted is None else min(most, self.wanted)):
                cut_short(self.run)
                self.wanted = codes
        await self._spread(below, self._share)
        self._harvest.close(self._share)

    async def _spread(self, nodes: Sequence[Node], share: int | None) -> None:
        """Take these leaves; or go on from each of these nodes, where its share is any."""
        if len(nodes[0].way) == self.shape.layers:
            self._harvest.offer(nodes, share)
            self._changed.set()
            return
        shares = zip(nodes, shared(share, len(nodes)), strict=True)
        await self.run.gather(*(self._descend(node, part) for node, part in shares if part != 0))

    async def _descend(self, node: Node, share: int | None) -> None:
        await self._spread(await self._below(node), share)

    async def _below(self, node: Node) -> list[Node]:
        return children(node, await self._observed(node), self.shape.subset, self._salt)

    async def _observed(self, node: Node) -> Sequence[str]:
        """What the model observes at a node, filtered; nothing where it makes no list."""
        stage, known, most = self.stage, node.known(self._alone), self.stage.observations
        given = {"most": str(most)}
        draw = len(
            node.way
        )  # one that chose nothing is asked what the one above it was, and not the same again
        if known:
            posed = pose(
                stage.derive_prompt, _list(most), given=given, question=self.question, observations=known
            )
        else:
            posed = pose(stage.observe_prompt, _list(most), given=given, question=self.question)
        said = await stage.ask(self.run, posed, partial(read_items, most=most), draw=draw)
        found = said.value or ()
        if found and self.shape.filter:
            given = {"most": str(stage.keep)}
            posed = pose(
                stage.filter_prompt,
                _list(stage.keep),
                given=given,
                question=self.question,
                observations=found,
            )
            said = await stage.ask(self.run, posed, partial(read_items, most=stage.keep), draw=draw)
            found = said.value or found
        return found[: stage.keep]

    # --- from a leaf to solutions ------------------------------------------------------------------

    async def solutions(self, leaf: _Taken, emit: Emit) -> None:
        """A sketch, its critic, and a solution of each sketch."""
        listed = "\n".join(f"{i}. {text}" for i, text in enumerate(leaf.observations, 1))
        sketch = await self._sketch(leaf.observations)
        if self.shape.sketch and not sketch.replies:
            return
        if not sketch.text:
            await self._solve(Told(listed), False, listed, emit)
            return
        work = [self._solve(sketch, self.shape.pseudocode, listed, emit)]
        if leaf.ideas > 1:
            work.append(self._second(sketch, listed, emit))
        await self.run.gather(*work)

    async def _sketch(self, observations: Sequence[str]) -> Told:
        stage = self.stage
        if not self.shape.sketch:
            return Told("")
        if not observations:
            return await stage.tell(self.run, pose(stage.idea_prompt, question=self.question))
        posed = pose(stage.sketch_prompt, question=self.question, observations=observations)
        return await stage.tell(self.run, posed)

    async def _second(self, sketch: Told, listed: str, emit: Emit) -> None:
        """The sketch that heeds the criticism of the first."""
        stage, idea = self.stage, sketch.text
        posed = pose(stage.criticise_prompt, question=self.question, idea=idea)
        criticism = await stage.tell(self.run, posed, parents=sketch.replies)
        if not criticism.text:
            return
        posed = pose(stage.fix_prompt, question=self.question, idea=idea, criticism=criticism.text)
        fixed = await stage.tell(self.run, posed, parents=(*sketch.replies, *criticism.replies))
        if fixed.text:
            await self._solve(fixed, self.shape.pseudocode, listed, emit)

    async def _solve(self, plan: Told, pseudocode: bool, listed: str, emit: Emit) -> None:
        """Solutions that follow a plan."""
        stage, spelt = self.stage, Told("")
        if pseudocode:
            posed = pose(stage.pseudocode_prompt, question=self.question, idea=plan.text)
            spelt = await stage.tell(self.run, posed, parents=plan.replies)
        idea, parents = spelt.text or plan.text, (*plan.replies, *spelt.replies)
        notes = {"observations": listed, "plan": plan.text, "pseudocode": spelt.text}
        async for solution in stage.solve(self.run, self.problem, idea, parents=parents):
            for name, text in notes.items():
                solution = solution.with_note(name, text) if text else solution
            emit(solution)


def _list(most: int) -> Callable[[str], str]:
    return lambda mark: items_form(most)
