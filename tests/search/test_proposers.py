"""Every proposer keeps the contract; and what is each one's own."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import warnings

import pytest

from archon import registry
from archon.errors import ConfigError, MissingExtra, UserError
from archon.search.axes import Axis, Configuration
from archon.search.objectives import Accuracy, Tokens
from archon.search.proposers import Proposes, Told, preferring, rebuild
from archon.search.proposers.base import Heeding
from archon.search.proposers.evolve import Evolve
from archon.search.proposers.frugal import Frugal
from archon.search.proposers.greedy import Greedy
from archon.search.proposers.grid import Grid, coarse_first
from archon.search.proposers.optuna_sampler import CMAES, GP, NSGAII, TPE
from archon.search.proposers.portfolio import Portfolio
from archon.search.proposers.preferring import Preferring
from archon.search.proposers.random_search import Random
from archon.search.settings import Settings
from archon.search.testing import ProposerCases, ToySpace, calls_of, stack_space, worth_of

NO_TORCH = importlib.util.find_spec("torch") is None


class TestRandom(ProposerCases):
    enough = 300

    def make(self) -> Proposes:
        return Random()


class TestGrid(ProposerCases):
    enough = 300

    def make(self) -> Proposes:
        return Grid(points=7)


class TestGreedy(ProposerCases):
    complete = False

    def make(self) -> Proposes:
        return Greedy(restarts=3, passes=2)


class TestEvolve(ProposerCases):
    enough = 150

    def make(self) -> Proposes:
        return Evolve(startup=5)


class TestEvolveTwo(TestEvolve):
    objectives = 2


class TestTPE(ProposerCases):
    enough = 25

    def make(self) -> Proposes:
        return TPE(startup=8)


class TestTPETwo(TestTPE):
    objectives = 2


class TestCMAES(ProposerCases):
    resumes_exactly = False

    def make(self) -> Proposes:
        return CMAES(population=5)


class TestNSGAII(ProposerCases):
    enough = 60

    def make(self) -> Proposes:
        return NSGAII(population=6)


class TestNSGAIITwo(TestNSGAII):
    objectives = 2


class TestFrugal(ProposerCases):
    enough = 24

    def make(self) -> Proposes:
        return Frugal(pool=200)


class TestFrugalTwo(TestFrugal):
    objectives = 2


class TestPortfolio(ProposerCases):
    def make(self) -> Proposes:
        return Portfolio(of=(TPE(startup=4), Random(), Evolve(), Greedy()))


@pytest.mark.skipif(NO_TORCH, reason="GP needs torch, which is not installed")
class TestGP(ProposerCases):
    enough = 14

    def make(self) -> Proposes:
        return GP(startup=8)


@pytest.mark.skipif(NO_TORCH, reason="GP needs torch, which is not installed")
class TestGPTwo(TestGP):
    objectives = 2


@pytest.mark.skipif(not NO_TORCH, reason="torch is installed")
def test_without_torch_gp_says_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"'gp' needs torch.*pip install 'archon\[gp\]'"):
        GP().over(stack_space())


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    for one in (TPE(), GP(), CMAES(), NSGAII()):
        with pytest.raises(MissingExtra, match=r"needs optuna.*pip install 'archon\[search\]'"):
            one.over(stack_space())


def test_optuna_is_imported_only_where_it_proposes() -> None:
    code = (
        "import sys, archon.search.proposers.optuna_sampler as o, archon.search.proposers.portfolio\n"
        "o.TPE(); assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_proposer_is_found_by_its_name() -> None:
    names = registry.names("proposer")
    assert {
        "random",
        "grid",
        "greedy",
        "evolve",
        "frugal",
        "tpe",
        "gp",
        "cma_es",
        "nsga_ii",
        "portfolio",
    } <= set(names)
    for name in names:
        assert registry.find("proposer", name).name == name


def test_a_wrong_setting_is_an_error() -> None:
    with pytest.raises(ConfigError):
        Portfolio(of=({"tpe": {"strtup": 3}},))
    with pytest.raises(UserError, match="seed"):
        Random().over(stack_space(), seed=-1)


# --- one objective, or several ---------------------------------------------------------------------


@pytest.mark.parametrize("one", [Greedy(), CMAES(), Portfolio(of=(Random(), Greedy()))])
def test_what_improves_one_objective_refuses_several(one: Proposes) -> None:
    with pytest.raises(UserError, match="improves one objective, and there are 2"):
        one.over(stack_space(), objectives=2)


# --- random and grid -------------------------------------------------------------------------------


def test_random_search_is_even_over_each_axis() -> None:
    space = ToySpace(
        [
            Axis("a", "choice", ("x", "y", "z")),
            Axis("b", "float", low=0, high=1, needs=(("a", ("x",)),)),
            Axis("c", "float", low=1, high=1000, log=True),
        ]
    )
    proposer = Random().over(space, seed=3)
    found = [one for one in (proposer.ask() for _ in range(3000)) if one is not None]
    share = sum(one["a"] == "x" for one in found) / 3000
    assert abs(share - 1 / 3) < 0.035  # four standard errors
    low = sum(float(str(one["c"])) < 10 for one in found) / 3000
    assert abs(low - 1 / 3) < 0.035


def test_a_lost_proposal_is_made_again_by_the_one_that_is_rebuilt() -> None:
    live = Random().over(stack_space(), seed=5)
    found = [one for one in (live.ask() for _ in range(6)) if one is not None]
    told = [(one, Told((0.0,))) for place, one in enumerate(found) if place != 2]
    again = rebuild(Random(), stack_space(), told, seed=5)
    assert again.ask() == found[2]
    assert again.ask() == live.ask()


def test_the_grid_is_coarse_first() -> None:
    assert [v for _, v in coarse_first(Axis("n", "int", low=1, high=9), 5)] == [1, 9, 5, 3, 7, 2, 4, 6, 8]
    assert [level for level, _ in coarse_first(Axis("n", "int", low=1, high=9), 5)] == [
        0,
        0,
        1,
        2,
        2,
        3,
        3,
        3,
        3,
    ]
    assert [v for _, v in coarse_first(Axis("m", "choice", ("a", "b", "c")), 5)] == ["a", "b", "c"]
    assert [v for _, v in coarse_first(Axis("k", "choice", (1, 4, 16)), 5)] == [1, 16, 4]
    assert [v for _, v in coarse_first(Axis("t", "float", low=1, high=100, log=True), 3)] == [1, 100, 10]
    axes = [Axis("a", "int", low=0, high=2), Axis("b", "int", low=0, high=2)]
    proposer = Grid().over(ToySpace(axes))
    found = [tuple(one.values()) for one in (proposer.ask() for _ in range(9)) if one is not None]
    assert found == [(0, 0), (0, 2), (2, 0), (2, 2), (0, 1), (2, 1), (1, 0), (1, 2), (1, 1)]
    assert proposer.ask() is None


# --- Optuna's --------------------------------------------------------------------------------------


def test_cma_es_says_what_it_cannot_learn() -> None:
    (note,) = CMAES().over(stack_space()).notes
    assert "'model', 'judge'" in note and "'n'" not in note and "judge.k" not in note
    names = ToySpace([Axis("a", "choice", ("x", "y"))])
    assert "random search" in CMAES().over(names).notes[0]
    numbers = ToySpace([Axis("a", "float", low=0, high=1), Axis("b", "choice", (1, 2, 4))])
    assert not CMAES().over(numbers).notes


def test_optuna_says_nothing_and_its_settings_stay_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in (TPE(startup=2), CMAES(), NSGAII(population=2)):
            proposer = one.over(stack_space())
            for _ in range(6):
                found = proposer.ask()
                assert found is not None
                proposer.tell(found, Told((worth_of(found),)))
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("one", [TPE(startup=4), CMAES(population=4), NSGAII(population=4)])
def test_a_long_search_begins_anew_and_is_rebuilt_the_same(
    one: Proposes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archon.search.proposers import optuna_sampler

    for name, value in (("EPOCH", 20), ("BEST", 5), ("NEWEST", 5)):
        monkeypatch.setattr(optuna_sampler, name, value)
    live = one.over(stack_space(), seed=1)
    history = []
    for _ in range(50):
        found = live.ask()
        assert found is not None
        history.append((found, Told((worth_of(found),))))
        live.tell(*history[-1])
    assert len({configuration for configuration, _ in history}) == 50
    again = rebuild(one, stack_space(), history, seed=1)
    if one.name != "cma_es":
        assert [again.ask() for _ in range(3)] == [live.ask() for _ in range(3)]


# --- a portfolio -----------------------------------------------------------------------------------


def test_a_portfolio_takes_turns_and_passes_over_who_is_through() -> None:
    space = ToySpace([Axis("a", "int", low=0, high=3)])
    proposer = Portfolio(of=(Greedy(), Grid())).over(space)
    first, second = proposer.ask(), proposer.ask()
    assert first == Configuration({"a": 0}) and second == Configuration({"a": 3})
    rest = [proposer.ask() for _ in range(3)]
    assert {one["a"] for one in rest if one is not None} == {1, 2} and rest[2] is None


def test_who_proposes_where_the_file_does_not_say() -> None:
    settings = Settings(benchmark="lab/arith")
    finite, large = kinds().axes, ToySpace([Axis(name, "int", low=0, high=60) for name in "ab"]).axes
    assert settings.proposing(finite) == Frugal()
    assert settings.proposing(large) == settings.proposing(stack_space().axes) == TPE()
    two = Settings(benchmark="lab/arith", objectives=(Accuracy(), Tokens()))
    assert two.proposing(finite) == TPE()
    one = settings.model_copy(update={"proposers": (Random(),)})
    assert one.proposing(finite) == Random()
    several = settings.model_copy(update={"proposers": (Random(), TPE())})
    assert several.proposing(finite) == Portfolio(of=(Random(), TPE()))


# --- what a configuration costs anew ---------------------------------------------------------------


def kinds() -> ToySpace:
    """Six kinds of samples, how many of them, and what is done with them."""
    return ToySpace(
        [
            Axis("kind", "choice", tuple("abcdef")),
            Axis("n", "choice", (2, 4, 8, 16)),
            Axis("way", "choice", tuple("xyz")),
        ]
    )


def paid_for_the_best(seed: int, told_prices: bool) -> float:
    """What a search pays until it has one of the best: two kinds are as good, one costs twenty times as much, and what
    was sampled is kept."""
    have = dict.fromkeys("abcdef", 0)

    def price(one: Configuration) -> float:
        beyond = max(0, int(str(one["n"])) - have[str(one["kind"])])
        return float(beyond * (20 if str(one["kind"]) in "abc" else 1))

    proposer = Frugal().over(kinds(), seed=seed)
    assert isinstance(proposer, Heeding)
    if told_prices:
        proposer.heed(price)
    paid = 0.0
    for _ in range(72):
        one = proposer.ask()
        assert one is not None
        paid += price(one)
        have[str(one["kind"])] = max(have[str(one["kind"])], int(str(one["n"])))
        value = (
            "fbdace".index(str(one["kind"])) // 2
            + "xzy".index(str(one["way"]))
            + math.log2(int(str(one["n"])))
        )
        if value == 8:
            return paid
        proposer.tell(one, Told((value,)))
    raise AssertionError("it proposed everything, and never the best")


def test_who_knows_prices_pays_less_for_the_best() -> None:
    told = sorted(paid_for_the_best(seed, True) for seed in range(7))
    untold = sorted(paid_for_the_best(seed, False) for seed in range(7))
    assert told[3] < 0.5 * untold[3], (told, untold)


def test_where_nothing_is_known_the_cheapest_comes_first() -> None:
    space = kinds()
    for seed in range(3):
        proposer = preferring(
            Frugal(), space, lambda c: 1.0 + ord(str(c["kind"])) + float(str(c["n"])), seed=seed
        )
        found = proposer.ask()
        assert found is not None and found["kind"] == "a" and found["n"] == 2


def test_several_that_are_asked_for_at_once_differ() -> None:
    space = kinds()
    proposer = Frugal().over(space)
    asked = [found for found in (proposer.ask() for _ in range(12)) if found is not None]
    assert len({one["kind"] for one in asked}) >= 4 and len({one["n"] for one in asked}) >= 3


def test_a_portfolio_hands_prices_on() -> None:
    space = kinds()
    proposer = preferring(Portfolio(of=(Frugal(), Random())), space, lambda c: float(c["kind"] != "d"))
    found = proposer.ask()
    assert found is not None and found["kind"] == "d"


# --- what is paid for goes first -------------------------------------------------------------------


@pytest.mark.parametrize("one", [Random(), Grid(points=4)])
def test_the_cheapest_of_a_window_goes_first_and_none_is_lost(one: Proposes) -> None:
    model, _, _, *judge = stack_space().axes
    space = ToySpace([model, Axis("n", "choice", (1, 2, 4, 8)), *judge])
    plain_one = one.over(space)
    wanted = list(iter(plain_one.ask, None))
    proposer = preferring(one, space, calls_of, window=8, patience=24)
    found = list(iter(proposer.ask, None))
    assert len(wanted) == 3 * 4 * (1 + 4 * 11 + 11 * 5)
    assert sorted(one.key for one in found) == sorted(one.key for one in wanted)
    places = {one: place for place, one in enumerate(found)}
    for place, waited in enumerate(wanted):  # nobody waits for more than the window and its patience
        assert places[waited] - place <= 8 + 24
    ahead = preferring(one, space, calls_of, window=100, patience=1000)
    early = [found for found in (ahead.ask() for _ in range(100)) if found is not None]
    assert sum(map(calls_of, early)) < 0.8 * sum(map(calls_of, wanted[:100]))


def test_prices_are_asked_anew_since_what_is_paid_for_grows() -> None:
    space = ToySpace([Axis("a", "choice", ("x", "y")), Axis("b", "int", low=0, high=9)])
    paid: set[object] = set()
    proposer = preferring(Grid(), space, lambda c: 0.0 if c["a"] in paid else 1.0, window=20, patience=100)
    assert proposer.ask() == Configuration({"a": "x", "b": 0})
    paid.add("y")
    assert [one["a"] for one in (proposer.ask() for _ in range(10)) if one is not None] == ["y"] * 10


def test_what_waits_and_is_told_of_by_another_is_not_proposed() -> None:
    space = ToySpace([Axis("b", "int", low=0, high=9)])
    proposer = preferring(Grid(), space, lambda c: 1.0, window=20)
    proposer.ask()
    for number in (1, 2, 3):
        proposer.tell(Configuration({"b": number}), Told((0.0,)))
    assert {one["b"] for one in (proposer.ask() for _ in range(9)) if one is not None} == {4, 5, 6, 7, 8, 9}


def test_a_proposer_that_learns_is_not_asked_ahead() -> None:
    assert not isinstance(preferring(TPE(), stack_space(), lambda c: 1.0), Preferring)
    assert not isinstance(
        preferring(Portfolio(of=(Random(), TPE())), stack_space(), lambda c: 1.0), Preferring
    )
    assert isinstance(preferring(Portfolio(of=(Random(), Grid())), stack_space(), lambda c: 1.0), Preferring)
