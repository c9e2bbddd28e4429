"""The allocation of tokens: the model is found again from its own points, and its optimum by trying everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.scripted import Call, Scripted
from archon.problem import Problem
from archon.strategies.drag import Drag, Example
from archon.strategies.iter_drag import IterDrag
from archon.strategies.retrieval_allocation import Allocation, Gains, Point, Sizes, fit, gains_of
from tests.strategies.made import solved

KS, MS, NS = (0, 1, 2, 5, 10, 50), (0, 1, 4, 16), (1, 2, 4)
GRID = [*product(KS, MS, NS)]
TASKS = {"hop": Gains(0.2, 0.05), "fact": Gains(0.4, 0.02), "list": Gains(0.1, 0.15)}
TRUTH = Allocation((0.08, 0.05, 0.3), (0.2, 0.4), -0.7, 1.0)


def points(
    truth: Allocation, tasks: dict[str, Gains], noise: float = 0.0, seed: int = 0, grid: Any = GRID
) -> list[Point]:
    rng = random.Random(seed)
    return [
        Point(k, m, n, min(1.0, max(0.0, truth.predict(k, m, n, gains) + rng.gauss(0, noise))), task)
        for task, gains in tasks.items()
        for k, m, n in grid
    ]


def close(one: Allocation, other: Allocation) -> None:
    assert one.a == pytest.approx(other.a, abs=1e-6)
    assert one.b == pytest.approx(other.b, abs=1e-6)
    assert one.c == pytest.approx(other.c, abs=1e-6)


# --- the fit ----------------------------------------------------------------------------------------


def test_the_model_is_found_again_from_points_of_several_tasks() -> None:
    found = fit(points(TRUTH, TASKS), TASKS)
    close(found, TRUTH)
    assert found.r_squared == pytest.approx(1)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.floats(-0.3, 0.3)] * 3), st.tuples(*[st.floats(-0.3, 0.3)] * 2), st.floats(-1, 1))
def test_any_model_is_found_again(a: tuple[float, float, float], b: tuple[float, float], c: float) -> None:
    truth = Allocation(a, b, c, 1.0)
    close(fit(points(truth, TASKS), TASKS), truth)


def test_of_one_task_the_slopes_are_found_as_they_are_for_it() -> None:
    found = fit(points(TRUTH, {"hop": TASKS["hop"]}), TASKS)
    assert set(found.b) == {0}
    assert found.a == pytest.approx((0.08 + 0.2 * 0.2, 0.05 + 0.4 * 0.05, 0.3), abs=1e-6)
    assert fit(points(TRUTH, {"hop": TASKS["hop"]})) == found, "one task's gains say nothing"


def test_it_predicts_a_task_that_was_not_measured() -> None:
    found = fit(points(TRUTH, TASKS), TASKS)
    other = Gains(0.3, 0.1)
    for each in GRID:
        assert found.predict(*each, other) == pytest.approx(TRUTH.predict(*each, other), abs=1e-6)


def test_noise_is_averaged_out_and_said() -> None:
    found = fit(points(TRUTH, TASKS, noise=0.03), TASKS)
    assert 0.5 < found.r_squared < 0.999
    assert found.a == pytest.approx(TRUTH.a, abs=0.05)


def test_what_never_varies_has_no_slope() -> None:
    grid = [(k, 0, 1) for k in KS]
    found = fit(points(TRUTH, {"hop": TASKS["hop"]}, grid=grid))
    assert found.a[1:] == (0, 0) and found.a[0] == pytest.approx(0.12, abs=1e-6)
    flat = fit([Point(1, 0, 1, 0.5), Point(2, 0, 1, 0.5)])
    assert flat.a[0] == pytest.approx(0, abs=1e-9) and flat.predict(9, 9, 9) == pytest.approx(0.5)


def test_perfect_and_hopeless_scores_have_a_place() -> None:
    found = fit([Point(1, 0, 1, 0.0), Point(10, 0, 1, 0.5), Point(100, 0, 1, 1.0)])
    assert 0 < found.predict(1, 0, 1) < 0.2 and 0.8 < found.predict(100, 0, 1) < 1
    assert 0 <= found.predict(10**9, 0, 1) <= 1


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        ([], "no points"),
        ([Point(i, i, 1, 0.5) for i in range(5)], "apart"),
        ([Point(1, 0, 1, 0.4), Point(2, 1, 1, 0.5)], "apart"),
        ([Point(1, 0, 1, 1.2)], "scores from 0 to 1"),
        ([Point(1, 0, 0, 0.2)], "n at least 1"),
        ([Point(-1, 0, 1, 0.2)], "at least 0"),
    ],
)
def test_points_that_cannot_say_are_refused(measured: list[Point], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fit(measured)


def test_gains_are_read_off_the_points() -> None:
    measured = [
        Point(0, 0, 1, 0.3, "a"),
        Point(1, 0, 1, 0.5, "a"),
        Point(0, 1, 1, 0.35, "a"),
        Point(0, 0, 1, 0.1, "b"),
        Point(1, 0, 1, 0.2, "b"),
    ]
    gains = gains_of(measured)
    assert [*gains] == ["a"]
    assert gains["a"].documents == pytest.approx(0.2) and gains["a"].examples == pytest.approx(0.05)


# --- the choice -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(*[st.floats(-0.5, 1)] * 3),
    st.floats(-3, 3),
    st.integers(0, 200_000),
    st.tuples(st.integers(1, 1000), st.integers(0, 500), st.integers(0, 100), st.integers(0, 100)),
)
def test_the_best_that_fits_is_the_best_of_all_that_fit(
    a: tuple[float, float, float], c: float, budget: int, sizes: tuple[int, int, int, int]
) -> None:
    truth, tokens = Allocation(a, (0, 0), c, 1.0), Sizes(*sizes)
    fitting = [each for each in GRID if tokens(*each) <= budget]
    if not fitting:
        with pytest.raises(ValueError, match=f"`budget`, which is {budget:g}"):
            truth.best(tokens, budget, ks=KS, ms=MS, ns=NS)
        return
    best = truth.best(tokens, budget, ks=KS, ms=MS, ns=NS)
    top = max(truth.predict(*each) for each in fitting)
    assert best.score == top and best.tokens == tokens(*best[:3]) <= budget
    ties = [each for each in fitting if truth.predict(*each) == top]
    assert best.tokens == min(tokens(*each) for each in ties)


@pytest.mark.parametrize(("steep_k", "steep_m"), [(1.0, 1.0), (3.0, 1.0), (1.0, 4.0)])
def test_a_budget_is_divided_in_proportion_to_the_slopes(steep_k: float, steep_m: float) -> None:
    """Of A log k + B log m under p k + q m <= T the optimum spends A / (A + B) of T on k."""
    truth = Allocation((steep_k, steep_m, 0.0), (0, 0), -20.0, 1.0)
    p, q, total = 10, 40, 4_000
    tokens: Callable[[int, int, int], float] = lambda k, m, n: p * k + q * m  # noqa: E731
    best = truth.best(tokens, total, ks=range(1, total // p), ms=range(1, total // q))
    share = steep_k / (steep_k + steep_m)
    assert p * best.k / total == pytest.approx(share, abs=0.02)
    assert q * best.m / total == pytest.approx(1 - share, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_fitted_to_noisy_points_the_choice_is_nearly_as_good_as_the_best(seed: int) -> None:
    tokens = Sizes(document=120, example=40, question=60, step=30)
    found = fit(points(TRUTH, TASKS, noise=0.02, seed=seed), TASKS)
    for task, gains in TASKS.items():
        for budget in (1_000, 10_000, 100_000):
            chosen = found.best(tokens, budget, ks=KS, ms=MS, ns=NS, gains=gains)
            best = TRUTH.best(tokens, budget, ks=KS, ms=MS, ns=NS, gains=gains)
            assert TRUTH.predict(*chosen[:3], gains) > best.score - 0.02, (task, budget)


def test_a_larger_budget_is_never_worse() -> None:
    tokens = Sizes(document=120, example=40, question=60, step=30)
    scores = [TRUTH.best(tokens, 10.0**e, ks=KS, ms=MS, ns=NS).score for e in range(2, 8)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


# --- what it costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "m", "n"), [(0, 0, 1), (3, 0, 1), (2, 2, 1), (2, 2, 2), (1, 1, 4)])
async def test_the_tokens_are_those_of_the_prompts(k: int, m: int, n: int) -> None:
    """Of prompts whose parts grow, the growth is what is said; a follow-up counts with its answer to come."""

    async def spent(scale: int) -> int:
        def text(words: int, name: str) -> str:
            return " ".join([f"{name}{i}" for i in range(words * scale)])

        def reply(call: Call) -> str:
            if "`Follow up " in call.text:
                mark = call.text.split("`Follow up ")[1].split(":")[0]
                asked = sum(line.startswith("STEP ") for line in call.text.splitlines())
                return f"Follow up {mark}: " + " ".join([f"topic{asked + 1}"] * (4 * scale))
            return text(6, "found")

        documents = tuple(f"{text(9, f'd{i}x')} topic{i // max(k, 1)}" for i in range(40))
        examples = tuple(
            Example(question=text(5, "eq"), answer=text(3, "ea"), documents=(text(9, "ed"),) * k)
            for _ in range(m)
        )
        problem = Problem.ask(text(7, "q"), id="p", documents=documents)
        settings_: dict[str, Any] = {"k": k, "examples": examples, "system": "", "again": 0}
        stage = Drag(**settings_) if n == 1 else IterDrag(iterations=n - 1, **settings_)
        outcome, _ = await solved(stage, Scripted(reply=reply, identity="sized"), problem)
        return outcome.usage.prompt_tokens

    one, two, three = [await spent(scale) for scale in (1, 2, 3)]
    assert two - one == three - two, "linear in what the prompts are made of"
    to_come = 6 * (n - 1)
    assert two - one == Sizes(document=9, example=8, question=7, step=10)(k, m, n) - to_come
