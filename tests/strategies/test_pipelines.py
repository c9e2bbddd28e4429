"""The ready pipelines: each is what its first comment says, and costs what it says."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from archon.backends.scripted import Call, Reply, Scripted
from archon.config import dump, load
from archon.errors import UnknownName
from archon.pipeline import Pipeline
from archon.problem import Case, Problem
from archon.shelf import names, ready, summary
from archon.stage import Count
from archon.strategies.ab_mcts import ABMCTS
from archon.strategies.adaptive_self_consistency import AdaptiveSelfConsistency
from archon.strategies.atom_of_thoughts import AtomOfThoughts
from archon.strategies.back_translate import BackTranslate
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.strategies.chain_of_verification import ChainOfVerification
from archon.strategies.compute_optimal import Bin, ComputeOptimal, Policy
from archon.strategies.confidence_stop import ConfidenceStop
from archon.strategies.critique import Critique
from archon.strategies.debate import Debate
from archon.strategies.drag import Drag
from archon.strategies.dvts import DVTS
from archon.strategies.first_passing import FirstPassing
from archon.strategies.fuse import Fuse
from archon.strategies.gen_select import GenSelect
from archon.strategies.hand_over import HandOver
from archon.strategies.idea_search import IdeaSearch
from archon.strategies.iter_drag import IterDrag
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.mcts import MCTS
from archon.strategies.mixture_of_agents import MixtureOfAgents
from archon.strategies.parallel_tempering import ParallelTempering
from archon.strategies.particle_filter import ParticleFilter
from archon.strategies.particle_gibbs import ParticleGibbs
from archon.strategies.plan_search import PlanSearch
from archon.strategies.plan_then_write import PlanThenWrite
from archon.strategies.rank import Rank
from archon.strategies.revise import Revise
from archon.strategies.sample import Sample
from archon.strategies.sample_schedule import SampleSchedule
from archon.strategies.self_aggregate import SelfAggregate
from archon.strategies.self_refine import SelfRefine
from archon.strategies.thinking_budget import ThinkingBudget
from archon.strategies.tree_of_thoughts import TreeOfThoughts
from archon.strategies.universal_self_consistency import UniversalSelfConsistency
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.verifiers.cascade import Cascade
from archon.verifiers.judge import Judge
from archon.verifiers.reward import Reward
from archon.verifiers.unit_tests import UnitTests
from tests.strategies.made import NUMBER, solved

N = 16
JUDGED = Sample(n=N) | Verify(verifier=UnitTests())
PROMPTS = (
    "",
    "Think step by step, and check every step before you go on.",
    "First say what is asked and what is given. Then choose a way to get from one to the other, and take it.",
    "Work the answer out in one way, then in another. Where they differ, find the mistake.",
)
BEST_OF_REPLIES = "{question_text}\n{replies_text}\nBest?"
EXPECTED: dict[str, Pipeline] = {
    "ab_mcts": ABMCTS(n=N, verifier=UnitTests()) | BestOf(),
    "adaptive_self_consistency": Sample(n=N, wave=4) | AdaptiveSelfConsistency() | MajorityVote(),
    "confidence_stop": ConfidenceStop(n=N, warm_up=8, wave=4) | WeightedVote(),
    "until_tests_pass": Sample(n=N, wave=4) | Verify(verifier=UnitTests()) | FirstPassing(),
    "until_verified": Sample(n=N, wave=4)
    | Verify(verifier=Cascade(verifiers=(UnitTests(), Reward(score_as="probability", threshold=0.5))))
    | FirstPassing(),
    "atom_of_thoughts": Pipeline([AtomOfThoughts()]),
    "atom_of_thoughts_code": Pipeline([AtomOfThoughts(depth=1, choose="synthesis")]),
    "atom_of_thoughts_star": Pipeline([AtomOfThoughts(runs=3)]),
    "lab_chain_split": AtomOfThoughts(
        runs=N,
        answers=("decomposed",),
        choose="all",
        read="assignments",
        most_parts=6,
        system="",
        again=0,
        temperature=0.7,
        split_prompt="{question_text}\nSplit.",
        part_prompt="Let {terms_text}. Find {name}.",
        part_solver=Sample(temperature=0),
    )
    | MajorityVote(),
    "back_translation": Sample(n=N) | BackTranslate(),
    "idea_search": Pipeline([IdeaSearch(n=N, temperature=0.9, top_p=0.95)]),
    "lab_plan": IdeaSearch(
        n=N,
        system="",
        again=0,
        idea_prompt="{question_text}\nPlan.",
        solve_prompt="{question_text}\nPlan: {idea_text}",
    )
    | Verify(verifier=UnitTests())
    | BestOf(),
    "plansearch": Pipeline([PlanSearch(n=N, temperature=0.9, top_p=0.95)]),
    "plansearch_filtered": PlanSearch(n=N, temperature=0.9, top_p=0.95)
    | Verify(verifier=UnitTests())
    | FirstPassing(),
    "drag": Pipeline([Drag()]),
    "gen_select": Sample(n=N) | GenSelect(),
    "iter_drag": Pipeline([IterDrag()]),
    "lab_fuse": Sample(n=4) | Fuse(n=4, system="", prompt=BEST_OF_REPLIES) | MajorityVote(),
    "lab_verify": Sample(n=N)
    | Verify(
        verifier=Judge(system="", read="probability", prompt="{question_text}\nReply:\n{answer_text}\nRight?")
    )
    | WeightedVote(),
    "lab_mixture_of_agents": Pipeline(
        [MixtureOfAgents(proposers=("default",) * 4, system="", prompt=BEST_OF_REPLIES)]
    ),
    "lab_self_aggregate": Sample(n=8)
    | SelfAggregate(steps=2, system="", prompt=BEST_OF_REPLIES)
    | MajorityVote(),
    "mcts": MCTS(n=N, children=4) | BestOf(),
    "mixture_of_agents": Pipeline([MixtureOfAgents(proposers=("default",) * 6)]),
    "plan_then_write": Pipeline([PlanThenWrite()]),
    "recursive_self_aggregation": Sample(n=N) | SelfAggregate() | MajorityVote(),
    "universal_self_consistency": Sample(n=N) | UniversalSelfConsistency(temperature=0),
    "archon_ensemble_fuse": Sample(n=8) | Fuse(),
    "archon_rank_fuse": Sample(n=8) | Critique() | Rank(keep=4) | Fuse(),
    "bag_of_tricks": SampleSchedule(n=N, prompts=PROMPTS, temperatures=(0.6, 1.0)) | MajorityVote(),
    "cascade": Sample(n=4) | HandOver(threshold=0.75, samples=4) | MajorityVote(),
    "chain_of_verification": Sample() | ChainOfVerification(),
    "compute_optimal": ComputeOptimal(
        policies=(
            Policy(n=1, probes=1, bins=(Bin(),)),
            Policy(n=4, probes=4, bins=(Bin(),)),
            Policy(
                n=16,
                probes=4,
                bins=(
                    Bin(
                        below=0.5,
                        solver=Sample(n=4) | Verify(verifier=Reward(score_as="probability")) | WeightedVote(),
                    ),
                    Bin(below=1.0),
                    Bin(),
                ),
            ),
        )
    )
    | MajorityVote(),
    "debate": Debate() | MajorityVote(),
    "parallel_sequential": Revise(n=N, ratio=1) | MajorityVote(),
    "self_refine": Sample() | SelfRefine(),
    "sequential_revision": Revise(chains=1, length=N) | MajorityVote(),
    "beam_search": BeamSearch(n=N) | BestOf(),
    "beam_search_weighted": BeamSearch(n=N) | WeightedVote(),
    "dvts": DVTS(n=N) | BestOf(),
    "parallel_tempering": ParallelTempering(n=N, from_replicas="all") | BestOf(),
    "particle_filter": ParticleFilter(n=N) | BestOf(),
    "particle_gibbs": ParticleGibbs(n=N) | BestOf(),
    "lookahead_search": BeamSearch(n=N, lookahead=1) | BestOf(),
    "step_best_of_n": BeamSearch(n=N, m="all") | BestOf(),
    "budget_forcing": ThinkingBudget(n=N, thinking=8192, waits=2) | MajorityVote(),
    "tree_of_thoughts": Pipeline([TreeOfThoughts(generate="propose")]),
    "best_of_n": JUDGED | BestOf(),
    "first_passing": JUDGED | FirstPassing(),
    "repeated_sampling": Pipeline([Sample(n=N)]),
    "reward_best_of_n": Sample(n=N) | Verify(verifier=Reward()) | BestOf(),
    "reward_weighted_vote": Sample(n=N) | Verify(verifier=Reward(score_as="probability")) | WeightedVote(),
    "self_consistency": Sample(n=N) | MajorityVote(),
}

DOUBLE = Problem.ask(
    "Write f(x), which doubles x.",
    id="double",
    answer="code",
    entry_point="f",
    tests=(Case(args=(1,), expected=2), Case(args=(5,), expected=10)),
)


def source(name: str) -> str:
    return files("archon.strategies.pipelines").joinpath(f"{name}.yaml").read_text()


def program(expression: str) -> str:
    return f"```python\ndef f(x):\n    return {expression}\n```"


def coder(*expressions: str) -> Scripted:
    """Sample i is the i-th program; the last from there on."""
    return Scripted(
        reply=lambda call: program(expressions[min(call.index, len(expressions) - 1)]), identity="coder"
    )


def test_every_shipped_file_is_found_under_its_name() -> None:
    shipped = {f.name.removesuffix(".yaml") for f in files("archon.strategies.pipelines").iterdir()}
    assert set(EXPECTED) == {name for name in shipped if not name.startswith("__")}
    assert set(EXPECTED) <= set(names())
    assert names() == sorted(names())


@pytest.mark.parametrize("name", EXPECTED)
def test_each_is_the_pipeline_its_name_says(name: str) -> None:
    config = ready(name)
    assert config.pipeline == EXPECTED[name]
    assert load(dump(config), "yaml").pipeline == config.pipeline
    assert load(dump(config, "toml"), "toml").pipeline == config.pipeline
    config.pipeline.graph()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_says_what_it_is_in_one_line(name: str) -> None:
    assert summary(name) and not summary(name).startswith("#")
    assert source(name).splitlines()[0] == f"# {summary(name)}"


@pytest.mark.parametrize("name", EXPECTED)
def test_the_calls_it_names_are_the_calls_it_plans(name: str) -> None:
    said = re.search(r"^# Calls: ([^.,]+)", source(name), re.MULTILINE)
    assert said is not None
    low, _, high = said[1].partition(" to ")

    def number(text: str) -> int:
        return sum(int(part.replace("n", str(N))) for part in text.split(" + "))

    plans = ready(name).pipeline.graph().plan()
    calls = [plan.calls for plan in plans.values()]
    total = Count(sum(c.low for c in calls), sum(c.high or 0 for c in calls))
    assert total == Count(number(low), number(high or low))


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one() -> None:
    with pytest.raises(UnknownName, match="best_of_n"):
        ready("best_of")


async def test_self_consistency_chooses_the_most_frequent_answer() -> None:
    texts = ["#### 7", "The answer is 8.", "8.0"] + [f"#### {100 + i}" for i in range(N - 3)]
    outcome, _ = await solved(
        ready("self_consistency").pipeline, Scripted(reply=lambda c: texts[c.index], identity="sc"), NUMBER
    )
    assert outcome.answer == "The answer is 8." and outcome.usage.requests == N


async def test_repeated_sampling_keeps_every_sample() -> None:
    outcome, _ = await solved(ready("repeated_sampling").pipeline, coder("x"), DOUBLE)
    assert len(outcome.final) == len(outcome.candidates) == outcome.usage.requests == N


async def test_best_of_n_takes_the_program_that_passes_most_tests() -> None:
    outcome, _ = await solved(
        ready("best_of_n").pipeline, coder("0", "x + 1", "2 * x", "2 * x + 0", "0"), DOUBLE
    )
    assert outcome.chosen is not None and outcome.chosen.index == 2
    scores = [c.verdicts["unit_tests"].score for c in outcome.candidates]
    assert scores == [0.0, 0.5, 1.0, 1.0] + [0.0] * 12
    assert outcome.usage.requests == N


@pytest.mark.parametrize(("name", "chosen"), [("reward_best_of_n", 2), ("reward_weighted_vote", 0)])
async def test_a_reward_model_s_score_ranks_samples_or_weighs_their_votes(name: str, chosen: int) -> None:
    texts = ["#### 7", "#### 7.0", "#### 8"] + ["#### 9"] * (N - 3)
    scores = {"#### 7": 0.6, "#### 7.0": 0.5, "#### 8": 0.9, "#### 9": 0.01}
    models = {
        "default": Scripted(reply=lambda c: texts[c.index], identity="solver"),
        "reward": Scripted(score=scores.__getitem__),
    }
    outcome, _ = await solved(ready(name).pipeline, models, NUMBER)
    assert outcome.chosen is not None and outcome.chosen.index == chosen
    assert outcome.by_model["reward"].requests == len(scores), "equal samples are scored once"


async def test_first_passing_stops_at_the_first_program_that_passes() -> None:
    def reply(call: Call) -> Reply:
        return Reply(program("2 * x" if call.index == 1 else "0"), latency=0.0 if call.index < 3 else 600.0)

    outcome, backend = await solved(
        ready("first_passing").pipeline, Scripted(reply=reply, identity="coder"), DOUBLE
    )
    assert outcome.chosen is not None and outcome.chosen.index == 1
    assert (outcome.stopped, len(backend.cancelled)) == ("early", N - 3)
    assert outcome.usage.requests == N, "all were asked at once, and what was cut off is billed"


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_costs_nothing_the_second_time(name: str) -> None:
    problem = NUMBER if name == "self_consistency" else DOUBLE
    runs: list[Any] = []
    for _ in range(2):
        solver = coder("0", "2 * x", "3")
        models = {"default": solver, "large": solver, "reward": Scripted(score=lambda text: 0.5)}
        outcome, backend = await solved(ready(name).pipeline, models, problem, store="ready.sqlite")
        runs.append((outcome.answer, outcome.usage, len(backend.calls)))
    assert runs[1] == (*runs[0][:2], 0)
