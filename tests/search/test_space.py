"""Search spaces: a configuration builds what the file says or is refused, and what can never be built is a flaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon import shelf
from archon.config import Config, load
from archon.config.graphs import plain_pipeline
from archon.errors import ConfigError, UnknownName, UserError
from archon.graph import Graph
from archon.search.axes import Configuration
from archon.search.space import SearchSpace, shipped
from archon.stage import Stage

QUICK = settings(max_examples=120, deadline=None, derandomize=True)

FILE = """\
models:
  small: {backend: scripted}
  big: {backend: scripted, max_tokens: 100}
  prm: {backend: scripted}
budget: {problem: {requests: 30}}
benchmark: lab/arith
pipeline:
  - sample: {model: {choose: [small, big]}, n: {range: [1, 24], integer: true}, temperature: {range: [0.2, 1.2]}}
  - optional: {verify: {verifier: unit_tests}}
  - choose:
      vote: majority_vote
      best: [{verify: {verifier: {reward: {model: prm}}, called: prm}}, {best_of: {by: {choose: [prm, unit_tests]}}}]
      first: first_passing
      deep: {debate: {model: small, agents: {choose: [2, 3]}, rounds: 2}}
objective:
  kind: accuracy
"""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_data(FILE)


def flawed(data: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        SearchSpace.from_data(data, **more)
    return str(caught.value)


@QUICK
@given(st.integers(0, 2**32 - 1))
def test_every_configuration_builds_within_the_limits_or_is_refused_with_a_reason(
    space: SearchSpace, seed: int
) -> None:
    configuration = space.axes.draw(np.random.default_rng(seed))
    reason = space.refusal(configuration)
    if reason is not None:
        assert reason.strip()
        return
    graph = space.graph(configuration)
    high = graph.total.calls.high
    assert high is not None and high <= 30
    sample = graph.places["sample"].stage
    assert (sample.model, sample.n) == (configuration["sample.model"], configuration["sample.n"])  # type: ignore[attr-defined]


@QUICK
@given(st.integers(0, 2**32 - 1))
def test_what_is_dumped_loads_as_the_same_configuration(space: SearchSpace, seed: int) -> None:
    configuration = space.axes.draw(np.random.default_rng(seed))
    try:
        config = space.config(configuration)
        config.pipeline.graph()
    except ConfigError:
        return
    read = load(space.dump(configuration), "yaml")
    assert read.pipeline == config.pipeline
    assert read == config
    assert isinstance(read, Config) and set(read.models) == {"small", "big", "prm"}


def reason(space: SearchSpace, **values: Any) -> str | None:
    base: dict[str, Any] = {
        "sample.model": "small",
        "sample.n": 4,
        "sample.temperature": 0.5,
        "verify": False,
        "choice": "vote",
    }
    return space.refusal({**base, **{name.replace("__", "."): value for name, value in values.items()}})


def test_some_are_within_the_limits_and_some_are_refused_for_what_is_wrong_with_them(
    space: SearchSpace,
) -> None:
    assert reason(space) is None
    assert reason(space, sample__n=24) is None
    best = {"choice": "best", "best__best_of__by": "prm"}
    assert reason(space, **best, sample__n=15) is None
    over = reason(space, **best, sample__n=16)
    assert over == "it may need 32 calls, and at most 30 calls are allowed per problem"
    assert "needs verdicts, and no stage before it gives any" in (reason(space, choice="first") or "")
    assert reason(space, choice="first", verify=True) is None
    late = reason(space, choice="deep", deep__debate__agents=2)
    assert "draws from the problem alone and takes no candidates" in (late or "")


def test_what_is_no_configuration_of_the_axes_is_refused_in_words(space: SearchSpace) -> None:
    assert "axis 'choice' cannot be 'none'" in (reason(space, choice="none") or "")
    assert "there is no axis 'sample.m'. Did you mean" in (reason(space, sample__m=1) or "")
    assert "has no value, and matters" in (space.refusal(Configuration({"sample.model": "big"})) or "")
    with pytest.raises(UserError, match="has no value"):
        space.config({"sample.model": "big"})


def test_equal_configurations_are_built_once(space: SearchSpace) -> None:
    one = space.axes.draw(np.random.default_rng(5))
    same = Configuration(one.as_json())
    assert space.config(one) is space.config(same) and space.config(one) == SearchSpace.from_data(
        FILE
    ).config(one)


def test_a_stack_is_told_in_one_line(space: SearchSpace) -> None:
    chosen: dict[str, Any] = {"sample.model": "big", "sample.n": 4, "sample.temperature": 0.5, "verify": True}
    told = space.stack({**chosen, "choice": "best", "best.best_of.by": "prm"})
    assert told == (
        "sample(model=big, n=4, temperature=0.5) > verify(unit_tests) > "
        "verify(reward(model=prm), called=prm) > best_of(by=prm)"
    )


def test_other_keys_are_left_unread_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(FILE)
    space = SearchSpace.read(path)
    assert space.others.data == {"benchmark": "lab/arith", "objective": {"kind": "accuracy"}}
    assert space.others.where(("benchmark",)) == f"{path}:6: benchmark"
    assert space.others.where(("objective", "kind")).startswith(f"{path}:16: ")
    assert SearchSpace.read(path, others=["benchmark", "objective"]).axes.by_name == space.axes.by_name
    said = flawed(FILE, others=["benchmarks"])
    assert "6: benchmark: unknown key 'benchmark'. Did you mean 'benchmarks'?" in said


def test_a_search_file_is_toml_too_and_a_list_is_a_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text("[[pipeline]]\nsample = {n = {choose = [1, 2]}}\n[[pipeline]]\nmajority_vote = {}\n")
    chained = [{"sample": {"n": {"choose": [1, 2]}}}, "majority_vote"]
    for space in (SearchSpace.read(path), SearchSpace.from_data(chained)):
        assert space.axes.size == 2
        assert space.stack({"sample.n": 2}) == "sample(n=2) > majority_vote"


# --- flaws of the file -----------------------------------------------------------------------------

WRONG = {
    "pipeline: [{sample: {n: {choose: [1, x, -1]}}}]": ["found 'x'", "found -1"],
    "pipeline: [{sample: {n: {range: [1, 8]}}}]": ["Where it is a whole number, add `integer: true`"],
    "pipeline: [{sample: {m: {choose: [1, 2]}}}]": ["unknown key 'm'"],
    "pipeline: [sample, {choose: [majority_vote, majorty_vote]}]": ["Did you mean 'majority_vote'?"],
    "pipeline: [sample, {choose: {a: best_of, b: [{verify: {verifier: unit_test}}, best_of]}}]": [
        "pipeline[1].choose.b[0].verify.verifier.unit_test",
        "Did you mean 'unit_tests'?",
    ],
    "models: {a: {backend: scripted}}\npipeline: [{sample: {model: {choose: [a, b]}}}]": [
        "model 'b' is not defined under `models`"
    ],
    "models: {a: {backend: {choose: [scripted, scriptd]}}}\npipeline: [{sample: {model: a}}]": [
        "Did you mean 'scripted'?"
    ],
    "models: {a: {backend: scripted, retries: {choose: [1, -1]}}}\npipeline: [{sample: {model: a}}]": [
        "found -1"
    ],
    "budget: {problem: {requets: 3}}\npipeline: [sample]": ["Did you mean 'requests'?"],
    "limits: {call: 3}\npipeline: [sample]": ["unknown key 'call'. Did you mean 'calls'?"],
    "limits: {seconds: 3}\npipeline: [sample]": ["Write `budget: {problem: {seconds: ...}}`"],
    "pipline: [sample]": ["`pipeline` is missing"],
    "pipeline: best_of_m": ["there is no ready pipeline named 'best_of_m'. Did you mean 'best_of_n'?"],
    "space: {archn: {}}": ["there is no space named 'archn'. Did you mean 'archon'?"],
    "space: {archon: {generators: [a]}}\npipeline: [sample]": ["`space` stands in the place of"],
    "5": ["expected `pipeline:` or `space:`, and found 5"],
}


@pytest.mark.parametrize("text", WRONG)
def test_an_option_that_can_never_be_built_is_a_flaw_of_the_file(text: str) -> None:
    said = flawed(text)
    for part in WRONG[text]:
        assert part in said


def test_a_flaw_has_the_line_of_its_option() -> None:
    text = """pipeline:
  - sample:
      n:
        choose:
          - 1
          - two
  - choose:
      a: best_of
      b:
        - top_k: {k: 0}
