"""The search from end to end, over an evaluator that is a function: what it finds, what it spends, how it goes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.config import Config
from archon.errors import UserError
from archon.search.choosing import Found, Parts
from archon.search.claims import Item, Most
from archon.search.history import Direction, Trial
from archon.search.objectives import Evaluation
from archon.search.proposers.base import Proposer
from archon.search.proposers.grid import Grid
from archon.search.proposers.random_search import Random
from archon.search.racing import shuffled
from archon.search.search import Arrived, Search
from archon.search.settings import Racing, Settings, Spending
from archon.search.space import SearchSpace
from archon.search.study import Study
from archon.usage import Usage

STACKS = {
    "pipeline": [
        {
            "sample": {
                "model": "m",
                "n": {"choose": [1, 2, 4, 8, 16, 32]},
                "temperature": {"choose": [0.2, 0.6, 1.0]},
            }
        },
        {"choose": {"vote": "majority_vote", "best": [{"verify": {"verifier": "exact"}}, "best_of"]}},
    ],
    "limits": {"calls": 16},
}
PROBLEMS = [f"p{i}" for i in range(120)]
PARTS = Parts(shuffled(PROBLEMS[:60], 0), tuple(PROBLEMS[60:90]), tuple(PROBLEMS[90:]))
Truth = Callable[[Config], float]


def truth(config: Config) -> float:
    """How often a configuration is right: more samples help, and 0.6 is the best temperature."""
    sample = config.pipeline.nodes[0].stage
    n, temperature = getattr(sample, "n", 1), getattr(sample, "temperature", None)
    gain = {1: 0.0, 2: 0.05, 4: 0.15, 8: 0.3, 16: 0.45}[n]
    return 0.3 + gain + (0.2 if temperature == 0.6 else 0.0)


class Made:
    """Right by a hash: what is right for a worse configuration is right for a better one. Notes what it was asked."""

    def __init__(self, chance: Truth = truth, tokens: int | None = None, cut: int | None = None) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._chance = chance
        self._left = tokens
        self._cut = cut

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Arrived
    ) -> Sequence[Evaluation | None]:
        await asyncio.sleep(0)
        return [self._one(config, problem) for problem in problems]

    def _one(self, config: Config, problem: str) -> Evaluation | None:
        if self._cut is not None and self.asked.total() >= self._cut:
            raise RuntimeError("cut off")
        n = getattr(config.pipeline.nodes[0].stage, "n", 1)
        if self._left is not None:
            self._left -= 10 * n
            if self._left < 0:
                return None
        self.asked[repr(config.pipeline), problem] += 1
        draw = int.from_bytes(hashlib.sha256(problem.encode()).digest()[:4], "big") / 2**32
        usage = Usage(n, completion_tokens=10 * n)
        right = float(draw < self._chance(config))
        return Evaluation(problem, right, samples=n, right_samples=int(right) * n, usage=usage, fresh=usage)


def searched(
    folder: Path,
    made: Made,
    proposer: Proposer | None = None,
    baselines: Mapping[str, Any] | None = None,
    seed: int = 0,
    stacks: Mapping[str, Any] = STACKS,
    parts: Parts = PARTS,
    **settings: Any,
) -> tuple[Search, Found, list[Trial]]:
    settings = {"effort": Spending(trials=200), "race": Racing(width=4), **settings}
    given = Settings(benchmark="made", **settings)
    space = SearchSpace.from_data(stacks)
    directions: dict[str, Direction] = {
        one.name: "maximize" if one.direction == "maximise" else "minimize" for one in given.objectives
    }
    plain = {
        name: SearchSpace.from_data({"pipeline": data}).config({}) for name, data in (baselines or {}).items()
    }
    with Study.open(
        folder / "study.sqlite",
        "s",
        axes=space.axes,
        objectives=directions,
        facts={},
        seed=seed,
    ) as study:
        objectives = 1 if given.target is not None else len(given.objectives)
        one = Search(
            space,
            given,
            study,
            proposer or Random().over(space, seed=seed, objectives=objectives),
            made,
            parts,
            plain,
        )
        found = asyncio.run(one.run())
        return one, found, study.history()


def test_it_finds_the_best_within_limits_and_reports_on_problems_of_their_own(tmp_path: Path) -> None:
    made = Made()
    _one, found, history = searched(
        tmp_path, made, baselines={"one": [{"sample": {"model": "m"}}, "majority_vote"]}
    )
    assert found.winner is not None and found.winner.configuration is not None
    assert found.winner.configuration["sample.n"] == 16, "32 samples are above the limit of 16 calls"
    assert found.winner.configuration["sample.temperature"] == 0.6
    assert found.ended == "nothing is left to propose"
    assert [e.problem for e in found.test[found.winner.name]] == [*PARTS.test]
    assert {*found.test} == {found.winner.name, "one"}
    assert sum(e.right for e in found.test[found.winner.name]) > sum(e.right for e in found.test["one"])
    assert max(made.asked.values()) == 1, "nothing is evaluated twice"
    tried = {pipeline for pipeline, _ in made.asked}
    assert not any("n=32" in pipeline for pipeline in tried)
    states = Counter(trial.state for trial in history)
    assert states["complete"] + states["pruned"] == 5 * 3 * 2
    assert sum(problem in PARTS.search for _, problem in made.asked) < 30 * 60, "those that lose get no more"


def test_a_space_with_one_stack_has_a_winner(tmp_path: Path) -> None:
    """Nobody races, and it is finished all the same."""
    made = Made()
    one = {
        **STACKS,
        "limits": {"calls": 1},
        "pipeline": [{"sample": {"model": "m", "n": {"choose": [1, 2]}}}],
    }
    _, found, history = searched(tmp_path, made, stacks=one)
    assert found.winner is not None and [trial.state for trial in history] == ["complete"]
    assert len(found.test[found.winner.name]) == len(PARTS.test)


def test_a_search_that_was_cut_off_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    whole, cut = Made(), Made(cut=150)
    _, expected, _ = searched(tmp_path / "whole", whole)
    with pytest.raises(RuntimeError, match="cut off"):
        searched(tmp_path / "cut", cut)
    rest = Made()
    _, found, _ = searched(tmp_path / "cut", rest)
    assert found.winner is not None and expected.winner is not None
    assert found.winner.configuration == expected.winner.configuration
    assert found.test == expected.test
    assert (cut.asked & rest.asked).total() <= 4 * 8, "only what was under way is evaluated again"
    assert cut.asked.total() == 150

    again = Made()
    _, same, _ = searched(tmp_path / "cut", again)
    assert not again.asked and same.winner is not None
    assert same.winner.configuration == found.winner.configuration


@pytest.mark.parametrize("limit", [{"trials": 5}, {"evaluations": 90}])
def test_it_ends_with_its_effort(tmp_path: Path, limit: dict[str, int]) -> None:
    made = Made()
    _one, found, history = searched(tmp_path, made, effort=Spending(**limit), finalists=1)
    assert found.winner is not None
    if "trials" in limit:
        assert len(history) == 5 and "5 configurations" in found.ended
    else:
        on_search = sum(problem in PARTS.search for _, problem in made.asked)
        assert 90 <= on_search < 90 + 60, "but for finishing the best"
        assert "90 evaluations" in found.ended


def test_what_is_not_within_the_budget_any_more_is_no_evaluation(tmp_path: Path) -> None:
    made = Made(tokens=4000)
    one, found, _history = searched(tmp_path, made)
    assert "budget" in found.ended
    assert all(e is not None for known in one.known.values() for e in known.values())
    assert sum(e.usage.tokens for known in one.known.values() for e in known.values()) <= 4000


def test_a_target_is_reached_at_the_least_cost(tmp_path: Path) -> None:
    _, found, _ = searched(
        tmp_path,
        Made(),
        Grid().over(SearchSpace.from_data(STACKS)),
        objectives=("accuracy", "requests"),
        target=0.6,
    )
    assert found.winner is not None and found.winner.configuration is not None
    chosen = found.winner.configuration
    assert (chosen["sample.n"], chosen["sample.temperature"]) == (4, 0.6), (
        "8 are needed at other temperatures"
    )


def test_the_front_has_the_cheap_and_the_good(tmp_path: Path) -> None:
    _one, found, history = searched(tmp_path, Made(), objectives=("accuracy", "requests"), finalists=8)
    survivors = {trial.configuration["sample.n"] for trial in history if trial.state == "complete"}
    assert {1, 16} <= survivors
    assert len(found.test) > 1, "the finalists are tested, not the winner alone"


def test_a_configuration_that_cannot_run_has_failed_and_holds_nobody_up(tmp_path: Path) -> None:
    class Broken(Made):
        async def evaluate(
            self, config: Config, problems: Sequence[str], arrived: Arrived
        ) -> Sequence[Evaluation | None]:
            if getattr(config.pipeline.nodes[0].stage, "temperature", None) == 0.6:
                raise UserError("no such temperature")
            return await super().evaluate(config, problems, arrived)

    _one, found, history = searched(tmp_path, Broken())
    assert found.winner is not None and found.winner.configuration is not None
    assert found.winner.configuration["sample.temperature"] != 0.6
    failed = [trial for trial in history if trial.state == "failed"]
    assert len(failed) == 10 and all("no such temperature" in trial.reason for trial in failed)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"objectives": ("tokens",)}, "one to maximise"),
        ({"objectives": ("accuracy", "coverage")}, "followed by a cost"),
        ({"target": 0.5}, "needs a cost"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(benchmark="made", **given)


def test_what_arrived_before_a_crash_is_kept_and_in_whatever_order_it_comes_is_heard_in_one(
    tmp_path: Path,
) -> None:
    class Backwards(Made):
        """The last problem first; cut off, the rest of a batch is lost."""

        async def evaluate(
            self, config: Config, problems: Sequence[str], arrived: Arrived
        ) -> Sequence[Evaluation | None]:
            found: dict[str, Evaluation | None] = {}
            for problem in reversed(problems):
                found[problem] = one = self._one(config, problem)
                if one is not None:
                    arrived(one)
                await asyncio.sleep(0)
            return [found[problem] for problem in problems]

    cut, rest, few = Backwards(cut=45), Made(), Spending(trials=5)
    with pytest.raises(RuntimeError, match="cut off"):
        searched(tmp_path / "cut", cut, effort=few, finalists=1)
    _, found, history = searched(tmp_path / "cut", rest, effort=few, finalists=1)
    _, expected, straight = searched(tmp_path / "whole", Made(), effort=few, finalists=1)
    assert found.winner is not None and expected.winner is not None
    assert found.winner.configuration == expected.winner.configuration and found.test == expected.test
    assert {trial.key for trial in history} == {trial.key for trial in straight}
    assert not cut.asked & rest.asked, "nothing that had arrived is evaluated again"


def test_a_limit_on_trials_and_on_evaluations_is_that_of_all_processes(tmp_path: Path) -> None:
    axes = SearchSpace.from_data(STACKS).axes
    with (
        Study.open(tmp_path / "s.sqlite", "s", axes=axes, objectives={"x": "maximize"}, facts={}) as one,
        Study.open(tmp_path / "s.sqlite", "s", axes=axes, objectives={"x": "maximize"}, facts={}) as other,
    ):
        asked = list(axes.every())[:4]
        assert one.begin(asked[0], most=2) is not None and other.begin(asked[1], most=2) is not None
        assert one.begin(asked[2], most=2) is None and other.begin(asked[3], most=2) is None
        assert one.begun() == other.unfinished() == 2

        most = Most(5, problems=frozenset({"p1", "p2", "p3"}))
        items = [Item(key, problem) for key in ("a", "b") for problem in ("p1", "p2", "p3", "p9")]
        first = one.claims.claim(items[:4], most)
        assert first == items[:4]
        assert other.claims.claim(items[4:], most) == items[4:6], "those on other problems do not count"
        assert one.claims.count(most) == 5
        one.claims.release(first)
        assert other.claims.claim(items[:4], most) == items[:4], "who takes over begins nothing"
