"""Stages that solve, as configurations: what is wrong inside is said with its path; pictures and estimates."""

from __future__ import annotations

from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.config import dump, load
from archon.config.schema import config_schema
from archon.errors import (
    ConfigError,
    UnknownName,
)
from archon.estimate import Line, estimate
from archon.picture import as_json, mermaid, svg, terminal
from archon.pipeline import Node, Pipeline
from archon.session import Session
from archon.stage import Count, Stage
from archon.strategies.best_of import BestOf
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird
from tests.archon.instant import InstantStore, patiently
from tests.archon.solving import ECHO, Parts, Streamed, run
from tests.archon.solving import named as named  # a fixture
from tests.archon.wild import PROBLEM

# --- before anything is spent -----------------------------------------------------------------------


def test_a_model_that_is_named_inside_must_be_defined() -> None:
    pipeline = Pipeline([Parts(solver=Sample(model="gone") | MajorityVote())])
    assert pipeline.graph().models == {
        "gone": ["parts/solver/sample"],
        "default": ["parts/other/sample"],
    }
    with pytest.raises(UnknownName, match=r"stage 'parts/solver/sample' uses model 'gone'"):
        run(pipeline, {"default": ECHO})


def test_what_is_wrong_inside_is_said_with_its_path() -> None:
    wrong = Parts(solver=Sample() | BestOf(), other=Parts(solver=[MajorityVote.name]))
    with pytest.raises(ConfigError) as caught:
        Pipeline([Node("solve", wrong)]).graph()
    assert [(f.where, f.what.split(",")[0]) for f in caught.value.flaws] == [
        ("solve/solver/best_of", "'best_of' needs scores"),
        ("solve/other/parts/solver/majority_vote", "'majority_vote' needs candidates"),
    ]


FILE = """\
models:
  m: {backend: scripted, replies: {'*': [a]}}
pipeline:
  first:
    sample: {model: m}
  second:
    parts:
      solver:
        draw: {sample: {model: %s}}
        vote: {%s: , after: draw}
      other:
      - sample: {model: m}
"""


