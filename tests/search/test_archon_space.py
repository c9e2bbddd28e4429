"""Archon's own space: as many stacks as its axes say, each by the paper's rules, and as many calls as they cost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.config import load
from archon.errors import ConfigError
from archon.search.archon_space import ArchonSpace
from archon.search.space import SearchSpace
from archon.strategies.archon_rules import is_stack, layers_of, violations

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
MODELS = [f"m{i}" for i in range(1, 11)]


def space(limit: int | None = None, **archon: Any) -> SearchSpace:
    data: dict[str, Any] = {"space": {"archon": {"generators": MODELS, **archon}}}
    return SearchSpace.from_data(data if limit is None else {**data, "limits": {"calls": limit}})


@pytest.fixture(scope="module")
def whole() -> SearchSpace:
    return space()


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return space(30, **SMALL)


def test_with_the_paper_s_ranges_there_are_9600_stacks_and_4800_with_critic_and_ranker_as_one() -> None:
    assert space().axes.size == 9600 == 10 * 5 * (1 + 3 * 5) * 4 * 3
    assert space(review=["none", "critic_ranker"]).axes.size == 4800


def test_the_axes_are_the_paper_s_six() -> None:
    axes = space().axes
    assert {axis.name: axis.options for axis in axes} == {
        "top_k": tuple(range(1, 11)),
        "samples": (1, 2, 3, 4, 5),
        "layers": (1, 2, 3, 4),
        "fusers": (2, 4, 6, 8, 10),
        "review": ("none", "critic", "ranker", "critic_ranker"),
        "evaluation": ("none", "verifier", "tests"),
    }
    assert axes.by_name["fusers"].needs == (("layers", (2, 3, 4)),)


@QUICK
@given(st.integers(0, 2**32 - 1))
def test_every_stack_is_one_by_the_paper_s_rules(whole: SearchSpace, seed: int) -> None:
    configuration = whole.axes.draw(np.random.default_rng(seed))
    assert whole.refusal(configuration) is None
    graph = whole.graph(configuration)
    assert is_stack(graph) and not violations(graph)
    layers = [[place.stage.name for place in layer] for layer in layers_of(graph)]
    assert layers == [*expected_layers(**configuration)]  # type: ignore[arg-type]
    assert load(whole.dump(configuration), "yaml").pipeline == graph.pipeline


def expected_layers(
    top_k: int, samples: int, layers: int, review: str, evaluation: str, fusers: int = 0
) -> Iterator[list[str]]:
    yield ["sample"] * top_k
    for layer in range(1, layers + 1):
        if review in ("critic", "critic_ranker"):
            yield ["critique"]
        if review in ("ranker", "critic_ranker"):
            yield ["rank"]
        if layer < layers:
            yield ["fuse"] * fusers
    if evaluation == "verifier":
        yield ["judge_verify"]
    elif evaluation == "tests":
        yield from (["write_tests"], ["test_evaluate"])
    yield ["fuse"]


def calls(top_k: int, samples: int, layers: int, review: str, evaluation: str, fusers: int = 0) -> int:
    """By hand, from the paper's table 3, each question asked again once at most; a ranker passes on five of up to
    twenty candidates, and does not ask about one alone."""
    spent = candidates = top_k * samples
    for layer in range(1, layers + 1):
        spent += 2 * (review in ("critic", "critic_ranker"))
        if review in ("ranker", "critic_ranker"):
            spent += 2 * (candidates > 1) * (1 if candidates <= 20 else 1 + -(-(candidates - 20) // 10))
            candidates = min(5, candidates)
        if layer < layers:
            spent, candidates = spent + fusers, fusers
    spent += {"none": 0, "verifier": 4 * candidates, "tests": 2 + 2 * candidates}[evaluation]
    return spent + 1


SMALL: dict[str, Any] = {
    "generators": MODELS[:4],
    "top_k": [1, 2, 4],
    "samples": [3],
    "layers": [1, 2, 3],
    "width": [2, 4],
}


def test_the_stacks_within_a_limit_of_calls_are_those_that_cost_no_more_by_hand(small: SearchSpace) -> None:
    by_hand = 0
    reviews, evaluations = ("none", "critic", "ranker", "critic_ranker"), ("none", "verifier", "tests")
    for top_k, samples, layers in product((1, 2, 4), (3,), (1, 2, 3)):
        for review, evaluation in product(reviews, evaluations):
            for fusers in (2, 4) if layers > 1 else (0,):
                by_hand += calls(top_k, samples, layers, review, evaluation, fusers) <= 30
    within = [c for c in small.axes.every() if small.refusal(c) is None]
    assert small.axes.size == 3 * (1 + 2 * 2) * 4 * 3 == 180
    assert len(within) == by_hand == 134
    for configuration in within[::17]:
        assert small.graph(configuration).total.calls.high == calls(**configuration)  # type: ignore[arg-type]


def test_no_two_configurations_build_one_stack(small: SearchSpace) -> None:
    stacks = [small.stack(c) for c in small.axes.every()]
    assert len(set(stacks)) == len(stacks)


def test_models_are_named_by_the_user_and_options_that_need_more_are_left_out() -> None:
    searched = space(generators=["a", "b", "c"], fusers=["x", "y"], judge="z", keep=None, temperature=None)
    assert searched.axes.by_name["top_k"].options == (1, 2, 3)
    assert searched.axes.by_name["fusers"].options == (2,)
    deep: dict[str, Any] = {
        "top_k": 2,
        "samples": 1,
        "layers": 2,
        "fusers": 2,
        "review": "ranker",
        "evaluation": "tests",
    }
    assert searched.stack(deep) == (
        "generator-1: sample(model=a); generator-2: sample(model=b); "
        "ranker-1: rank(model=z) after generator-1, generator-2; "
        "fuser-1-1: fuse(model=x) after ranker-1; fuser-1-2: fuse(model=y) after ranker-1; "
        "ranker-last: rank(model=z) after fuser-1-1, fuser-1-2; "
        "tests: write_tests(model=z) after ranker-last; evaluator: test_evaluate(model=z) after tests; "
        "fuser: fuse(model=x) after evaluator"
    )


def test_one_layer_of_fusers_has_no_axis_of_their_number() -> None:
    assert "fusers" not in space(layers=[1], generators=["a"]).axes.by_name


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no models": ({"generators": []}, "space.archon.generators"),
    "a model twice": ({"generators": ["a", "a"]}, "a model is named twice"),
    "an option twice": ({"samples": [1, 1]}, "space.archon.samples: it has an option twice"),
    "no options": ({"review": []}, "space.archon.review: it has no options"),
    "too few generators": (
        {"generators": ["a"], "fusers": ["a", "b"], "top_k": [2]},
        "there is 1 generators",
    ),
    "too few fusers": ({"fusers": ["a"]}, "space.archon.width: it begins at 2"),
    "a wrong key": ({"generator": ["a"]}, "Did you mean 'generators'?"),
    "a wrong option": ({"review": ["critics"]}, "space.archon.review"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_it_is_said(case: str) -> None:
    given_, said = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        space(**given_)
    assert said in str(caught.value)


def test_the_file_that_ships_has_as_many_stacks_as_it_says() -> None:
    searched = SearchSpace.ready("archon")
    assert searched.axes.size == 720
    assert searched.limits == searched.limits.model_copy(update={"calls": 30})
    names = ArchonSpace(generators=("large", "middle", "small")).data()["pipeline"]
    assert set(names) >= {"generator-1", "generator-3", "fuser-3-2", "fuser"} and "generator-4" not in names
    within = sum(calls(**c) <= 30 for c in searched.axes.every())  # type: ignore[arg-type]
    assert within == 615
