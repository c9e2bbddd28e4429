"""Accuracy moves the way it should: with more skill at the step that a technique rests on, more answers are right.

The rule-based model's chance is by request alone, and more skill turns wrong steps right and no right one wrong
(archon/testing/instruct/mind.py). So these are statements about techniques, and not about luck.
"""

from __future__ import annotations

import pytest

from archon.pipeline import Pipeline
from archon.prompting import templates_of
from archon.stage import Stage
from archon.strategies.best_of import BestOf
from archon.strategies.drag import Drag
from archon.strategies.fuse import Fuse
from archon.strategies.gen_select import GenSelect
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.testing.instruct import Instruct, Skill
from archon.verifiers.judge import Judge
from archon.verifiers.pairwise_judge import PairwiseJudge
from tests.strategies.instructed import accuracy
from tests.strategies.runnable import registered
from tests.strategies.skills import CASES, HIGH, LOW, NUMBERS, SAMPLES


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