"""
    said = flawed(text)
    assert "3: pipeline[0].sample.n" in said and "found 'two'" in said
    assert "10: pipeline[1].choose.b[0].top_k.k" in said and "found 0" in said


def test_what_only_some_choices_forbid_is_no_flaw_but_a_refusal() -> None:
    text = "pipeline: [{sample: {top_k: {choose: [1, 2]}}}, {optional: first_passing}]"
    space = SearchSpace.from_data(text)
    assert space.refusal({"sample.top_k": 1, "first_passing": False}) is None
    assert "needs verdicts" in (space.refusal({"sample.top_k": 1, "first_passing": True}) or "")


# --- ready pipelines and paths ---------------------------------------------------------------------


def test_fields_of_a_ready_pipeline_are_chosen_by_path() -> None:
    text = """
pipeline: best_of_n
choices:
  sample.n: {choose: [1, 4, 16]}
  sample.temperature: {range: [0.2, 1.2]}
  verify.verifier: {choose: [unit_tests, {reward: {model: {choose: [a, b]}}}]}
  best_of.by: {optional: {choose: [reward]}}
"""
    space = SearchSpace.from_data(text)
    assert [axis.name for axis in space.axes] == [
        "sample.n",
        "sample.temperature",
        "verify.verifier",
        "verify.verifier.reward.model",
        "best_of.by.given",
        "best_of.by",
    ]
    chosen: dict[str, Any] = {"sample.n": 4, "sample.temperature": 1.0, "verify.verifier": "reward"}
    told = space.stack({**chosen, "verify.verifier.reward.model": "b", "best_of.by.given": False})
    assert told == "sample(n=4, temperature=1.0) > verify(reward(model=b)) > best_of"


PATHS = {
    "sampel.n": "there is no 'sampel.n' in it. Did you mean 'sample.n'?",
    "sample.temprature": "Did you mean 'sample.temperature'?",
    "verify.verifier.unit_tests.stop": "there is no 'verify.verifier.unit_tests.stop' in it",
    "verify.verifier.unit_tests": "there is no 'verify.verifier.unit_tests' in it",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_path_is_an_error_with_the_nearest_right_one(path: str) -> None:
    said = flawed(f"pipeline: best_of_n\nchoices:\n  {path}: {{choose: [1]}}\n")
    assert PATHS[path] in said and said.startswith(f"3: choices.{path}: ")


def test_two_choices_for_one_place_are_an_error_and_so_are_choices_that_are_none() -> None:
    verifier = "verify.verifier: {choose: [unit_tests]}, verify.verifier.unit_tests.limits: {choose: [1]}"
    assert "one lies within the other" in flawed(f"pipeline: best_of_n\nchoices: {{{verifier}}}")
    assert "expected marks by their paths, and found 3" in flawed("pipeline: best_of_n\nchoices: 3")
    said = flawed("pipeline: best_of_n\nchoices: {sample.n: {chose: [1, 2]}}")
    assert "Did you mean 'choose'?" in said


def test_a_field_of_any_ready_pipeline_can_be_chosen_and_its_own_value_changes_nothing() -> None:
    for name in shelf.names():
        pipeline = shelf.ready(name).pipeline
        node = pipeline.nodes[0]
        assert isinstance(node.stage, Stage)
        field = "model" if "model" in type(node.stage).model_fields else "budget"
        own, path = getattr(node.stage, field), f"{node.name}.{field}"
        space = SearchSpace.from_data({"pipeline": name, "choices": {path: {"choose": [own]}}})
        assert [axis.name for axis in space.axes] == [path]
        assert space.config({path: own}).pipeline == pipeline, name


def test_paths_lead_into_pipelines_that_stages_solve_with_and_into_lists() -> None:
    text = """
