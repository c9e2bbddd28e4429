"""Archon's rules of construction: each is checked where a pipeline is a stack of its components, and can be relaxed."""

from __future__ import annotations

from typing import get_args

import pytest

from archon import registry
from archon.config import load
from archon.errors import ConfigError, Flaw
from archon.graph import Graph
from archon.pipeline import Node, Pipeline
from archon.stage import Stage
from archon.strategies.archon_rules import ROLES, ArchonComponent, Rule, is_stack, layers_of, violations
from archon.strategies.best_of import BestOf
from archon.strategies.critique import Critique
from archon.strategies.fuse import Fuse
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.write_tests import WriteTests

TWO = Sample(n=2) & Sample(model="b", n=2)

ALLOWED: dict[str, Pipeline | Stage] = {
    "an ensemble": TWO,
    "the paper's usual stack": TWO | Critique() | Rank(keep=3) | Fuse(),
    "fusers side by side": TWO | (Fuse() & Fuse(model="b")) | Fuse(),
    "a critic far before the fuser": TWO | Critique() | JudgeVerify() | Fuse(),
    "a critic before a ranker alone": TWO | Critique() | Rank(),
    "tests, then their evaluation": TWO | WriteTests() | TestEvaluate() | Fuse(),
    "tests first": TestFirst(solver=TWO) | TestEvaluate() | Fuse(),
    "tests that nobody evaluates, in view of who answers": TestFirst(solver=TWO) | Fuse(),
    "a critic inside of a solver": TestFirst(solver=TWO | Critique() | Fuse()) | Rank(),
}

FORBIDDEN: dict[str, tuple[Rule, str, Pipeline]] = {
    "a ranker beside fusers": (
        "one type per layer",
        "rank",
        TWO | (Fuse() & Rank()) | Fuse(model="b"),
    ),
    "a critic beside a ranker": ("one type per layer", "critique", TWO | (Rank() & Critique()) | Fuse()),
    "two rankers": ("alone in its layer", "rank-2", TWO | (Rank(model="a") & Rank(model="b")) | Fuse()),
    "two critics": ("alone in its layer", "critique-2", TWO | (Critique() & Critique(called="x")) | Fuse()),
    "two verifiers": ("alone in its layer", "judge_verify-2", TWO | (JudgeVerify() & JudgeVerify())),
    "two writers of tests": (
        "alone in its layer",
        "write_tests-2",
        TWO | (WriteTests() & WriteTests(n=2)) | TestEvaluate(),
    ),
    "two evaluators": (
        "alone in its layer",
        "test_evaluate-2",
        TWO | WriteTests() | (TestEvaluate() & TestEvaluate(execute=False)),
    ),
    "a critic at the end": ("a critic before a ranker or fuser", "critique", TWO | Critique()),
    "a critic whom nobody reads": (
        "a critic before a ranker or fuser",
        "critique",
        TWO | Rank() | Critique() | JudgeVerify(),
    ),
    "tests that nobody evaluates": (
        "tests written, then evaluated",
        "write_tests",
        TWO | WriteTests() | Fuse(),
    ),
    "tests evaluated later": (
        "tests written, then evaluated",
        "write_tests",
        TWO | WriteTests() | JudgeVerify() | TestEvaluate(),
    ),
}


def flaws(pipeline: Pipeline) -> list[Flaw]:
    with pytest.raises(ConfigError) as caught:
        pipeline.graph()
    return list(caught.value.flaws)


def relaxed(pipeline: Pipeline, *names: str) -> Pipeline:
    """With `strict: false` on these stages, or on all."""
    return Pipeline(
        node._replace(stage=node.stage.model_copy(update={"strict": False}))
        if isinstance(node.stage, ArchonComponent) and (not names or node.name in names)
        else node
        for node in pipeline.nodes
    )


