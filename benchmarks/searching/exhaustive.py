"""Every stack of a space on every problem, as a table: what searches can be compared on without asking a model again.

The space (`SPACE`) is of 2,940 stacks over the nano model and its process reward model on `lab/arith`: how many samples
at which temperature; a vote, the highest reward, a vote weighted by reward, or either vote among the k of the highest
reward; and how rewards of steps become one. Stages that stop early are not in it: what they choose hangs on the order
in which samples arrive, so it is no function of the stack and the problem.

Samples of one problem at one temperature are one pool (D5), and a stack looks at the first of them. So each pool is
drawn once by a pipeline, with all its rewards and ballots, and every stack's choice is made from these; that this is
what the whole pipeline gives is checked on pairs of a stack and a problem that are drawn at random (`checked`).

What an evaluation costs follows from the table, too: the tokens of its samples, the question once (they are one
request), and of each distinct reply that is rewarded, question and reply. A search that reuses pays for a sample once,
and for a reply's reward once; where a pool grows, for the question again. (The model reads one token less of a few
replies than is counted here: 0.02% of the tokens of rewards.)

Cost: problems x temperatures x the largest n samples, and as many rewards.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.recording import recorded
from archon.config import build
from archon.config.source import Source
from archon.errors import DataError
from archon.problem import Problem
from archon.search.axes import Configuration
from archon.search.space import SearchSpace
from archon.session import Session
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.selection import Ballot
from archon.strategies.weighted_vote import WeightedVote
from archon.tasks import together
from archon.usage import Usage

SPACE = """
axes:
  way: {choose: [majority, best_of, weighted_vote, top_majority, top_weighted]}
  temperature: {choose: [0.3, 0.6, 0.9, 1.2, 1.5]}
  n: {choose: [2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24]}
  aggregate:
    choose: [last, min, product, mean]
    where: {way: [best_of, weighted_vote, top_majority, top_weighted]}
  k: {choose: [2, 3, 4, 6, 8], where: {way: [top_majority, top_weighted]}}
pipeline:
  - sample: {n: {axis: n}, temperature: {axis: temperature}}
  - optional: {verify: {verifier: {reward: {aggregate: {axis: aggregate}, score_as: probability}}}}
    where: {way: [best_of, weighted_vote, top_majority, top_weighted]}
  - {optional: {top_k: {k: {axis: k}}}, where: {way: [top_majority, top_weighted]}}
  - {optional: majority_vote, where: {way: [majority, top_majority]}}
  - {optional: weighted_vote, where: {way: [weighted_vote, top_weighted]}}
  - {optional: best_of, where: {way: [best_of]}}
