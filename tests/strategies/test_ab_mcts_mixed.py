"""AB-MCTS-M: the posterior against dense algebra and against draws from the prior, and where the search goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss

from archon.strategies.stepping.branching import Branched, Branching, branch_mixed, fitted
from archon.strategies.stepping.mixed import Draws, Group, Mixed, Numbers, posterior
from archon.strategies.stepping.search import generator
from archon.strategies.stepping.tree import EMPTY_TREE, UNIT, Born, Span, Tree, added, closed

Scores = Sequence[Sequence[float]]

DATA: dict[str, Scores] = {
    "three groups": ((0.8, 0.8, 1.0), (0.0,), (0.2, 0.3)),
    "one score": ((0.9,),),
    "single scores": ((0.1,), (0.35,), (0.3,), (0.8,), (0.5,)),
    "one group": ((0.2, 0.5, 0.3, 0.4),),
    "an empty group": ((0.7, 0.9), (), (0.4,)),
    "alike": ((0.5, 0.6), (0.6, 0.5), (0.55, 0.45)),
    "far apart": ((0.05, 0.15), (0.9, 0.95, 0.8)),
}
many = pytest.mark.parametrize("scores", DATA.values(), ids=DATA)


def group(scores: Sequence[float]) -> Group:
    if not scores:
        return Group()
    return Group(len(scores), float(np.mean(scores)), float(np.var(scores) * len(scores)))


def mixed(scores: Scores) -> Mixed:
    return posterior([group(some) for some in scores])


def draws(scores: Scores, times: int = 20_000, seed: int = 0) -> Draws:
    return mixed(scores).draw(np.random.default_rng(seed), times)


def shares(score: Numbers) -> Numbers:
    """How often each arm has the highest score."""
    return np.bincount(score.argmax(1), minlength=score.shape[1]) / len(score)


# --- the posterior ----------------------------------------------------------------------------------


class Dense(NamedTuple):
    """Points of a quadrature over σ_α and σ_y: their weights, and in each μ, every α and a new one, and σ_y²."""

    weights: Numbers
    means: Numbers
    variances: Numbers
    noise: Numbers


def dense(scores: Scores, nodes: int = 48) -> Dense:
    """In each point one big normal distribution is conditioned on the scores."""
    x, weight = leggauss(nodes)
    between, within = 0.5 + 0.5 * x, 0.755 + 0.745 * x
    prior = np.multiply.outer(
        weight * np.exp(-0.5 * (between / 0.2) ** 2), weight * np.exp(-0.5 * (within / 0.3) ** 2)
    ).ravel()
    sa2, sy2 = np.repeat(between**2, nodes), np.tile(within**2, nodes)
    wanted = len(scores) + 2
    of = np.array([1 + j for j, some in enumerate(scores) for _ in some], int)
    off = np.array([score for some in scores for score in some]) - 0.5
    latent = 0.04 + sa2[:, None, None] * np.diag([0.0] + [1.0] * (wanted - 1))
    cross = latent[:, :, of]
    total = cross[:, of, :] + sy2[:, None, None] * np.eye(len(off))
    gain = np.linalg.solve(total, cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    logs = -0.5 * (np.linalg.slogdet(total)[1] + np.linalg.inv(total) @ off @ off)
    weights = prior * np.exp(logs - logs.max())
    variances = np.einsum("gii->gi", latent) - np.einsum("gij,gij->gi", gain, cross)
    return Dense(weights / weights.sum(), 0.5 + gain @ off, variances, sy2)


@many
def test_means_and_variances_are_those_of_the_model(scores: Scores) -> None:
    points, exact = dense(scores), mixed(scores)
    means = points.weights @ points.means
    variances = points.weights @ (points.variances + points.means**2) - means**2
    noise = points.weights @ points.noise
    mean = exact.weights @ exact.centre
    assert mean == pytest.approx(means[0], abs=5e-4)
    variance = exact.weights @ (exact.deviation**2 + exact.centre**2) - mean**2
    assert variance == pytest.approx(variances[0], rel=5e-3)
    drawn, arms = draws(scores), len(scores) + 1
    for j in range(arms):
        for values, m, v in (
            (drawn.mu[:, j], means[0], variances[0]),
            (drawn.alpha[:, j], means[1 + j], variances[1 + j]),
            (drawn.score[:, j], means[1 + j], variances[1 + j] + noise),
        ):
            assert np.mean(values) == pytest.approx(m, abs=5 * math.sqrt(v / len(values)))
            assert np.var(values) == pytest.approx(v, rel=0.08)
    others = np.corrcoef(drawn.score, rowvar=False) - np.eye(arms)
    assert np.abs(others).max() < 0.04, "every arm is drawn by itself"


@many
def test_each_arm_is_chosen_as_often_as_by_the_model(scores: Scores) -> None:
    points, rng, times = dense(scores), np.random.default_rng(3), 20_000
    expected = np.empty((times, len(scores) + 1))
    for j in range(len(scores) + 1):
        of = rng.choice(len(points.weights), times, p=points.weights)
        deviation = np.sqrt(points.variances[of, 1 + j] + points.noise[of])
        expected[:, j] = points.means[of, 1 + j] + deviation * rng.standard_normal(times)
    for share, other in zip(shares(draws(scores).score), shares(expected), strict=True):
        assert share == pytest.approx(other, abs=4.5 * math.sqrt(2 * other * (1 - other) / times) + 0.001)


@pytest.mark.parametrize(
    "scores", [DATA["an empty group"], ((0.6, 0.1), (0.9,)), ((0.1, 0.6, 0.3), (0.9, 0.4), (0.8,))]
)
def test_it_is_what_draws_from_the_prior_say_weighted_by_how_they_fit(scores: Scores) -> None:
    """The definition of a posterior, with no algebra at all."""
    rng, size, arms = np.random.default_rng(3), 400_000, len(scores) + 1
    mu = rng.normal(0.5, 0.2, size)
    between, within = abs(rng.normal(0, 0.2, size)), abs(rng.normal(0, 0.3, size))
    alpha = mu[:, None] + between[:, None] * rng.standard_normal((size, arms))
    logs = np.where(within < 0.01, -np.inf, 0.0)
    for j, some in enumerate(scores):
        for score in some:
            logs -= 0.5 * ((score - alpha[:, j]) / within) ** 2 + np.log(within)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    effective = 1 / (weights**2).sum()
    assert effective > 8000
    drawn, found = draws(scores), (weights @ mu, weights @ alpha)
    assert drawn.mu.mean() == pytest.approx(found[0], abs=5 * 0.2 / math.sqrt(effective))
    assert drawn.alpha.mean(0) == pytest.approx(found[1], abs=5 * 0.3 / math.sqrt(effective))
    assert drawn.alpha.var(0) == pytest.approx(weights @ alpha**2 - found[1] ** 2, rel=0.12)
    chosen: Numbers = np.empty((20_000, arms))
    for j in range(arms):
        of = rng.choice(size, len(chosen), p=weights)
        chosen[:, j] = alpha[of, j] + within[of] * rng.standard_normal(len(chosen))
    assert shares(drawn.score) == pytest.approx(shares(chosen), abs=0.03)


def test_without_scores_the_posterior_is_the_prior() -> None:
    for scores in ((), ((), ())):
        drawn = draws(scores)
        assert drawn.score.shape[1] == len(scores) + 1
        assert drawn.mu.mean() == pytest.approx(0.5, abs=0.01)
        assert drawn.mu.std() == pytest.approx(0.2, rel=0.03)
        assert drawn.alpha.std() == pytest.approx(math.sqrt(0.04 + 0.04), rel=0.03)
        assert drawn.score.std() == pytest.approx(math.sqrt(0.04 + 0.04 + 0.09), rel=0.03)


def test_a_lucky_score_is_drawn_towards_the_others_and_many_are_less() -> None:
    others = ((0.2, 0.3), (0.3, 0.2), (0.25, 0.25), (0.35, 0.15))
    for lucky in (0.6, 1.0):
        means = [draws((*others, (lucky,) * times)).alpha[:, -2].mean() for times in (1, 2, 8)]
        assert 0.25 < means[0] < lucky - 0.02 and means[0] < means[1] < means[2] < lucky + 0.005
    loose = ((0.1, 0.5), (0.4, 0.0), (0.3, 0.2), (0.0, 0.5))
    assert draws((*loose, (1.0,))).alpha[:, -2].mean() < 0.75, "more, where scores within groups differ"


def test_a_new_group_is_as_good_and_as_uncertain_as_the_groups_are() -> None:
    alike, apart = ((0.5, 0.5, 0.52),) * 12, ((0.1, 0.12), (0.9, 0.88), (0.3, 0.32), (0.7, 0.72))
    poor, good = ((0.1, 0.2), (0.2, 0.1), (0.15,)), ((0.9, 0.8), (0.8, 0.9), (0.85,))
    spreads = [draws(scores).alpha[:, -1].std() for scores in (alike, apart)]
    assert spreads[0] < 0.03 and spreads[1] > 0.25
    levels = [draws(scores).alpha[:, -1].mean() for scores in (poor, good)]
    assert levels[0] < 0.3 and levels[1] > 0.7
    own = draws(poor).alpha
    assert own[:, -1].std() > 1.3 * own[:, 0].std(), "more uncertain than any that has scores"


def test_equal_groups_do_not_differ() -> None:
    """The differences between groups vanish as equal groups become many."""
    between = [
        np.sqrt(np.mean((drawn.alpha[:, -1] - drawn.mu[:, -1]) ** 2))
        for drawn in (draws(((0.4, 0.6),) * times, 4000) for times in (1, 4, 16, 64))
    ]
    assert between == sorted(between, reverse=True) and between[-1] < 0.02 < 0.1 < between[0]


def test_the_order_of_groups_does_not_matter() -> None:
    scores, order = DATA["three groups"], [2, 0, 1]
    one, other = mixed(scores), mixed([scores[i] for i in order])
    assert one.weights == pytest.approx(other.weights, rel=1e-9)
    assert one.centre == pytest.approx(other.centre, rel=1e-9)
    first = shares(one.draw(np.random.default_rng(1), 20_000).score)
    second = shares(other.draw(np.random.default_rng(2), 20_000).score)
    assert second == pytest.approx(first[[*order, 3]], abs=0.02)


@pytest.mark.parametrize(
    "scores",
    [
        ((0.0,) * 3000,),
        ((1.0,) * 500, (1.0,), ()),
        ((0.0,) * 9, (1.0,) * 9),
        ((0.3,),) * 2000,
        ((0.0, 1.0) * 1500, (0.0,)),
    ],
)
def test_scores_that_are_all_equal_or_thousands_give_finite_draws(scores: Scores) -> None:
    drawn = draws(scores, 200)
    assert all(np.isfinite(values).all() for values in drawn)
    for j, some in enumerate(scores):
        if len(some) > 8:
            assert drawn.alpha[:, j].mean() == pytest.approx(np.mean(some), abs=0.02)


def test_of_thousands_of_scores_little_is_uncertain() -> None:
    rng = np.random.default_rng(8)
    levels = rng.normal(0.5, 0.1, 10)
    scores = [rng.normal(level, 0.05, 400) for level in levels]
    drawn = posterior([group(list(some)) for some in scores]).draw(rng, 4000)
    for j, some in enumerate(scores):
        assert drawn.alpha[:, j].mean() == pytest.approx(some.mean(), abs=0.001)
        assert drawn.alpha[:, j].std() == pytest.approx(0.05 / 20, rel=0.1)
        assert drawn.score[:, j].std() == pytest.approx(0.05, rel=0.1)
    assert drawn.alpha[:, -1].std() == pytest.approx(np.std(levels), rel=0.35)


def test_draws_are_the_same_for_the_same_generator() -> None:
    one, other = (draws(DATA["alike"], 3, seed=4) for _ in range(2))
    assert (one.score == other.score).all() and (one.score != draws(DATA["alike"], 3, seed=5).score).all()


# --- the tree ---------------------------------------------------------------------------------------


def grown() -> Tree:
    """Two answers; the first was refined twice, and one of those again; one has no value."""
    tree = added(EMPTY_TREE, [(0, [Born(0.5), Born(0.25)])])
    tree = added(tree, [(1, [Born(0.75), Born(None)])])
    return added(tree, [(3, [Born(1.0)])])


def test_a_group_is_a_childs_value_and_those_of_all_below_it() -> None:
    tree = grown()
    found = {place: fitted(tree, UNIT, place).groups for place in (0, 1, 3)}
    expected: dict[int, Scores] = {0: ((0.5, 0.75, 1.0), (0.25,)), 1: ((0.75, 1.0), ()), 3: ((1.0,),)}
    for place, scores in expected.items():
        for one, other in zip(found[place], map(group, scores), strict=True):
            assert one == pytest.approx(other)
    halves = fitted(tree, Span(0.0, 2.0), 0).groups
    assert [one.mean for one in halves] == pytest.approx([0.375, 0.125])


def test_where_sums_have_lost_their_digits_the_spread_is_still_one_of_scores_from_0_to_1() -> None:
    values = [1e15 + i for i in (0.0, 1.0, 2.0, 1.0)]
    tree = added(EMPTY_TREE, [(0, [Born(value) for value in values])])
    tree = added(tree, [(1, [Born(1e15 + 1), Born(1e15 + 2)])])
    for known, _, spread in fitted(tree, Span(1e15, 1e15 + 2), 0).groups:
        assert 0 <= spread <= known / 4


def places(tree: Tree, times: int) -> Numbers:
    """How often each node is chosen."""
    model = {place: fitted(tree, UNIT, place) for place, node in enumerate(tree) if node.children}
    chosen = [branch_mixed(tree, model.__getitem__, generator(1, i)) for i in range(times)]
    return np.bincount(chosen, minlength=len(tree)) / times


def test_the_choice_is_as_likely_as_by_its_definition() -> None:
    """From the root on, and each time by the scores of the node's groups."""
    times = 1500
    root, first, third = (
        shares(draws(scores).score) for scores in (((0.5, 0.75, 1.0), (0.25,)), ((0.75, 1.0), ()), ((1.0,),))
    )
    expected = [
        root[2],
        root[0] * first[2],
        root[1],
        root[0] * first[0] * third[1],
        root[0] * first[1],
        root[0] * first[0] * third[0],
    ]
    assert sum(expected) == pytest.approx(1)
    found = places(grown(), times)
    for share, other in zip(found, expected, strict=True):
        assert share == pytest.approx(other, abs=4 * math.sqrt(other * (1 - other) / times) + 0.01)