def test_every_component_of_the_paper_is_a_stage_and_has_the_switch() -> None:
    for name, role in ROLES.items():
        stage = registry.find("stage", name)
        assert issubclass(stage, ArchonComponent) == (role != "generator")
        assert (role == "generator") == (not stage.takes), "that nothing else comes first is a rule for all"


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_rules_allow_compiles_as_it_is(name: str) -> None:
    stage = ALLOWED[name]
    graph = (stage if isinstance(stage, Pipeline) else Pipeline([stage])).graph()
    assert is_stack(graph) and violations(graph) == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_rule_forbids_is_refused_with_its_name_its_place_and_the_next_step(name: str) -> None:
    rule, place, pipeline = FORBIDDEN[name]
    found = next(flaw for flaw in flaws(pipeline) if flaw.where == place)
    assert f"Archon's rule {rule!r}: " in found.what
    assert found.hint.endswith("; or set `strict: false` here") and len(found.hint) > 40
    assert (rule, place) in {(v.rule, v.where) for v in violations(relaxed(pipeline).graph())}


def test_each_rule_is_broken_by_some_of_these_and_the_one_that_no_stack_can_break_by_another() -> None:
    broken = {rule for rule, _, _ in FORBIDDEN.values()}
    assert set(get_args(Rule)) - broken == {"generators in the first layer"}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_strict_false_relaxes_the_rules_where_it_is_set_and_nowhere_else(name: str) -> None:
    _, _, pipeline = FORBIDDEN[name]
    places = {flaw.where for flaw in flaws(pipeline)}
    relaxed(pipeline, *places).graph()
    for place in places:
        others = places - {place}
        assert {f.where for f in flaws(relaxed(pipeline, *others) if others else pipeline)} == {place}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_beside_any_other_stage_candidates_go_where_they_like(name: str) -> None:
    _, _, pipeline = FORBIDDEN[name]
    graph = (pipeline | MajorityVote()).graph()
    assert not is_stack(graph) and violations(graph), "what is broken can still be listed"


def test_where_there_are_no_layers_no_rule_speaks_of_them() -> None:
    each_ranked = ((Sample(n=3) | Rank(keep=2)) & (Sample(model="b", n=3) | Rank(keep=2))) | Fuse()
    with_inputs = Pipeline(
        [
            Node("sample", Sample(n=3)),
            Node("fuse", Fuse(), ("sample",)),
            Node("rank", Rank(), ("sample", "fuse")),
        ]
    )
    for pipeline in (each_ranked, with_inputs):
        assert not is_stack(pipeline.graph())
    assert [v.rule for v in violations(each_ranked.graph())] == ["alone in its layer"]


def test_a_generator_whose_candidates_join_late_is_listed() -> None:
    late = Pipeline(
        [
            Node("early", Sample()),
            Node("late", Sample(model="b")),
            Node("fuse", Fuse(), ("early",)),
            Node("rank", Rank(), ("fuse", "late")),
        ]
    ).graph()
    (broken,) = violations(late)
    assert (broken.rule, broken.where) == ("generators in the first layer", "late")
    assert "'rank', in layer 3" in broken.what


def test_layers_are_counted_from_the_sources() -> None:
    graph = (TWO | Critique() | (Fuse() & Fuse(model="b")) | Rank()).graph()
    assert [[p.path for p in layer] for layer in layers_of(graph)] == [
        ["sample", "sample-2"],
        ["critique"],
        ["fuse", "fuse-2"],
        ["rank"],
    ]


def test_the_rules_hold_inside_of_a_solver_too_and_say_where() -> None:
    found = flaws(TestFirst(solver=TWO | Critique()) | Fuse())
    assert [f.where for f in found] == ["test_first/solver/critique"]


def test_a_file_is_told_the_line_of_the_rule_and_the_switch_is_a_key_of_it() -> None:
    text = "pipeline:\n- sample: {n: 2}\n- critique: {}\n- judge_verify: {}\n"
    with pytest.raises(ConfigError) as caught:
        load(text, "yaml")
    (found,) = caught.value.flaws
    assert found.where.startswith("3: pipeline[1]") and "'a critic before a ranker or fuser'" in found.what
    load(text.replace("critique: {}", "critique: {strict: false}"), "yaml")


def test_verdicts_and_choices_of_others_are_no_part_of_it() -> None:
    graph: Graph = (TWO | Rank() | BestOf(by="rank")).graph()
    assert not is_stack(graph)
