"""How much each choice matters, where the truth is known; and the best so far by what was spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from archon.search.axes import Axes, Axis, Configuration
from archon.search.history import State, Trial, anytime, importance

AXES = Axes(
    [
        Axis("vote", "choice", ("first", "majority", "best")),
        Axis("n", "int", low=1, high=64, log=True),
        Axis("temperature", "float", low=0, high=1),
        Axis("judged", "choice", (False, True)),
        Axis("judge", "choice", ("small", "big"), needs=(("judged", (True,)),)),
    ]
)
Draw = Callable[[np.random.Generator], Configuration]


def worth(c: Mapping[str, Any]) -> float:
    """Additive. Of the variance over even draws, in percent: vote 100 · .06/.0795, ..."""
    return (
        {"first": 0.0, "majority": 0.3, "best": 0.6}[c["vote"]]
        + 0.05 * math.log2(c["n"])
        + (0.3 if c.get("judge") == "big" else 0.0)
    )


def trials(count: int, seed: int, draw: Draw = AXES.draw, noise: float = 0.0, **more: Any) -> list[Trial]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        configuration = draw(rng)
        value = worth(configuration) + noise * rng.standard_normal()
        found.append(Trial(configuration, state="complete", values=(value,), **more))
    return found


def true_shares() -> dict[str, float]:
    """By the variances of the parts over very many even draws; `judged` by what it changes in the mean."""
    rng = np.random.default_rng(0)
    drawn = [AXES.draw(rng) for _ in range(20_000)]
    whole = float(np.var([worth(c) for c in drawn]))
    parts: dict[str, Any] = {
        "vote": np.var([0.0, 0.3, 0.6]),
        "n": np.var([0.05 * math.log2(int(str(c["n"]))) for c in drawn]),
        "temperature": 0.0,
        "judged": np.var([0.0, 0.15]),
        "judge": np.var([0.0, 0.3]) / 2,
    }
    return {name: float(part) / whole for name, part in parts.items()}


# --- importance -------------------------------------------------------------------------------------


def test_shares_are_those_of_the_function() -> None:
    expected = true_shares()
    assert sum(expected.values()) == pytest.approx(1, abs=0.02), "it is additive"
    for seed in range(5):
        found = importance(trials(200, seed), AXES)
        assert found == {name: pytest.approx(expected[name], abs=0.08) for name in expected}
        assert found["temperature"] < 0.001
        assert list(found) == sorted(found, key=lambda name: -found[name])
        assert next(iter(found)) == "vote"


def test_chance_is_no_importance() -> None:
    """In 30 trials of pure noise, the mean share of an axis is near 0; without the correction it is 3 to 7 points."""
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(200):
        noise = [Trial(AXES.draw(rng), state="complete", values=(rng.standard_normal(),)) for _ in range(30)]
        shares.append(list(importance(noise, AXES).values()))
    assert 0.0 <= np.mean(shares) < 0.025


def test_axes_that_were_chosen_together_are_told_apart() -> None:
    """A search that keeps to what is good chooses a useless option with a good one, nine times in ten."""

    def greedy(rng: np.random.Generator) -> Configuration:
        drawn = dict(AXES.draw(rng))
        if rng.random() < 0.9:
            drawn["temperature"] = 0.9 if drawn["vote"] == "best" else 0.1
        return AXES.configuration(drawn)

    found = importance(trials(200, 1, greedy, noise=0.05), AXES)
    together = np.corrcoef(
        [
            [float(str(t.configuration["temperature"])), worth(t.configuration)]
            for t in trials(200, 1, greedy)
        ],
        rowvar=False,
    )[0, 1]
    assert together > 0.5, "by itself it seems to matter"
    assert found["temperature"] < 0.01 < 0.2 < found["vote"]


def test_an_axis_is_worth_what_it_changes_where_it_matters() -> None:
    def seldom(rng: np.random.Generator) -> Configuration:
        drawn = dict(AXES.draw(rng))
        drawn["judged"] = bool(rng.random() < 0.15)
        return AXES.configuration({**drawn, "judge": ["small", "big"][int(rng.integers(2))]})

    often, rarely = importance(trials(300, 2), AXES), importance(trials(300, 2, seldom), AXES)
    assert often["judge"] > 0.05
    assert 0.1 * often["judge"] < rarely["judge"] < 0.6 * often["judge"]


def test_trials_count_by_their_problems_whatever_became_of_them() -> None:
    """Those that lost their race early say little, but are heard; failed and running ones say nothing."""
    good = trials(100, 3, problems=200)
    rng = np.random.default_rng(4)
    noisy = [
        Trial(AXES.draw(rng), state="pruned", values=(float(rng.uniform(0, 1.2)),), problems=1)
        for _ in range(100)
    ]
    failed = [Trial(AXES.draw(rng), state="failed", reason="x"), Trial(AXES.draw(rng))]
    alone, mixed = importance(good, AXES), importance([*good, *noisy, *failed], AXES)
    equal = importance([*good, *(Trial(t.configuration, values=t.values, problems=200) for t in noisy)], AXES)
    assert mixed["vote"] == pytest.approx(alone["vote"], abs=0.05)
    assert equal["vote"] < 0.7 * alone["vote"], "the weights do that"
    moved = [Trial(t.configuration, state="pruned", values=t.values, problems=200) for t in good]
    assert importance(moved, AXES) == alone


def test_of_several_objectives_one_is_asked_about() -> None:
    both = [
        Trial(t.configuration, state="complete", values=(1.0, float(str(t.configuration["temperature"]))))
        for t in trials(50, 6)
    ]
    assert set(importance(both, AXES).values()) == {0.0}, "nothing differs"
    second = importance(both, AXES, objective=1)
    assert second["temperature"] > 0.8 and max(list(second.values())[1:]) < 1e-6


def test_too_few_trials_say_nothing() -> None:
    assert importance([], AXES) == {}
    assert importance(trials(7, 0), AXES) == {}, "eight effects"
    assert importance(trials(40, 0), AXES) != {}


# --- anytime ----------------------------------------------------------------------------------------


def trial(state: State, value: float | None, tokens: int) -> Trial:
    values = None if value is None else (value, -10 * value)
    return Trial(Configuration({"n": tokens}), state=state, values=values, fresh_tokens=tokens)


def test_the_best_so_far_by_what_was_spent_so_far() -> None:
    history = [
        trial("failed", None, 5),
        trial("complete", 0.4, 100),
        trial("pruned", 0.9, 30),
        trial("complete", 0.3, 20),
        trial("complete", 0.6, 0),
        trial("complete", 0.6, 50),
        trial("complete", 0.7, 10),
    ]
    assert anytime(history) == [(105, 0.4), (155, 0.6), (215, 0.7)]
    assert anytime(history, objective=1, direction="minimize") == [(105, -4), (155, -6), (215, -7)]
    assert anytime(history, direction="minimize") == [(105, 0.4), (155, 0.3)]
    assert anytime([]) == []