def test_closed_nodes_are_not_gone_to_and_still_tell_of_the_others() -> None:
    tree = closed(grown(), [2, 4, 5])
    assert set(np.flatnonzero(places(tree, 200))) == {0, 1, 3}
    assert len(fitted(tree, UNIT, 0).groups) == 2
    assert set(np.flatnonzero(places(closed(tree, [0, 1]), 50))) == {3}
    assert set(np.flatnonzero(places(closed(tree, [1, 3]), 50))) == {0}, "the root, as all below it is over"


def refined(firsts: Sequence[float]) -> Tree:
    """Answers with these values, each refined to about the same three times."""
    tree = added(EMPTY_TREE, [(0, [Born(value) for value in firsts])])
    grown = [
        (place, [Born(tree[place].value + off) for off in (-0.02, 0.0, 0.02)])  # type: ignore[operator]
        for place in tree[0].children
    ]
    return added(tree, grown)


def test_it_goes_wider_where_all_are_poor_and_deeper_where_one_is_good() -> None:
    poor, good, one = (places(refined(firsts), 300)[0] for firsts in ((0.05,) * 2, (0.95,) * 2, (0.05, 0.95)))
    assert poor > 0.42 and good < 0.38
    assert one < 0.38 and places(refined((0.05, 0.05, 0.95)), 200)[[1, 2]].sum() == 0