"""
AGGREGATES = ("last", "min", "product", "mean")
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Log = Callable[[str], object]


class Pool(NamedTuple):
    """The samples of a problem at a temperature, in their order."""

    texts: list[str]
    truth: list[bool]
    tokens: list[int]
    """New tokens of each."""
    prompt: int
    """Tokens of the question."""
    scores: Mapping[str, list[float]]
    """Their rewards, by how those of steps become one."""
    ballots: Mapping[str, list[Ballot | None]]
    """Their votes, weighted by each of these; unweighted under the empty name."""


@dataclass(frozen=True)
class Table:
    """What came of every stack on every problem, and what it needed."""

    stacks: tuple[Configuration, ...]
    problems: tuple[str, ...]
    right: Bools
    """Stacks x problems."""
    drawn: Ints
    """By stack: so many of the pool's first samples."""
    rewarded: Bools
    """By stack: whether they are rewarded."""
    pool: Ints
    """By stack: at which temperature."""
    prompt: Ints
    """Tokens of the question, by problem."""
    tokens: Ints
    """Of the samples: problems x pools x samples."""
    reply: Ints
    """Which of the problem's distinct replies a sample is: problems x pools x samples."""
    reading: Ints
    """Tokens for the reward of a reply: problems x replies."""

    @cached_property
    def place(self) -> dict[str, int]:
        """Stacks by their keys."""
        return {stack.key: place for place, stack in enumerate(self.stacks)}

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The share of problems that each stack gets right."""
        return np.asarray(self.right.mean(axis=1), dtype=np.float64)

    @cached_property
    def distinct(self) -> int:
        """How many stacks differ in what they get right, or in what they need."""
        needs = np.stack([self.drawn, self.rewarded, self.pool], axis=1)
        return len(np.unique(np.concatenate([self.right, needs], axis=1), axis=0))

    @cached_property
    def summed(self) -> Ints:
        """Tokens of a pool's first 0, 1, 2, ... samples."""
        return np.concatenate([np.zeros_like(self.tokens[:, :, :1]), self.tokens.cumsum(axis=2)], axis=2)

    def save(self, folder: Path) -> None:
        """Write `table.npz` and `stacks.json`."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(folder / "table.npz", **arrays)
        told = {"problems": list(self.problems), "stacks": [stack.as_json() for stack in self.stacks]}
        (folder / "stacks.json").write_text(json.dumps(told) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Table:
        """The inverse of `save`. Raises DataError where there is none."""
        try:
            told = json.loads((folder / "stacks.json").read_text(encoding="utf-8"))
            with np.load(folder / "table.npz", allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in _ARRAYS}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} has no table: {error}. Make it with `prepare`") from None
        return cls(tuple(map(Configuration, told["stacks"])), tuple(told["problems"]), **found)


_ARRAYS = ("right", "drawn", "rewarded", "pool", "prompt", "tokens", "reply", "reading")


class Purse:
    """What a search pays: with reuse, only for what it has not paid for yet."""

    def __init__(self, table: Table, *, reuse: bool) -> None:
        self._table = table
        self._reuse = reuse
        self._have = np.zeros(table.tokens.shape[:2], dtype=np.int64)
        self._read = np.zeros(table.reading.shape, dtype=np.bool_)
        self.spent = 0
        """Fresh tokens so far."""

    def price(self, stack: int) -> float:
        """The fresh tokens that a stack would take now, on all problems."""
        return float(self._fresh(stack, np.arange(len(self._table.problems)))[0].sum())

    def pay(self, stack: int, problems: Sequence[int] | Ints) -> Ints:
        """Evaluate a stack on problems: the fresh tokens of each."""
        places = np.asarray(problems, dtype=np.int64)
        fresh, after = self._fresh(stack, places)
        if self._reuse:
            pool = self._table.pool[stack]
            self._have[places, pool] = np.maximum(self._have[places, pool], self._table.drawn[stack])
            self._read[places] = after
        self.spent += int(fresh.sum())
        return fresh

    def _fresh(self, stack: int, places: Ints) -> tuple[Ints, Bools]:
        """The fresh tokens, and which replies are rewarded then."""
        table, pool = self._table, self._table.pool[stack]
        have, need = self._have[places, pool], table.drawn[stack]
        summed = table.summed[places, pool]
        sampled = (
            summed[np.arange(len(places)), np.maximum(have, need)] - summed[np.arange(len(places)), have]
        )
        fresh = sampled + (need > have) * table.prompt[places]
        before = self._read[places]
        after = before.copy()
        if table.rewarded[stack]:
            after[np.arange(len(places))[:, None], table.reply[places, pool, :need]] = True
            fresh = fresh + (table.reading[places] * (after & ~before)).sum(axis=1)
        return fresh, after


# --- making it ---------------------------------------------------------------------------------------


def choice(configuration: Configuration, pool: Pool) -> int | None:
    """The sample that a stack of `SPACE` chooses; None: it abstains."""
    way, taken = str(configuration["way"]), list(range(int(str(configuration["n"]))))
    by = str(configuration.get("aggregate", ""))
    if way == "best_of":
        return max(taken, key=lambda i: pool.scores[by][i])
    if way.startswith("top_"):
        taken.sort(key=lambda i: -pool.scores[by][i])
        taken = sorted(taken[: int(str(configuration["k"]))])
    ballots = pool.ballots["" if way.endswith("majority") else by]
    totals: dict[Hashable, float] = {}
    first: dict[Hashable, int] = {}
    for i in taken:
        if (ballot := ballots[i]) is not None:
            totals[ballot.answer] = totals.get(ballot.answer, 0.0) + ballot.weight
            first.setdefault(ballot.answer, i)
    most = max(totals.values(), default=0.0)
    return next((first[answer] for answer, votes in totals.items() if votes >= most - 1e-9 * most), None)


async def drawn_pool(
    session: Session, dataset: Dataset, problem: Problem, temperature: float, n: int
) -> Pool:
    """Draw a pool by a pipeline, with its rewards. Raises DataError where a sample failed."""
    rewards = [
        {"verify": {"verifier": {"reward": {"aggregate": a, "score_as": "probability"}}, "called": a}}
        for a in AGGREGATES
    ]
    stages = [{"sample": {"n": n, "temperature": temperature}}, *rewards, {"best_of": {"by": "last"}}]
    graph = build(Source({"pipeline": stages}, "pool")).pipeline.graph()
    record, candidates = await recorded(session, graph, dataset.grader, problem)
    if len(candidates) != n or [one.index for one in candidates] != list(range(n)):
        raise DataError(
            f"{problem.id} has {len(candidates)} samples of {n}: {record.error or record.failures}"
        )
    views = {a: [replace(one, verdicts={a: one.verdicts[a]}) for one in candidates] for a in AGGREGATES}
    ballots = {a: WeightedVote().ballots(problem, view) for a, view in views.items()}
    return Pool(
        [one.text for one in candidates],
        list(record.truth),
        [one.usage.completion_tokens for one in candidates],
        Usage.from_json(record.by_model["default"]).prompt_tokens,
        {a: [one.verdicts[a].score or 0.0 for one in candidates] for a in AGGREGATES},
        {"": MajorityVote().ballots(problem, candidates), **ballots},
    )


async def table_of(
    space: SearchSpace, session: Session, dataset: Dataset, *, concurrency: int = 8, log: Log = print
) -> Table:
    """Draw all pools, and have every stack choose from them. Raises DataError where a sample failed."""
    axes = space.axes.by_name
    temperatures = [float(str(value)) for value in axes["temperature"].options]
    most = max(int(str(value)) for value in axes["n"].options)
    stacks = tuple(one for one in space.axes.every() if space.refusal(one) is None)
    pools = np.array([temperatures.index(float(str(one["temperature"]))) for one in stacks])
    drawn = np.array([int(str(one["n"])) for one in stacks])
    rewarded = np.array(["aggregate" in one for one in stacks])
    count = len(dataset.problems)
    right = np.zeros((len(stacks), count), dtype=np.bool_)
    prompt = np.zeros(count, dtype=np.int64)
    tokens, reply = (np.zeros((count, len(temperatures), most), dtype=np.int64) for _ in range(2))
    reading = np.zeros((count, len(temperatures) * most), dtype=np.int64)
    gate = asyncio.Semaphore(concurrency)

    async def one(place: int, problem: Problem) -> None:
        async with gate:
            found = [await drawn_pool(session, dataset, problem, t, most) for t in temperatures]
        known: dict[str, int] = {}
        prompt[place] = found[0].prompt
        for number, pool in enumerate(found):
            tokens[place, number] = pool.tokens
            reply[place, number] = [known.setdefault(text, len(known)) for text in pool.texts]
            reading[place, reply[place, number]] = np.array(pool.tokens) + pool.prompt - 1
        for stack, configuration in enumerate(stacks):
            chosen = choice(configuration, found[pools[stack]])
            right[stack, place] = chosen is not None and found[pools[stack]].truth[chosen]
        log(f"{problem.id}: {right[:, place].mean():.0%} of the stacks are right")

    await together(one(place, problem) for place, problem in enumerate(dataset.problems))
    ids = tuple(problem.id for problem in dataset.problems)
    return Table(stacks, ids, right, drawn, rewarded, pools, prompt, tokens, reply, reading)


def remade(table: Table, seed: int) -> Table:
    """The same stacks and samples, with what is right drawn from effects of the choices: a best temperature, what more
    samples gain and when they begin to harm, what each way, aggregate and k is worth, and ways with aggregates. A
    problem's luck is shared by stacks with the same samples, and by those that choose alike."""
    rng = np.random.default_rng([seed, len(table.stacks)])
    codes: dict[str, Ints] = {}
    for name in ("way", "temperature", "n", "aggregate", "k"):
        values = list(dict.fromkeys(one.get(name) for one in table.stacks))
        values.sort(key=lambda value: (value is not None, value if isinstance(value, (int, float)) else 0))
        codes[name] = np.array([values.index(one.get(name)) for one in table.stacks])
    count = {name: int(code.max()) + 1 for name, code in codes.items()}
    way, pool, n, aggregate = (codes[name] for name in ("way", "temperature", "n", "aggregate"))
    warmth = pool / max(1, count["temperature"] - 1)
    worth = -rng.uniform(0.2, 1.2) * (warmth - rng.uniform(0, 1)) ** 2
    grown = np.log(table.drawn / table.drawn.min()) / np.log(table.drawn.max() / table.drawn.min())
    knee = rng.uniform(0.3, 1.2)
    gains = rng.uniform(0, 0.5, count["way"])[way]
    worth += gains * np.minimum(grown, knee) - 0.3 * np.maximum(0, grown - knee)
    for name, spread in (("way", 0.12), ("aggregate", 0.08), ("k", 0.05)):
        worth += rng.normal(0, spread, count[name])[codes[name]]
    worth += rng.normal(0, 0.05, (count["way"], count["aggregate"]))[way, aggregate]
    problems = len(table.problems)
    samples = rng.normal(0, 0.25, (count["temperature"], 1, problems)) + rng.normal(
        0, 0.12, (count["temperature"], count["n"], problems)
    ).cumsum(axis=1)
    chosen = rng.normal(0, 0.12, (count["way"], count["aggregate"], problems))
    luck = samples[pool, n] + chosen[way, aggregate] + rng.normal(0, 0.05, (len(worth), problems))
    hard = worth.mean() + rng.normal(0, 0.7, problems)
    return replace(table, right=worth[:, None] + luck > hard)


class Check(NamedTuple):
    """How often the pipeline gave what the table says, of so many pairs."""

    pairs: int
    right: int
    """As right an answer, from as many samples."""
    tokens: int
    """As many tokens in all."""


async def checked(
    table: Table, space: SearchSpace, session: Session, dataset: Dataset, pairs: int, seed: int
) -> Check:
    """Run the pipelines of pairs of a stack and a problem, drawn at random. Tokens can be held against the table's only
    where nothing was stored before: what is replayed cost what it cost in the requests that it was drawn by."""
    rng = np.random.default_rng(seed)
    same = tokens = 0
    for _ in range(pairs):
        stack, place = int(rng.integers(len(table.stacks))), int(rng.integers(len(table.problems)))
        graph = space.graph(table.stacks[stack])
        record, candidates = await recorded(session, graph, dataset.grader, dataset.problems[place])
        solved = record.outcome == "solved"
        same += int(solved == table.right[stack, place] and len(candidates) == table.drawn[stack])
        paid = int(Purse(table, reuse=False).pay(stack, [place])[0])
        tokens += int(Usage.from_json(record.usage).tokens == paid)
    return Check(pairs, same, tokens)
