"""The Gaussian process over configurations: it is one, it learns, and it knows what few problems are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from archon.search.axes import Axis, Configuration
from archon.search.proposers.surrogate import (
    LENGTHS,
    Believed,
    Coder,
    Results,
    Scales,
    Surrogate,
    expected_improvement,
    fitted,
)
from archon.search.testing import stack_space, worth_of

AXES = (
    Axis("way", "choice", ("x", "y", "z")),
    Axis("n", "choice", (1, 2, 4, 8, 16)),
    Axis("k", "int", low=0, high=10, needs=(("way", ("y",)),)),
)


def rows(*values: dict[str, object]) -> np.ndarray:
    return Coder(AXES).rows([Configuration(one) for one in values])  # type: ignore[arg-type]


def test_distances_are_by_place_in_an_order_and_by_kind_else() -> None:
    coder = Coder(AXES)
    some = rows({"way": "x", "n": 1}, {"way": "y", "n": 16, "k": 5}, {"way": "y", "n": 4, "k": 0})
    way, n, k = coder.distances(some, some)
    assert way[0, 1] == 1 and way[1, 2] == 0
    assert (n[0, 1], n[0, 2]) == (1, 0.25), "squares of places in the list"
    assert k[1, 2] == 0.25 and k[0, 1] == 1 and k[0, 2] == 1.25 and k[0, 0] == 0


def test_any_configurations_have_a_covariance() -> None:
    """Axes that matter to some alone are what could break it."""
    space, rng = stack_space(), np.random.default_rng(3)
    some = list(dict.fromkeys(space.axes.draw(rng) for _ in range(150)))
    coder = Coder(tuple(space.axes))
    coded = coder.rows(some)
    distances = coder.distances(coded, coded)
    for lengths in (LENGTHS[:1] * 7, LENGTHS[-1:] * 7, tuple(rng.choice(LENGTHS, 7))):
        rates = np.where(coder.ordered, 0.5 / np.array(lengths) ** 2, 1 / np.array(lengths))
        assert np.linalg.eigvalsh(np.exp(-np.tensordot(rates, distances, 1))).min() > -1e-8


def test_it_predicts_what_it_was_not_told_better_than_the_mean_does() -> None:
    space, rng = stack_space(), np.random.default_rng(1)
    coder = Coder(tuple(space.axes))
    some = list(dict.fromkeys(space.axes.draw(rng) for _ in range(160)))
    worth = np.array([worth_of(one) for one in some])
    known = Results(coder.rows(some[:80]), worth[:80], np.full(80, 10))
    scales = fitted(coder, known)
    found = Surrogate(coder, known, scales).believed(coder.rows(some[80:]))
    wrong = found.mean - worth[80:]
    assert (wrong**2).mean() < 0.35 * worth[80:].var()
    assert 0.85 < (np.abs(wrong) < 2 * found.spread).mean() <= 1
    assert fitted(coder, known) == scales
    lengths = dict(zip(space.axes.by_name, scales.lengths, strict=True))
    assert min(lengths["n"], lengths["temperature"]) < lengths["judge.votes"], (
        "the worth hangs on both, not on it"
    )


def test_what_rests_on_few_problems_is_believed_less() -> None:
    scales = Scales((1.0, 1.0, 1.0), 0.03, 0.3)
    some = rows({"way": "x", "n": 1}, {"way": "x", "n": 2}, {"way": "z", "n": 16})

    def of_the_last(problems: int) -> float:
        known = Results(some, np.array([0.4, 0.5, 0.9]), np.array([100, 100, problems]))
        return float(Surrogate(Coder(AXES), known, scales).believed(some[2:]).mean[0])

    assert of_the_last(100) > of_the_last(50) > of_the_last(8)
    assert 0.9 > of_the_last(100) > 0.85


def test_problems_that_were_easy_for_all_do_not_count_for_each() -> None:
    """Five that lead on the same 8 easy problems: that they all do says that the problems are easy."""
    scales = Scales((0.5, 0.5, 0.5), 0.01, 0.3)
    ways: list[dict[str, object]] = [{"way": way, "n": n} for way in "xz" for n in (1, 2, 4, 8, 16)]
    some = rows(*ways)
    first = [0.5] * 5 + [0.8] * 5
    known = Results(some, np.array(first), np.array([100] * 5 + [8] * 5))
    early = Surrogate(Coder(AXES), known, scales).believed(some[5:]).mean.mean()
    whole = Surrogate(Coder(AXES), known._replace(problems=np.full(10, 100)), scales)
    assert whole.believed(some[5:]).mean.mean() > 0.78
    assert early < 0.72


def test_equal_results_and_none_are_no_error() -> None:
    coder, some = (
        Coder(AXES),
        rows({"way": "x", "n": 1}, {"way": "y", "n": 2, "k": 1}, {"way": "y", "n": 2, "k": 9}),
    )
    equal = Results(some, np.full(3, 0.5), np.full(3, 8))
    found = Surrogate(coder, equal, fitted(coder, equal)).believed(some)
    assert np.allclose(found.mean, 0.5) and (found.spread > 0).all()
    assert fitted(coder, Results(some[:0], np.zeros(0), np.zeros(0, dtype=np.int64))).lengths == (
        1.0,
        1.0,
        1.0,
    )
    assert Coder(()).distances(np.zeros((2, 0)), np.zeros((3, 0))).shape == (0, 2, 3)


@pytest.mark.parametrize(("mean", "spread", "over"), [(0.5, 0.1, 0.6), (0.7, 0.1, 0.6), (0.0, 0.5, 0.4)])
def test_expected_improvement_is_what_is_expected(mean: float, spread: float, over: float) -> None:
    drawn = np.random.default_rng(0).normal(mean, spread, 400_000)
    found = expected_improvement(Believed(np.array([mean]), np.array([spread])), over)[0]
    assert math.isclose(found, np.maximum(drawn - over, 0).mean(), rel_tol=0.02)