World = Callable[[float | None, int, float], float]
"""The value of a first answer (None, and how many there are) or of a refinement of one, with noise."""


def one_good(before: float | None, firsts: int, noise: float) -> float:
    """The third answer is good, and refinements are as good as what they refine."""
    level = before if before is not None else 0.9 if firsts == 2 else 0.1
    return min(max(level + 0.03 * noise, 0.0), 1.0)


def searched(world: World, search: Branching, seed: int) -> Branched:
    state = search.start(seed)
    while wanted := search.ask(state):
        tree, came, firsts = state.tree, list[list[Born]](), len(state.tree[0].children)
        for place, times in wanted:
            noise = generator(seed, len(tree), place).standard_normal(times)
            came.append([Born(float(world(tree[place].value, firsts + i, noise[i]))) for i in range(times)])
        state = search.tell(state, came)
    return state


def test_a_search_finds_the_good_answer_and_stays_with_it() -> None:
    stayed = []
    for seed in range(8):
        tree = searched(one_good, Branching(40, variant="mixed_model"), seed).tree
        good = tree[0].children[2]
        stayed.append((tree[good].visits - 1) / (40 - good))
        assert len(tree) == 41 and (tree[good].best or 0) > 0.85
    assert np.mean(stayed) > 0.85 and min(stayed) > 0.6, "of what was made after it"


def test_answers_in_flight_do_not_count() -> None:
    """Those of a round are chosen as if each were alone, by the scores before it."""
    search = Branching(200, 40, variant="mixed_model")
    state = search.start(5)
    assert state.flying == ((0, 40),)
    state = search.tell(state, [[Born(0.02 * i) for i in range(40)]])
    model = partial(fitted, state.tree, UNIT)
    chosen = [branch_mixed(state.tree, model, generator(5, 40 + i)) for i in range(40)]
    assert dict(state.flying) == {place: chosen.count(place) for place in chosen} and len(state.flying) > 5
