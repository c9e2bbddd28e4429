"""The conformance suite of proposers, and a space to try them on.

A third party subclasses the suite, says how to make its proposer, and gets the whole contract:

    class TestMine(ProposerCases):
        def make(self):
            return Mine()
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import pytest

from archon.config.build import component, plain
from archon.errors import UserError
from archon.search.axes import Axes, Axis, Configuration
from archon.search.proposers.base import Proposer, Proposes, Told, rebuild


class ToySpace:
    """A space of these axes that refuses what a function says; it counts how often it was asked."""

    def __init__(
        self, axes: Sequence[Axis], refuses: Callable[[Configuration], bool] = lambda configuration: False
    ) -> None:
        self._axes = Axes(axes)
        self._refuses = refuses
        self.asked = 0

    @property
    def axes(self) -> Axes:
        """The axes."""
        return self._axes

    def refusal(self, configuration: Configuration) -> str | None:
        """What the function says."""
        self.asked += 1
        return "refused by the toy" if self._refuses(configuration) else None


def stack_space() -> ToySpace:
    """A space with every kind of axis: options, orders, logarithms, steps, real numbers, and axes within axes. About
    half of it is refused."""
    return ToySpace(
        [
            Axis("model", "choice", ("small", "big", "huge")),
            Axis("n", "int", low=1, high=64, log=True),
            Axis("temperature", "float", low=0.0, high=1.5),
            Axis("judge", "choice", (None, "vote", "best")),
            Axis("judge.k", "choice", (1, 2, 4, 8), needs=(("judge", ("best",)),)),
            Axis("judge.threshold", "float", low=0, high=1, step=0.1, needs=(("judge", ("best", "vote")),)),
            Axis("judge.votes", "int", low=1, high=9, step=2, needs=(("judge", ("vote",)),)),
        ],
        lambda c: calls_of(c) > 12,
    )


def calls_of(configuration: Configuration) -> int:
    """What a configuration of `stack_space` costs per problem; over 12 is refused."""
    factor = {"small": 1, "big": 2, "huge": 4}[str(configuration["model"])]
    own = [configuration[name] for name in ("judge.k", "judge.votes") if name in configuration]
    return factor * int(str(configuration["n"])) + sum(int(str(number)) for number in own)


def worth_of(configuration: Configuration) -> float:
    """What a configuration of `stack_space` is worth: 0 at the best, one of them near what is refused."""
    return -(
        abs(math.log(float(str(configuration["n"])) / 4))
        + abs(float(str(configuration["temperature"])) - 0.7)
        + 0.8 * (configuration["model"] != "big")
        + 0.5 * (configuration["judge"] != "best")
        + 0.3 * (configuration.get("judge.k") != 4)
        + abs(float(str(configuration.get("judge.threshold", 0.0))) - 0.4)
    )


class ProposerCases:
    """What every proposer must do. Subclass it, and say how to make one."""

    @abstractmethod
    def make(self) -> Proposes:
        """How it proposes."""
        raise NotImplementedError

    objectives = 1
    """For how many objectives it is tried."""
    complete = True
    """Whether it proposes, in the end, whatever a small space allows."""
    resumes_exactly = True
    """Whether one that is rebuilt makes the same proposals, and not only equally good ones."""
    enough = 40
    """How many proposals it is tried for, where it has so many."""

    def over(self, space: ToySpace, seed: int = 7) -> Proposer:
        """A proposer over a space."""
        return self.make().over(space, seed=seed, objectives=self.objectives)

    def told(self, configuration: Configuration) -> Told:
        """What came of a configuration of `stack_space`: some fail, and some lose a race."""
        worth = worth_of(configuration)
        if "model" in configuration and configuration["model"] == "huge" and configuration["judge"] is None:
            return Told(None, problems=3)
        values = (worth, -float(calls_of(configuration)), -worth)[: self.objectives]
        return Told(values, problems=10, finished=worth > -3, cost=1.0)

    def searched(
        self, proposer: Proposer, count: int, told: Callable[[Configuration], Told] | None = None
    ) -> Iterator[Configuration]:
        """So many proposals, each told before the next is asked for."""
        for _ in range(count):
            found = proposer.ask()
            if found is None:
                return
            yield found
            proposer.tell(found, (told or self.told)(found))

    def equal(self, configuration: Configuration) -> Told:
        """A result that says nothing."""
        return Told((0.5,) * self.objectives, problems=1)

    def test_what_it_proposes_is_allowed_and_new(self) -> None:
        space = stack_space()
        found = list(self.searched(self.over(space), self.enough))
        assert len(found) > 10
        assert len(set(found)) == len(found)
        for one in found:
            assert space.axes.configuration(one) == one
            assert space.refusal(one) is None

    def test_several_may_be_asked_for_before_any_is_told(self) -> None:
        space, seen = stack_space(), set[Configuration]()
        proposer = self.over(space)
        for _ in range(self.enough // 8 + 1):
            asked = [one for one in (proposer.ask() for _ in range(8)) if one is not None]
            assert not seen & set(asked) and len(set(asked)) == len(asked)
            assert all(space.refusal(one) is None for one in asked)
            seen |= set(asked)
            for one in reversed(asked):
                proposer.tell(one, self.told(one))
        assert len(seen) > 10

    def test_equal_asks_and_tells_give_equal_proposals(self) -> None:
        first, second = self.over(stack_space()), self.over(stack_space())
        assert list(self.searched(first, self.enough)) == list(self.searched(second, self.enough))
        ahead = [one.ask() for one in (first, second)]
        assert ahead[0] == ahead[1]

    def test_what_another_proposed_is_learnt_and_not_proposed(self) -> None:
        plain_one = list(self.searched(self.over(stack_space()), 12))
        proposer = self.over(stack_space())
        for one in plain_one[::2]:
            proposer.tell(one, self.told(one))
        found = list(self.searched(proposer, self.enough))
        assert found and not set(found) & set(plain_one[::2])

    def test_a_search_that_was_cut_off_goes_on(self) -> None:
        live = self.over(stack_space())
        before = list(self.searched(live, self.enough))
        again = rebuild(
            self.make(),
            stack_space(),
            [(one, self.told(one)) for one in before],
            seed=7,
            objectives=self.objectives,
        )
        after = list(self.searched(again, 6))
        assert not set(after) & set(before)
        if self.resumes_exactly:
            assert after == list(self.searched(live, 6))

    def test_a_small_space_is_exhausted_and_then_there_is_nothing_more(self) -> None:
        space = ToySpace(
            [
                Axis("a", "choice", ("x", "y", "z")),
                Axis("b", "int", low=0, high=3, needs=(("a", ("x", "y")),)),
                Axis("c", "float", low=0.5, high=1, step=0.25),
            ],
            lambda c: c["a"] == "y" and c["c"] == 0.75,
        )
        proposer = self.over(space)
        found = list(self.searched(proposer, 100, self.equal))
        allowed = {one for one in space.axes.every() if space.refusal(one) is None}
        assert len(set(found)) == len(found) and set(found) <= allowed
        assert not self.complete or set(found) == allowed
        assert proposer.ask() is None and proposer.ask() is None

    def test_where_nearly_everything_is_refused_it_finds_what_is_not(self) -> None:
        axes = [Axis(name, "int", low=0, high=19) for name in "abc"]
        space = ToySpace(axes, lambda c: tuple(c.values()) != (3, 14, 15))
        proposer = self.over(space)
        (found,) = self.searched(proposer, 5, self.equal)
        assert tuple(found.values()) == (3, 14, 15)

    def test_where_everything_is_refused_it_proposes_nothing(self) -> None:
        for high in (5, 0.5):
            axes = [Axis("a", "int" if high == 5 else "float", low=0, high=high)]
            proposer = self.over(ToySpace(axes, lambda c: True))
            assert proposer.ask() is None

    def test_options_are_what_they_are_and_not_what_they_equal(self) -> None:
        options = (None, True, 1, "1", 1.0, "None", "")
        space = ToySpace([Axis("odd", "choice", options), Axis("one", "choice", ("only",))])
        proposer = self.over(space)
        found = [one["odd"] for one in self.searched(proposer, 20, self.equal)]
        assert sorted(map(repr, found)) == sorted(map(repr, options))

    def test_a_space_without_a_choice_has_one_configuration(self) -> None:
        proposer = self.over(ToySpace([]))
        assert [dict(one) for one in self.searched(proposer, 5, self.equal)] == [{}]

    def test_failures_and_lost_races_do_not_stop_it(self) -> None:
        lost = Told((0.5,) * self.objectives, problems=2, finished=False)
        for result in (Told(None), lost):
            proposer = self.over(stack_space())
            assert len(list(self.searched(proposer, 15, lambda one, r=result: r))) > 5  # type: ignore[misc]

    def test_told_again_it_goes_on(self) -> None:
        proposer = self.over(stack_space())
        before = list(self.searched(proposer, 12))
        for one in before:
            proposer.tell(one, self.equal(one))
        assert not set(self.searched(proposer, 5)) & set(before)

    def test_what_is_not_of_the_space_or_no_number_is_an_error(self) -> None:
        proposer = self.over(stack_space())
        with pytest.raises(UserError):
            proposer.tell(Configuration({"model": "unheard of"}), self.equal(Configuration({})))
        asked = proposer.ask()
        assert asked is not None
        for wrong in ((), (0.5,) * (self.objectives + 1), (math.nan,) * self.objectives):
            with pytest.raises(ValueError, match="finite value"):
                proposer.tell(asked, Told(wrong))

    def test_it_is_its_configuration(self) -> None:
        made = self.make()
        assert component("proposer", plain(made)) == made
        assert hash(made) == hash(self.make())
