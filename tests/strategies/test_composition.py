"""Stages compose: random valid graphs of all of them run to the end with books that balance, random invalid ones are
rejected before any call, with a message that names the rule."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from archon.backends.base import Model
from archon.candidate import Outcome
from archon.config import dump, load
from archon.errors import UserError
from archon.pipeline import Node, Pipeline
from archon.session import Session
from archon.stage import Fact
from archon.strategies.best_of import BestOf
from archon.strategies.critique import Critique
from archon.strategies.first_passing import FirstPassing
from archon.strategies.fuse import Fuse
from archon.strategies.hand_over import HandOver
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.per_chain import PerChain
from archon.strategies.rank import Rank
from archon.strategies.revise import Revise
from archon.strategies.sample import Sample
from archon.strategies.test_first import TestFirst
from archon.strategies.top_k import TopK
from archon.strategies.universal_self_consistency import UniversalSelfConsistency
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.testing.instruct import Instruct, Skill, sums
from archon.verifiers.exact import Exact
from tests.strategies.instructed import check_books, solved_by_rules
from tests.strategies.runnable import MODELS, made, pipeline, registered, stages

GRAPHS = 200
BLOCK = 10
PROBLEMS = (*sums(2, named=2, terms=3, seed=1), *sums(2, code=True, terms=3, seed=2))


def graph(number: int) -> Pipeline:
    """The stages take turns to be in a graph for certain."""
    wanted = registered("stage")
    return pipeline(random.Random(f"graph {number}"), wanted[number % len(wanted)])


@pytest.mark.parametrize("block", range(GRAPHS // BLOCK))
def test_random_valid_graphs_run_to_the_end_with_books_that_balance(block: int) -> None:
    for number in range(block * BLOCK, (block + 1) * BLOCK):
        whole = graph(number)
        instruct = Instruct(Skill.of(0.7), noise=0.3, malformed=0.1 * (number % 3), seed=number)
        first = number % len(PROBLEMS)
        for outcome in solved_by_rules(whole, PROBLEMS[first : first + 1 + (number % 5 == 0)], instruct):
            check_whole(whole, outcome)
        assert instruct.malformed or not instruct.again


def check_whole(whole: Pipeline, outcome: Outcome) -> None:
    """It ran to its end, no stage made more calls than planned, and as many candidates came out as promised."""
    assert outcome.stopped in ("complete", "early") and not outcome.failures
    check_books(outcome)
    compiled = whole.graph()
    plans = compiled.plan()
    for path, plan in plans.items():
        used = sum(
            u.requests for name, u in outcome.by_stage.items() if name == path or name.startswith(f"{path}/")
        )
        assert plan.calls.high is None or used <= plan.calls.high, path
    passes = compiled.total.passes
    assert len(outcome.final) >= passes.low and (passes.high is None or len(outcome.final) <= passes.high)


def test_every_stage_is_in_several_of_the_graphs() -> None:
    seen = Counter(stage.name for number in range(GRAPHS) for stage in graph(number).graph().stages)
    assert all(seen[cls.name] >= GRAPHS // len(registered("stage")) for cls in registered("stage"))


# --- invalid ones ----------------------------------------------------------------------------------


def taking(rng: random.Random, *facts: Fact) -> Any:
    """A stage that takes candidates and needs no more than these."""
    return made(rng.choice([cls for cls in stages(True) if cls.requires <= {*facts}]), rng)


def grown(whole: Pipeline, *nodes: Node) -> Pipeline:
    return Pipeline([*whole.nodes, *nodes])


def as_yaml(whole: Pipeline, change: Callable[[dict[str, Any]], Any]) -> Pipeline:
    """The pipeline read from a file in which something is changed."""
    tree = yaml.safe_load(dump(whole))
    change(tree["pipeline"])
    return load(yaml.safe_dump(tree, sort_keys=False), "yaml").pipeline


def with_key(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda nodes: nodes.update({name: {name: {key: value}}})


JUDGED = Verify(verifier=Exact())
Breaking = Callable[[random.Random, Pipeline], Pipeline]
RULES: dict[str, tuple[Breaking, str]] = {
    "a stage that takes stands first": (
        lambda rng, whole: Pipeline(
            [Node("first", taking(rng)), *whole.nodes, Node("last", MajorityVote(), ("first", "end"))]
        ),
        r"first: '\w+' needs candidates, and nothing comes before it",
    ),
    "a source stands after another stage": (
        lambda rng, whole: grown(whole, Node("late", made(rng.choice(stages(False)), rng), ("end",))),
        r"late: '\w+' draws from the problem alone and takes no candidates, but comes after 'end'",
    ),
    "a source's candidates bypass the end": (
        lambda rng, whole: grown(whole, Node("loose", made(rng.choice(stages(False)), rng))),
        r"loose: nothing comes after it, so its candidates bypass 'end'",
    ),
    "no stage gives what is needed": (
        lambda rng, whole: Sample(n=2) | made(rng.choice([s for s in stages(True) if s.requires]), rng),
        r"needs (scores|tests|verdicts), and no stage before it gives any\. Put `\w+` before it",
    ),
    "one branch gives what is needed and the other does not": (
        lambda rng, whole: grown(
            Pipeline([Node("a", Sample()), Node("b", Sample()), Node("judged", JUDGED, ("a",))]),
            Node(
                "end",
                rng.choice([BestOf(by="exact"), TopK(k=1, by="exact"), FirstPassing()]),
                ("judged", "b"),
            ),
        ),
        r"end: '\w+' needs (scores|verdicts), and the branch of 'b' gives none",
    ),
    "it is not clear whose score counts": (
        lambda rng, whole: Sample(n=2) | JUDGED | JUDGED | rng.choice([BestOf(), TopK(k=1), WeightedVote()]),
        r"several verifiers.*`by` says whose",
    ),
    "it is not clear by whose score a large model is asked": (
        lambda rng, whole: Sample(n=2) | JUDGED | JUDGED | HandOver(confidence="score"),
        r"'hand_over' goes by a score, and several verifiers.*`by` says whose",
    ),
    "it is not clear whose score counts within a chain": (
        lambda rng, whole: (
            Revise() | JUDGED | JUDGED | PerChain(selector=rng.choice([BestOf(), WeightedVote()]))
        ),
        r"'(best_of|weighted_vote)' goes by a score, and several verifiers.*`by` says whose",
    ),
    "two stages have one name": (
        lambda rng, whole: grown(whole, Node(rng.choice(whole.nodes).name, MajorityVote(), ("end",))),
        r"2 stages have this name\. Give each its own",
    ),
    "a name is not there": (
        lambda rng, whole: grown(whole, Node("more", taking(rng), ("ende",))),
        r"more: `after` names 'ende', which is no stage here\. Did you mean 'end'\?",
    ),
    "a name cannot be one": (
        lambda rng, whole: grown(whole, Node(rng.choice(["a/b", "a#1", ""]), taking(rng), ("end",))),
        r"cannot name a stage",
    ),
    "stages run in a circle": (
        lambda rng, whole: grown(whole, Node("x", taking(rng), ("end", "y")), Node("y", taking(rng), ("x",))),
        r"the stages run in a circle: ([xy]) -> [xy] -> \1",
    ),
    "there is nothing": (lambda rng, whole: Pipeline([]), r"pipeline: it has no stages"),
    "a key is misspelt": (
        lambda rng, whole: as_yaml(whole, with_key("sample", "temprature", 1)),
        r"temprature.*Did you mean 'temperature'\?",
    ),
    "a value is out of bounds": (
        lambda rng, whole: as_yaml(whole, with_key("sample", "n", -1 - rng.randrange(9))),
        r"sample\.n: .*greater than or equal to 0",
    ),
    "a stage is not registered": (
        lambda rng, whole: as_yaml(whole, lambda nodes: nodes.update(more={"majorty_vote": {}})),
        r"no stage named 'majorty_vote'.*majority_vote",
    ),
    "a prompt lacks a place": (
        lambda rng, whole: as_yaml(whole, with_key("gen_select", "prompt", "{question} {form} {anwsers}")),
        r"no place \{anwsers\}, \{answers\} is meant.*the place \{answers\} or \{answers_text\} is missing",
    ),
    "a pipeline inside a stage is wrong": (
        lambda rng, whole: Pipeline([TestFirst(solver=Pipeline([taking(rng)]))]),
        r"test_first/solver/\w+: '\w+' needs candidates, and nothing comes before it",
    ),
    "fields do not go together": (
        lambda rng, whole: as_yaml(whole, with_key("revise", "n", 6 + rng.randrange(9))),
        r"revise.*`n` and `ratio` go together, and `ratio` is missing",
    ),
    "a stage's own rule is broken": (
        lambda rng, whole: Sample(n=2) | Fuse(keep_inputs=True),
        r"fuse: 'fuse' with `keep_inputs` .* nothing after it chooses",
    ),
    "Archon's rules are broken": (
        lambda rng, whole: Sample(n=2) | (Critique() & Rank()) | Fuse(),
        r"Archon's rule 'one type per layer'.*or set `strict: false` here",
    ),
    "a model is not defined": (
        lambda rng, whole: whole | UniversalSelfConsistency(model="unheard-of"),
        r"uses model 'unheard-of', which is not defined",
    ),
}
"""How a graph is broken, and what is said of it."""
TIMES = 5


@pytest.mark.parametrize("rule", RULES)
def test_an_invalid_graph_is_rejected_before_any_call_by_the_name_of_the_rule(rule: str) -> None:
    breaking, message = RULES[rule]
    for number in range(TIMES):
        rng = random.Random(f"{rule} {number}")
        instruct = Instruct()
        models = {name: instruct.model() for name in MODELS}

        async def attempt(rng: random.Random = rng, models: Mapping[str, Model] = models) -> None:
            async with Session(models=models) as session:
                await session.solve(breaking(rng, pipeline(rng)), PROBLEMS[0])

        with pytest.raises(UserError, match=message):
            asyncio.run(attempt())
        assert not instruct.asked


def test_there_are_enough_invalid_graphs() -> None:
    assert len(RULES) * TIMES >= 100