pipeline: compute_optimal
choices:
  compute_optimal.policies[2].probes: {choose: [2, 4]}
  compute_optimal.policies[2].bins[0].solver.sample.n: {choose: [4, 8]}
"""
    space = SearchSpace.from_data(text)
    names = [axis.name for axis in space.axes]
    assert names == [
        "compute_optimal.policies[2].probes",
        "compute_optimal.policies[2].bins[0].solver.sample.n",
    ]
    data: Any = plain_pipeline(space.config(dict(zip(names, (4, 8), strict=True))).pipeline)
    policy = data[0]["compute_optimal"]["policies"][2]
    assert policy["bins"][0]["solver"][0] == {"sample": {"n": 8}}


def test_what_ships_can_be_read_and_a_wrong_name_has_the_nearest() -> None:
    assert "archon" in shipped()
    for name in shipped():
        assert len(SearchSpace.ready(name).axes) > 0
    with pytest.raises(UnknownName, match="Did you mean 'archon'"):
        SearchSpace.ready("archn")


def test_data_from_python_is_read_as_a_file_would_hold_it() -> None:
    space = SearchSpace.from_data({"pipeline": ({"sample": {"n": {"choose": (1, 2)}}}, "majority_vote")})
    assert space.axes.by_name["sample.n"].options == (1, 2)
    with pytest.raises(ConfigError, match="the key 1 is int, not text"):
        SearchSpace.from_data({"pipeline": [{"sample": {"n": {1: 2}}}]})


def test_a_pipeline_without_marks_is_a_space_of_one() -> None:
    space = SearchSpace.from_data({"pipeline": "self_consistency"})
    assert space.axes.size == 1
    assert isinstance(space.graph({}), Graph) and space.refusal({}) is None
