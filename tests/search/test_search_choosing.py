"""How a search chooses its winner, what it holds that against, and what it never spends on; over a few stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.config import Config
from archon.errors import UserError
from archon.search.choosing import Found, Parts
from archon.search.objectives import Evaluation, Requests, Tokens, Utility
from archon.search.search import Arrived, dearest
from archon.search.settings import Spending
from archon.search.space import SearchSpace
from archon.usage import Usage
from tests.search.test_search import Made, searched

SEARCH, VALIDATION, TEST = ([f"{part}{i:02d}" for i in range(20)] for part in ("s", "v", "t"))
PARTS = Parts(tuple(SEARCH), tuple(VALIDATION), tuple(TEST))
COUNTS = {"pipeline": [{"sample": {"model": "m", "n": {"choose": [1, 2, 4]}}}, "majority_vote"]}


class Scripted(Made):
    """How many problems of a split a stack of n samples has right; what fewer have right, more have too."""

    def __init__(self, right: Mapping[int, Mapping[str, int]], tokens: int = 10) -> None:
        super().__init__()
        self._right = right
        self._tokens = tokens

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Arrived
    ) -> Sequence[Evaluation | None]:
        n = getattr(config.pipeline.nodes[0].stage, "n", 1)
        found = []
        for problem in problems:
            self.asked[repr(config.pipeline), problem] += 1
            right = float(int(problem[1:]) * 7 % 20 < self._right[n].get(problem[0], 0))
            usage = Usage(n, completion_tokens=self._tokens * n)
            found.append(Evaluation(problem, right, samples=n, usage=usage, fresh=usage))
        return found


def chosen(found: Found) -> int:
    """How many samples the winner takes."""
    assert found.winner is not None and found.winner.configuration is not None
    return int(str(found.winner.configuration["sample.n"]))


def test_who_is_second_by_a_problem_on_the_search_split_is_validated_too(tmp_path: Path) -> None:
    """All problems of the split prove nothing of others: 13 of 20 against 12 is no loss."""
    made = Scripted({1: {"s": 13, "v": 8}, 2: {"s": 12, "v": 15, "t": 14}, 4: {"s": 11, "v": 9}})
    _, found, history = searched(tmp_path, made, stacks=COUNTS, parts=PARTS)
    assert {trial.state for trial in history} == {"complete"}, "they had every problem"
    assert len(found.finalists) == 3 and len(found.validation) == 3
    assert chosen(found) == 2


def test_with_a_target_those_below_it_on_the_search_split_are_no_finalists(tmp_path: Path) -> None:
    made = Scripted({1: {"s": 11, "v": 20}, 2: {"s": 13, "v": 9}, 4: {"s": 14, "v": 9}})
    _, found, history = searched(
        tmp_path, made, stacks={**COUNTS, "limits": {"calls": 8}}, parts=PARTS,
        objectives=("accuracy", "requests"), target=0.6,
    )  # fmt: skip
    assert "complete" in {trial.state for trial in history if trial.configuration["sample.n"] == 1}
    assert chosen(found) == 2, "11 of 20 is below it, however good its luck in validation"


def test_a_target_of_utility_is_in_its_own_unit(tmp_path: Path) -> None:
    """13 of 20 right has the utility 0.3: as a share of its range it would be above the target."""
    made = Scripted({1: {"s": 13, "v": 13}, 2: {"s": 13, "v": 13}, 4: {"s": 18, "v": 18, "t": 17}})
    one, found, _ = searched(
        tmp_path, made, stacks={**COUNTS, "limits": {"calls": 8}}, parts=PARTS,
        objectives=(Utility(false_positive=1), Requests()), target=0.5,
    )  # fmt: skip
    assert one.race.rules.target == 0.75
    assert chosen(found) == 4


def test_a_tolerance_of_utility_is_in_its_own_unit(tmp_path: Path) -> None:
    race = {"tolerance": 0.5, "width": 2}
    made = Scripted({n: {"s": 10} for n in (1, 2, 4)})
    one, _, _ = searched(
        tmp_path, made, stacks=COUNTS, parts=PARTS, objectives=(Utility(false_positive=4),), race=race
    )
    assert one.race.rules.tolerance == pytest.approx(0.1), "its range is 5 wide"


def test_where_none_is_at_the_target_it_says_so(tmp_path: Path) -> None:
    made = Scripted({n: {"s": 0} for n in (1, 2, 4)})
    _, found, _ = searched(
        tmp_path, made, stacks={**COUNTS, "limits": {"calls": 8}}, parts=PARTS,
        objectives=("accuracy", "requests"), target=0.9,
    )  # fmt: skip
    assert found.winner is None and "none that was evaluated is at the target of 0.9" in found.ended


def test_without_a_validation_split_the_best_of_the_search_split_wins(tmp_path: Path) -> None:
    made = Scripted({1: {"s": 13}, 2: {"s": 12}, 4: {"s": 14}})
    parts = Parts(tuple(SEARCH), (), tuple(TEST))
    _, found, _ = searched(tmp_path, made, stacks=COUNTS, parts=parts)
    assert chosen(found) == 4


def test_another_baseline_of_the_same_name_is_another(tmp_path: Path) -> None:
    """What is kept of a baseline is kept by what it is."""
    made = Scripted({n: {"s": 10, "t": 10 + n} for n in (1, 2, 4)})

    def right(n: int) -> float:
        baseline: list[Any] = [{"sample": {"model": "m", "n": n}}, "majority_vote"]
        _, found, _ = searched(tmp_path, made, stacks=COUNTS, parts=PARTS, baselines={"vote": baseline})
        return sum(one.right for one in found.test["vote"])

    assert (right(1), right(4), right(1)) == (11, 14, 11)


def test_where_nothing_is_allowed_nothing_is_spent_and_it_says_why(tmp_path: Path) -> None:
    made = Scripted({n: {} for n in (1, 2, 4)})
    baseline = {"one": [{"sample": {"model": "m"}}]}
    stacks = {**COUNTS, "limits": {"calls": 0}}
    _, found, _ = searched(tmp_path, made, stacks=stacks, parts=PARTS, baselines=baseline)
    assert found.winner is None and not made.asked, "not even the baselines are run"
    assert "at most 0 calls are allowed" in found.ended


def test_what_has_no_bound_in_a_race_of_costs_has_failed_before_anything_is_spent(tmp_path: Path) -> None:
    """It takes part in no race, and neither does it end the search."""
    made = Scripted({n: {"s": 10} for n in (1, 2, 4)})
    _, found, history = searched(
        tmp_path,
        made,
        stacks=COUNTS,
        parts=PARTS,
        objectives=("accuracy", "tokens"),
        effort=Spending(trials=3),
    )
    assert found.winner is None and not made.asked
    assert {trial.state for trial in history} == {"failed"}
    assert all("budget: {problem: {tokens: ...}}" in trial.reason for trial in history)


@pytest.mark.parametrize(
    ("more", "bound"),
    [({"budget": {"problem": {"tokens": 900}}}, 900), ({"limits": {"tokens": 800}}, 800)],
)
def test_a_cost_is_bounded_by_the_budget_of_a_problem(more: dict[str, Any], bound: float) -> None:
    space = SearchSpace.from_data({**COUNTS, **more})
    some = next(iter(space.axes.every()))
    assert dearest(space, Tokens(), some) == bound
    with pytest.raises(UserError, match="nothing bounds"):
        dearest(SearchSpace.from_data(COUNTS), Tokens(), some)


def test_one_that_breaks_on_the_way_drops_nobody(tmp_path: Path) -> None:
    """Right on the first problems, and then it cannot run: the others are worse than that, and go on."""

    class Breaking(Scripted):
        async def evaluate(
            self, config: Config, problems: Sequence[str], arrived: Arrived
        ) -> Sequence[Evaluation | None]:
            if getattr(config.pipeline.nodes[0].stage, "n", 1) == 4 and SEARCH[8] in problems:
                raise UserError("out of memory")
            return await super().evaluate(config, problems, arrived)

    made = Breaking({1: {"s": 6, "v": 1}, 2: {"s": 5, "v": 2}, 4: {"s": 20}})
    _, found, history = searched(tmp_path, made, stacks=COUNTS, parts=PARTS, race={"first": 8, "width": 3})
    states = {json.dumps(trial.configuration["sample.n"]): trial.state for trial in history}
    assert states == {"1": "complete", "2": "complete", "4": "failed"}
    assert chosen(found) == 2


def test_what_cannot_be_run_at_the_end_is_left_out_and_said(tmp_path: Path) -> None:
    """A finalist on a problem of validation, and a baseline: the search has its winner all the same."""

    class Breaking(Scripted):
        async def evaluate(
            self, config: Config, problems: Sequence[str], arrived: Arrived
        ) -> Sequence[Evaluation | None]:
            n = getattr(config.pipeline.nodes[0].stage, "n", 1)
            if (n, problems[0][0]) in ((4, "v"), (3, "t")):
                raise UserError("the prompt is too long")
            return await super().evaluate(config, problems, arrived)

    made = Breaking({1: {"s": 9, "v": 9}, 2: {"s": 10, "v": 10}, 4: {"s": 11}})
    baseline = {"three": [{"sample": {"model": "m", "n": 3}}]}
    _, found, _ = searched(tmp_path, made, stacks=COUNTS, parts=PARTS, baselines=baseline)
    assert chosen(found) == 2 and "three" not in found.test
    assert len(found.notes) == 2 and all("too long" in note for note in found.notes)
