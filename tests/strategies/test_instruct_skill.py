"""Accuracy moves the way it should: with more skill at the step that a technique rests on, more answers are right.

The rule-based model's chance is by request alone, and more skill turns wrong steps right and no right one wrong
(archon/testing/instruct/mind.py). So these are statements about techniques, and not about luck.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.prompting import templates_of
from archon.stage import Stage
from archon.strategies.atom_of_thoughts import AtomOfThoughts
from archon.strategies.back_translate import BackTranslate
from archon.strategies.best_of import BestOf
from archon.strategies.chain_of_verification import ChainOfVerification
from archon.strategies.critique import Critique
from archon.strategies.debate import Debate
from archon.strategies.drag import Drag
from archon.strategies.first_passing import FirstPassing
from archon.strategies.fuse import Fuse
from archon.strategies.gen_select import GenSelect
from archon.strategies.hand_over import HandOver
from archon.strategies.idea_search import IdeaSearch
from archon.strategies.iter_drag import IterDrag
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.mixture_of_agents import MixtureOfAgents
from archon.strategies.plan_search import PlanSearch
from archon.strategies.plan_then_write import PlanThenWrite
from archon.strategies.rank import Rank
from archon.strategies.revise import Revise
from archon.strategies.sample import Sample
from archon.strategies.self_aggregate import SelfAggregate
from archon.strategies.self_refine import SelfRefine
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.top_k import TopK
from archon.strategies.universal_self_consistency import UniversalSelfConsistency
from archon.strategies.verify import Verify
from archon.strategies.write_tests import WriteTests
from archon.testing.instruct import Instruct, Skill, sums
from archon.verifiers.judge import Judge
from archon.verifiers.pairwise_judge import PairwiseJudge
from archon.verifiers.unit_tests import UnitTests
from tests.strategies.instructed import accuracy
from tests.strategies.runnable import registered

LOW, HIGH = 0.1, 1.0
NUMBERS = sums(16)
SHORT = sums(24, terms=3)
NAMED = sums(8, named=2)
PROGRAMS = sums(10, code=True)
SAMPLES = Sample(n=3)


class Case(NamedTuple):
    step: str
    pipeline: Stage | Pipeline
    problems: list[Problem] = NUMBERS
    but: Mapping[str, float] = MappingProxyType({"solving": 0.8})
    """Where the skill is not 1 at the other steps."""
    gain: float = 0.2
    """How much more must be right, as a share of the problems."""


CASES = {
    "atom_of_thoughts": Case("decomposing", AtomOfThoughts(answers=("contracted",))),
    "atom_of_thoughts by its choice": Case("ranking", AtomOfThoughts(), PROGRAMS),
    "atom_of_thoughts by its synthesis": Case("fusing", AtomOfThoughts(choose="synthesis"), PROGRAMS),
    "judge": Case("judging", SAMPLES | Verify(verifier=Judge(read="text")) | BestOf()),
    "judge by its probability": Case(
        "judging", SAMPLES | Verify(verifier=Judge(read="probability")) | BestOf()
    ),
    "judge_verify": Case("judging", SAMPLES | JudgeVerify(), but={"solving": 0.8, "criticising": 0.1}),
    "judge_verify by its reasons": Case(
        "criticising", SAMPLES | JudgeVerify(), but={"solving": 0.8, "judging": 0}
    ),
    "rank in a list": Case("ranking", SAMPLES | Rank(keep=1)),
    "rank in pairs": Case("ranking", SAMPLES | Rank(method="pairwise", keep=1)),
    "rank by scores": Case("ranking", SAMPLES | Rank(method="pointwise", keep=1)),
    "rank by critiques": Case(
        "criticising", SAMPLES | Critique() | Rank(keep=1), but={"solving": 0.8, "ranking": 0}
    ),
    "gen_select": Case("ranking", SAMPLES | GenSelect()),
    "universal_self_consistency": Case("ranking", Sample(n=5) | UniversalSelfConsistency()),
    "fuse": Case("fusing", SAMPLES | Fuse(), but={"solving": 0.7}),
    "fuse by critiques": Case(
        "criticising", SAMPLES | Critique() | Fuse(), but={"solving": 0.8, "fusing": 0}
    ),
    "mixture_of_agents": Case("fusing", MixtureOfAgents(layers=2)),
    "self_aggregate": Case(
        "fusing", Sample(n=4) | SelfAggregate(k=3, steps=2) | MajorityVote(), but={"solving": 0.7}
    ),
    "debate": Case("fusing", Debate() | MajorityVote()),
    "self_refine": Case("revising", Sample() | SelfRefine()),
    "self_refine by its feedback": Case("criticising", Sample() | SelfRefine()),
    "revise": Case("revising", Revise(chains=2, length=3) | MajorityVote()),
    "chain_of_verification": Case("judging", Sample() | ChainOfVerification(questions=2), SHORT, gain=0.1),
    "chain_of_verification by its questions": Case(
        "planning", Sample() | ChainOfVerification(questions=2), SHORT, gain=0.1
    ),
    "idea_search": Case("planning", IdeaSearch(n=2) | MajorityVote()),
    "plan_search": Case(
        "planning",
        PlanSearch(n=2) | Verify(verifier=UnitTests()) | FirstPassing(),
        PROGRAMS,
        {"criticising": 0},
    ),
    "plan_search by its critic": Case(
        "criticising",
        PlanSearch(n=2, keep=1, layers=1) | Verify(verifier=UnitTests()) | FirstPassing(),
        PROGRAMS,
        {"planning": 0.3, "judging": 0.5},
    ),
    "back_translate": Case("planning", Sample() | BackTranslate()),
    "plan_then_write": Case("planning", PlanThenWrite()),
    "write_tests": Case("testing", SAMPLES | WriteTests(n=3) | TestEvaluate(keep=1), PROGRAMS),
    "test_first": Case(
        "testing", TestFirst(n=3, solver=Pipeline([SAMPLES])) | TestEvaluate(keep=1), PROGRAMS
    ),
    "test_evaluate": Case("judging", SAMPLES | WriteTests(n=3) | TestEvaluate(keep=1)),
    "iter_drag": Case("decomposing", IterDrag(k=1), NAMED),
    "hand_over": Case(
        "confidence",
        Sample(logprobs=0) | HandOver(confidence="logprob", threshold=-0.5),
        but={"solving": 0.8},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_more_skill_at_its_step_makes_more_answers_right(name: str) -> None:
    step, pipeline, problems, but, gain = CASES[name]
    low, high = (
        accuracy(pipeline, problems, Instruct(Skill.of(1.0, **{**but, step: skill}))) for skill in (LOW, HIGH)
    )
    assert high >= low + gain, (low, high)


def test_every_stage_that_asks_in_words_is_measured() -> None:
    asking = {cls.name for cls in registered("stage") if templates_of(cls)}
    measured = {prompt for case in CASES.values() for prompt in names_in(case.pipeline)}
    passing_on = {
        "idea_diversity",
        "sample_schedule",
    }  # the one changes no answer, the other asks the problem itself
    assert asking - passing_on <= measured | {"drag"}  # which is below: its step is solving


def names_in(pipeline: Stage | Pipeline) -> set[str]:
    whole = Pipeline([pipeline]) if isinstance(pipeline, Stage) else pipeline
    return {stage.name for stage in whole.graph().stages}


@pytest.mark.parametrize("technique", [Sample(), Sample(n=4) | MajorityVote(), Drag(k=8)])
def test_more_skill_in_solving_makes_more_answers_right(technique: Stage | Pipeline) -> None:
    found = [
        accuracy(technique, NUMBERS, Instruct(Skill.of(0.5, solving=skill))) for skill in (0.5, 0.85, 1.0)
    ]
    assert found[0] + 0.2 <= found[1] and found[1] < found[2] == 1.0


def test_a_technique_that_chooses_is_as_good_as_its_samples_where_the_model_chooses_rightly() -> None:
    right = Instruct(Skill.of(1.0, solving=0.7))
    chosen = [accuracy(SAMPLES | choice, NUMBERS, right) for choice in (Rank(keep=1), GenSelect(), Fuse())]
    by_truth = accuracy(SAMPLES | Verify(verifier=Judge()) | TopK(k=1), NUMBERS, right)
    assert (
        chosen[:2] == [by_truth] * 2 and chosen[2] >= by_truth
    )  # a fuser can do what none of the samples did


def test_a_judge_s_preference_is_worth_its_skill() -> None:
    problems = [p.model_copy(update={"info": {"baseline": "#### 1000"}}) for p in NUMBERS]
    pipeline = SAMPLES | Verify(verifier=PairwiseJudge(read="text")) | BestOf()
    low, high = (accuracy(pipeline, problems, Instruct(Skill.of(0.8, judging=s))) for s in (LOW, HIGH))
    assert high >= low + 0.2