@pytest.mark.parametrize(
    ("model", "stage", "said"),
    [
        (
            "mm",
            "majority_vote",
            r"9: pipeline\.second\.parts\.solver\.draw: model 'mm' is not defined.*'m'\?",
        ),
        ("m", "best_of", r"10: pipeline\.second\.parts\.solver\.vote: 'best_of' needs scores"),
        (
            "m",
            "majority_votes",
            r"10: pipeline\.second\.parts\.solver\.vote.majority_votes: there is no stage",
        ),
        ("[m]", "majority_vote", r"9: pipeline\.second\.parts\.solver\.draw\.sample\.model"),
    ],
)
def test_what_is_wrong_inside_a_file_is_said_with_its_line(model: str, stage: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(FILE % (model, stage), "yaml")


@pytest.mark.parametrize(
    "solver", ["sample", "3", "{}", "[]", "null", "{sample: {n: 2}}", "[{pipeline: [sampl]}]"]
)
def test_what_is_no_pipeline_is_refused(solver: str) -> None:
    with pytest.raises(ConfigError, match="solver"):
        load(f"- parts: {{solver: {solver}}}", "yaml")


NESTED = [
    Parts(),
    Parts(solver=Sample(n=3)),
    Parts(solver=Sample(n=3) | MajorityVote(), other=(Sample() & Sample(model="b")) | MajorityVote()),
    Parts(
        solver=Parts(solver=Pipeline([Node("x", Pipeline([Sample()])), Node("y", MajorityVote(), ("x",))]))
    ),
    Streamed(solver=Pipeline([Node("b", Verify(verifier="unit_tests"), ("a",)), Node("a", Sample())])),
]


@pytest.mark.parametrize("stage", NESTED)
def test_it_is_its_configuration(stage: Stage) -> None:
    pipeline = Pipeline([stage])
    assert load(dump(pipeline), "yaml").pipeline == pipeline
    assert load(dump(pipeline, "toml"), "toml").pipeline == pipeline
    assert hash(load(dump(pipeline), "yaml").pipeline.nodes[0].stage) == hash(stage)
    assert stage.model_copy(deep=True) == stage


def test_a_pipeline_may_be_given_as_it_is_as_a_stage_or_as_a_file_says_it() -> None:
    stage = Parts(solver=Pipeline([Sample(n=2)]))
    assert Parts(solver=Sample(n=2)) == Parts(solver=[{"sample": {"n": 2}}]) == stage
    assert Parts(solver={"sample": {"sample": {"n": 2}}}) == stage
    with pytest.raises(ValueError, match="solver"):
        Parts(solver=3)
    with pytest.raises(ConfigError, match="'sample'"):
        Parts(solver=["sampel"])


def test_editors_know_its_form() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(config_schema())
    assert validator.is_valid([{"parts": {"solver": ["sample", {"majority_vote": None}]}}])
    assert validator.is_valid(
        [{"parts": {"solver": {"a": "sample", "b": {"majority_vote": {}, "after": "a"}}}}]
    )
    assert not validator.is_valid([{"parts": {"solver": "sample"}}])
    assert not validator.is_valid([{"parts": {"solver": ["sampel"]}}])


def test_pipelines_that_differ_in_what_comes_after_what_are_told_apart_in_text() -> None:
    verify, vote = Verify(verifier=EveryThird()), MajorityVote()
    chain = Pipeline([Node("a", Sample()), Node("b", verify, ("a",)), Node("c", vote, ("b",))])
    fork = Pipeline([Node("a", Sample()), Node("b", verify, ("a",)), Node("c", vote, ("a",))])
    assert repr(chain) != repr(fork) and hash(Parts(solver=chain)) != hash(Parts(solver=fork))


# --- pictures and estimates -------------------------------------------------------------------------

DRAWN = Pipeline([Parts(solver=Sample(n=3) | MajorityVote(), parts=2, whole=False)]).graph()


def test_the_terminal_shows_what_a_stage_solves_with_under_it() -> None:
    assert terminal(DRAWN).splitlines() == [
        "● parts  (solver=sample | majority_vote, whole=False)   [6 calls]",
        "    solver: 3 calls each time",
        "    ● sample  (n=3)   [3 calls]",
        "      │",
        "    ● majority_vote",
        "    other: 1 call each time",
        "    ● sample   [1 call]",
        "",
        "6 model calls per problem",
    ]


def test_an_estimate_names_every_model_and_bounds_no_prompt_that_it_does_not_know() -> None:
    stage = Parts(solver=Sample(model="a", n=3), other=Sample(model="b"), parts=2)
    models = {
        name: Scripted(replies={"*": ("x",)}, max_tokens=10, price={"input": 1, "output": 1}) for name in "ab"
    }

    async def work() -> list[Line]:
        async with Session(models=models, store=InstantStore()) as session:
            return estimate(Pipeline([stage, Sample(model="a")]).graph(), [PROBLEM], session)

    lines = patiently(work())
    assert [(one.stage, one.model, one.calls, one.usd is None) for one in lines] == [
        ("parts", "a", Count(7, 7), True),
        ("parts", "b", Count(7, 7), True),
        ("sample", "a", Count(1, 1), False),
    ]


def test_the_other_forms_show_it_too() -> None:
    data = as_json(DRAWN)
    assert data["calls"]["total"] == {"low": 6, "high": 6}
    inner = data["stages"]["parts"]["solves_with"]
    assert list(inner) == ["solver", "other"]
    assert inner["solver"]["calls"]["total"] == {"low": 3, "high": 3}
    chart = mermaid(DRAWN).splitlines()
    assert '  subgraph s0_0["parts: solver"]' in chart and "  s0 -.- s0_0" in chart
    assert "  s0_0_0 --> s0_0_1" in chart and chart.count("  end") == 2
    assert "sample | majority_vote" in svg(DRAWN)
