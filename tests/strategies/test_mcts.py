"""MCTS: a textbook's search beside it, its optimum in trees that deceive, and what it asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.errors import RequestRejected
from archon.stage import NONE, Count, Stage
from archon.strategies.best_of import BestOf
from archon.strategies.mcts import MCTS, Searched, uct
from archon.strategies.stepping.partial import EMPTY, Ending, Partial
from archon.strategies.stepping.search import Given, Wish, dumped, generator, loaded
from archon.strategies.stepping.tree import Born, Node, added, closed
from archon.testing import StageCases
from tests.strategies.playing import played, texts

Value = Callable[[str], float | None]
LETTERS = "abcdefgh"
GIVEN = Given(1)


@dataclass
class World:
    """A tree of letters: of so many each time, down to a depth; the i-th continuation is the i-th letter."""

    value: Value
    depth: int = 4
    width: int = 3
    ending: Callable[[str], Ending | None] | None = None
    dead: frozenset[str] = frozenset()
    seed: int = 0
    asked: list[Wish] = field(default_factory=list)

    def ended(self, text: str) -> Ending | None:
        if self.ending is not None:
            return self.ending(text)
        return "stop" if len(text) >= self.depth else None

    def partial(self, text: str) -> Partial:
        return Partial(tuple(text), (), self.value(text), self.ended(text))

    def grow(self, wishes: Sequence[Wish]) -> list[list[Partial]]:
        return [self._grown(wish) for wish in wishes]

    def _grown(self, wish: Wish) -> list[Partial]:
        assert not wish.partial.finished and wish.partial.ahead is None
        self.asked.append(wish)
        text = wish.partial.text
        if text in self.dead:
            return []
        return [self._judged(text + LETTERS[i % self.width], wish) for i in range(wish.n)]

    def _judged(self, text: str, wish: Wish) -> Partial:
        partial = self.partial(text)
        if wish.ahead == 0 or partial.finished:
            return partial
        rng = generator(self.seed, *map(ord, text))
        while self.ended(text) is None:
            text += LETTERS[rng.integers(self.width)]
        end = self.partial(text)
        return replace(partial, value=end.value, ahead=end)

    @property
    def expanded(self) -> list[str]:
        return [wish.partial.text for wish in self.asked]

    def leaves(self) -> list[str]:
        return ["".join(letters) for letters in itertools.product(LETTERS[: self.width], repeat=self.depth)]


def states(search: MCTS, world: World, given: Given = GIVEN) -> Iterator[Searched]:
    state = search.start(given)
    yield state
    while wishes := search.ask(state):
        state = search.tell(state, world.grow(wishes))
        yield state


def searched(search: MCTS, world: World, given: Given = GIVEN) -> tuple[Searched, list[str]]:
    """The last state, and the answers, the best first."""
    state = list(states(search, world, given))[-1]
    return state, [partial.text for partial in search.found(state)]


# --- trees that deceive -----------------------------------------------------------------------------

DEPTH = 5
BEST = "cbacb"
HIDDEN = {BEST: 1.0, "cbaca": 0.8, "cbabb": 0.7, "cbbcb": 0.6, "cbcaa": 0.6}


def leaf(text: str) -> float:
    """Below `a` all is middling; below `c` there is little, and the best."""
    return HIDDEN.get(text, 0.45 if text[0] == "a" else 0.3)


@cache
def deceptive(text: str) -> float:
    """What a process reward model might say: the first step `a` looks best by far; then the mean of the leaves."""
    if len(text) == 1:
        return {"a": 0.9, "b": 0.5, "c": 0.4}[text]
    rest = ["".join(letters) for letters in itertools.product("abc", repeat=DEPTH - len(text))]
    return math.fsum(leaf(text + more) for more in rest) / len(rest)


def noisy(seed: int) -> Value:
    """The same, further off the mark the shorter it is."""

    def value(text: str) -> float:
        noise = generator(seed, *map(ord, text)).normal() * 0.05 * (DEPTH - len(text))
        return min(max(deceptive(text) + noise, 0.0), 1.0)

    return value


def finds(search: MCTS, seeds: int, value: Callable[[int], Value]) -> int:
    """How often it finds the best leaf, with a third of the inner nodes expanded."""
    found = 0
    for seed in range(seeds):
        world = World(value(seed), depth=DEPTH, seed=seed)
        _, answers = searched(search, world)
        assert len(world.asked) <= 41 and search.n == 40 < 121 / 3 + 1
        found += answers[0] == BEST
    return found


MAX = MCTS(n=40, children=3, backup="max", exploration=0.7)
MAX_ROLLOUTS = MCTS(n=40, children=3, backup="max", value="rollout")


def test_the_tree_deceives_a_search_that_goes_by_first_steps() -> None:
    world = World(deceptive, depth=DEPTH)
    assert max(world.leaves(), key=leaf) == BEST and leaf(BEST) == 1.0
    assert max("abc", key=deceptive) == "a"
    for exploration in (0.0, 1e6):  # always to the best child; evenly, as a search in breadth does
        assert not finds(MCTS(n=40, children=3, exploration=exploration), 1, lambda seed: deceptive)


def test_it_finds_the_optimum() -> None:
    assert finds(MAX, 1, lambda seed: deceptive) == 1
    assert finds(MAX_ROLLOUTS, 10, lambda seed: deceptive) >= 9
    # The mean of roll-outs, as the textbook has it, is slower: most of what is below `c` is poor.
    assert 3 <= finds(MCTS(n=40, children=3, value="rollout"), 10, lambda seed: deceptive) <= 9
    world = World(deceptive, depth=DEPTH)
    assert searched(MCTS(n=60, children=3), world)[1][0] == BEST


def test_it_finds_the_optimum_where_values_are_noisy() -> None:
    assert finds(MAX, 10, noisy) >= 9 and finds(MAX_ROLLOUTS, 10, noisy) >= 9
    assert finds(MCTS(n=40, children=3, exploration=0), 10, noisy) <= 2


# --- the textbook -----------------------------------------------------------------------------------


def test_the_uct_formula() -> None:
    # 0.5 + √2 √(ln 10 / 3); ln 10 / 3 = 0.767528, its root 0.876087
    assert uct(0.5, 3, 10, math.sqrt(2)) == pytest.approx(0.5 + 1.414214 * 0.876087, abs=1e-5)
    assert uct(0.5, 3, 10, 0.0) == 0.5 and uct(0.25, 1, 1, 9.0) == 0.25


def test_a_search_computed_by_hand() -> None:
    # Root: A 0.6, B 0.5, equal bonuses: A. Then A: 3 visits, mean 0.3, of 4: 0.3 + 0.68 c; B: 0.5 + 1.18 c: B.
    # B: 0.9, 0.1 are found, so B: mean 0.5, A: mean 0.3, both 3 of 6: B; there 0.9 + √(ln 3) c before 0.1: the former.
    value = {"a": 0.6, "b": 0.5, "aa": 0.1, "ab": 0.2, "ba": 0.9, "bb": 0.1, "baa": 0.0, "bab": 0.0}
    world = World(value.__getitem__, depth=3, width=2)
    (state, *_) = [s for s in states(MCTS(n=4, children=2, exploration=1), world) if s.left == 0]
    assert world.expanded[:4] == ["", "a", "b", "ba"]
    statistics = {
        p.text: (n.visits, round(n.total, 9), n.best) for n, p in zip(state.tree, state.partials, strict=True)
    }
    assert statistics == {
        "": (8, 2.4, 0.2),
        "a": (3, 0.9, 0.2),
        "b": (5, 1.5, 0.1),
        "aa": (1, 0.1, 0.1),
        "ab": (1, 0.2, 0.2),
        "ba": (3, 0.9, 0.0),
        "bb": (1, 0.1, 0.1),
        "baa": (1, 0.0, 0.0),
        "bab": (1, 0.0, 0.0),
    }


@dataclass
class Textbook:
    """A node of a search as textbooks write it down: it changes, and knows its children."""

    text: str
    own: float
    children: list[Textbook] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    expanded: bool = False

    def exhausted(self, world: World) -> bool:
        if world.ended(self.text):
            return True
        return self.expanded and all(child.exhausted(world) for child in self.children)

    def q(self, backup: str) -> float:
        if backup == "mean":
            return self.total / self.visits
        return max((child.q(backup) for child in self.children), default=self.own)


def textbook(world: World, n: int, c: float, backup: str) -> list[str]:
    """Which nodes are expanded, in order."""
    root = Textbook("", 0.0)
    order: list[str] = []
    while len(order) < n and not root.exhausted(world):
        node, line = root, [root]
        while node.expanded:
            among = [child for child in node.children if not child.exhausted(world)]
            bonus = {k.text: c * math.sqrt(math.log(node.visits) / k.visits) for k in among}
            node = max(among, key=lambda child: child.q(backup) + bonus[child.text])
            line.append(node)
        order.append(node.text)
        node.expanded = True
        for letter in LETTERS[: world.width]:
            value = world.value(node.text + letter)
            assert value is not None
            child = Textbook(node.text + letter, value, visits=1, total=value)
            node.children.append(child)
            for above in line:
                above.visits += 1
                above.total += value
    return order


@pytest.mark.parametrize("backup", ["mean", "max"])
@pytest.mark.parametrize("c", [0.0, 0.3, 1.5])
def test_one_at_a_time_it_is_the_textbook_s(c: float, backup: str) -> None:
    for seed in range(4):
        world = World(noisy(seed), depth=DEPTH)
        searched(MCTS(n=35, children=3, exploration=c, backup=backup), world)
        expected = textbook(World(noisy(seed), depth=DEPTH), 35, c, backup)
        assert world.expanded[:35] == expected and len(set(expected)) == 35


def rough(seed: int, **settings: object) -> World:
    """Endings, failures, duplicates and values that are not known, at random."""

    def value(text: str) -> float | None:
        drawn = generator(seed, 1, *map(ord, text)).random()
        return None if drawn < 0.15 else drawn

    def ending(text: str) -> Ending | None:
        drawn = generator(seed, 2, *map(ord, text)).random()
        if len(text) >= 6:
            return "steps"
        return "stop" if drawn < 0.15 else "length" if drawn < 0.2 else None

    dead = frozenset(
        "".join(letters)
        for letters in itertools.product("ab", repeat=3)
        if generator(seed, 3, *map(ord, letters)).random() < 0.3
    )
    return World(value, width=2, ending=ending, dead=dead, seed=seed)


def below(tree: Sequence[Node], place: int) -> list[float]:
    node = tree[place]
    own = [] if node.value is None else [node.value]
    return own + [value for child in node.children for value in below(tree, child)]


def checked(state: Searched, reached: bool) -> None:
    """What is kept of each node is what its part of the tree says."""

    def best(place: int) -> float | None:
        node = state.tree[place]
        found = [b for child in node.children if (b := best(child)) is not None]
        if node.value is not None and (reached or not found):
            found.append(node.value)
        return max(found, default=None)

    for place, node in enumerate(state.tree):
        assert node.visits == (place != 0) + sum(state.tree[child].visits for child in node.children)
        values = below(state.tree, place)
        assert node.known == len(values)
        assert node.total == pytest.approx(math.fsum(values))
        assert node.squares == pytest.approx(math.fsum(value * value for value in values))
        assert node.best == best(place)
        assert node.over == (node.closed and all(state.tree[child].over for child in node.children))
        assert all(state.tree[child].parent == place for child in node.children)
        assert node.closed or not state.partials[place].finished
    assert state.tree[0].visits == len(state.tree) - 1 == len(state.partials) - 1


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("value", ["reward", "rollout"])
@pytest.mark.parametrize("backup", ["mean", "max"])
def test_statistics_are_those_of_the_tree_whatever_happens(batch: int, value: str, backup: str) -> None:
    for seed in range(3):
        search, world = MCTS(n=30, children=3, batch=batch, value=value, backup=backup), rough(seed)
        for state in states(search, world):
            checked(state, value == "rollout")
            rest = loaded(Searched, dumped(state))
            assert rest == state
        expanded = [wish.partial.text for wish in world.asked if wish.n == 3]
        assert len(expanded) == len(set(expanded)) <= 30, "none is expanded twice, dead ones included"
        assert all(state.partials[place].text == "" or place for place in state.chosen)


def test_a_search_goes_on_from_its_dumped_state() -> None:
    search = MCTS(n=12, children=3, batch=2)
    whole = World(noisy(3), depth=DEPTH)
    some = list(states(search, whole))
    world, state = World(noisy(3), depth=DEPTH), loaded(Searched, dumped(some[3]))
    while wishes := search.ask(state):
        state = search.tell(state, world.grow(wishes))
    assert state == some[-1] and world.expanded == whole.expanded[6 - 1 :]


# --- virtual loss -----------------------------------------------------------------------------------


def test_virtual_loss_turns_the_second_of_a_round_elsewhere() -> None:
    # A 0.9 with 0.9 and 0.89 below it; B 0.65. With c = 0.1, of 4 visits: A 0.897 + 0.068, B 0.65 + 0.118: below A.
    # One in flight there is a visit more that found 0: A 2.69 / 4 = 0.673 + 0.063, B 0.65 + 0.127: B.
    value = {"a": 0.9, "b": 0.65, "aa": 0.9, "ab": 0.89}
    expanded = {}
    for batch in (1, 2):
        world = World(lambda text: value.get(text, 0.895), depth=4, width=2)
        (search, given) = MCTS(n=4, children=2, exploration=0.1, batch=batch), Given()
        state = search.start(given)
        for _ in range(2):  # the root, then A; a round of two has A and B
            state = search.tell(replace(state, chosen=state.chosen[:1]), world.grow(search.ask(state)[:1]))
        expanded[batch] = [state.partials[place].text for place in state.chosen]
    assert expanded == {1: ["aa"], 2: ["aa", "b"]}


def test_a_round_spreads_over_different_nodes_and_is_told_together() -> None:
    world = World(noisy(1), depth=DEPTH)
    search = MCTS(n=22, children=3, batch=5)
    sizes = [len(search.ask(state)) for state in states(search, world)]
    assert sizes[:6] == [1, 3, 5, 5, 5, 3], "no more than there are leaves, and than are left"
    assert len(set(world.expanded[:22])) == 22
    first = {text[:1] for text in world.expanded[1:12]}
    assert first == {"a", "b", "c"}
    narrow = World(noisy(1), depth=DEPTH)
    searched(search.model_copy(update={"batch": 1, "exploration": 0.0}), narrow)
    assert {text[:1] for text in narrow.expanded[1:4]} == {"a"}


# --- ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["reward", "rollout"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_tree_that_is_finished_ends_the_search(value: str, batch: int) -> None:
    world = World(lambda text: len(text) / 9, depth=3, width=2)
    search = MCTS(n=100_000, children=2, value=value, batch=batch)
    state, found = searched(search, world)
    assert sorted(world.expanded) == sorted(["", "a", "b", "aa", "ab", "ba", "bb"])
    assert state.tree[0].over and set(found) == set(world.leaves()) and not search.ask(state)
    if value == "reward":
        assert len(found) == 8


def test_what_is_finished_takes_no_part_in_selection() -> None:
    # The first step `a` is a whole answer, and looks best: nothing more is asked of it.
    world = World(
        lambda text: 1.0 if text == "a" else 0.1,
        ending=lambda text: "stop" if text in ("a",) or len(text) > 2 else None,
    )
    _, found = searched(MCTS(n=8, children=3), world)
    assert world.expanded[0] == "" and len(world.expanded) == 8
    assert all(not text.startswith("a") for text in world.expanded) and found[0] == "a"


def test_what_was_rolled_out_is_an_answer() -> None:
    world = World(noisy(0), depth=DEPTH)
    state, found = searched(MCTS(n=2, children=3, value="rollout"), world)
    assert [wish.ahead for wish in world.asked] == [None, None] and not any(w.greedy for w in world.asked)
    assert len(found) == 6 and {len(text) for text in found} == {DEPTH}
    values = [partial.value for partial in MCTS().found(state)]
    assert values == sorted(values, key=lambda value: -(value or 0.0))
    assert all(partial.ahead is None for partial in state.partials)


def test_where_no_answer_was_met_the_line_most_visited_is_completed() -> None:
    value = {"a": 0.1, "b": 0.3, "c": 0.8, "ca": 0.2, "cb": 0.2, "cc": 0.2}
    world = World(lambda text: value.get(text, 0.5), depth=DEPTH)
    state, found = searched(MCTS(n=2, children=3), world)
    assert [(w.partial.text, w.n, w.ahead) for w in world.asked] == [("", 3, 0), ("c", 3, 0), ("ca", 1, None)]
    assert len(found) == 1 and len(found[0]) == DEPTH and found[0].startswith("caa") and state.left == 0


def test_what_was_cut_off_comes_after_what_is_whole_and_is_no_answer() -> None:
    def ending(text: str) -> Ending | None:
        return "length" if text == "a" else "stop" if len(text) == 3 else None

    world = World(lambda text: 0.9 if text == "a" else 0.2, ending=ending)
    search = MCTS(n=1, children=3)
    _, found = searched(search, world)
    assert world.asked[-1].ahead is None and found[1:] == ["a"] and found[0].startswith("ba")
    cut = World(lambda text: 0.5, ending=lambda text: "length" if len(text) > 1 else None)
    assert searched(search, cut)[1] == ["aa", "a", "b", "c"], "as far as it came"


def test_a_search_that_is_cut_off_gives_its_leaves_the_best_first() -> None:
    world = World({"a": 0.2, "b": 0.9, "c": 0.5}.__getitem__, depth=DEPTH)
    search = MCTS(n=9, children=3)
    state = search.start(Given())
    assert search.found(state) == []
    state = search.tell(state, world.grow(search.ask(state)))
    assert [partial.text for partial in search.found(state)] == ["b", "c", "a"]


# --- what goes wrong --------------------------------------------------------------------------------


def test_a_dead_beginning_is_not_asked_for_again() -> None:
    world = World(deceptive, depth=DEPTH, dead=frozenset({"a", "ba"}))
    state, found = searched(MCTS(n=400, children=3), world)
    assert world.expanded.count("a") == world.expanded.count("ba") == 1 and state.tree[0].over
    assert set(found) == {text for text in world.leaves() if not text.startswith(("a", "ba"))}
    nothing = World(deceptive, depth=DEPTH, dead=frozenset({""}))
    assert searched(MCTS(n=9, children=3), nothing)[1] == [] and nothing.expanded == [""]


def test_fewer_than_were_wanted_and_equal_ones() -> None:
    search = MCTS(n=3, children=4)
    state = search.start(Given())
    twice = [Partial(("a",), (), 0.4), Partial(("a",), (), 0.4, samples=("other",)), Partial(("b",), (), 0.3)]
    state = search.tell(state, [twice])
    assert [partial.text for partial in state.partials] == ["", "a", "b"] and state.tree[0].visits == 2
    ends = [Partial(("a", "x"), (), 0.4, "stop", samples=(i,)) for i in "pq"]
    state = search.tell(state, [ends])
    assert state.tree[1].visits == 2 and len(search.found(state)) == 2, (
        "one child, and two samples of the answer"
    )


def test_a_value_that_is_not_known_is_its_parents() -> None:
    known = {"a": 0.2, "b": None, "c": 0.4, "ca": None, "cb": math.inf, "cc": math.nan}
    world = World(known.__getitem__, depth=DEPTH)
    search = MCTS(n=2, children=3, exploration=1.0)
    state = search.tell(search.start(Given()), world.grow([Wish(EMPTY, 3)]))
    assert state.tree[0].known == 2 and state.tree[0].visits == 3
    assert [state.partials[place].text for place in state.chosen] == ["c"], "b counts as 0.3"
    state = search.tell(state, world.grow(search.ask(state)))
    assert state.tree[0].known == 2 and state.tree[0].total == pytest.approx(0.6)


@pytest.mark.parametrize("backup", ["mean", "max"])
def test_uncalibrated_values_are_taken_relative_to_each_other(backup: str) -> None:
    search = MCTS(n=30, children=3, backup=backup)

    def order(scale: float, shift: float) -> list[str]:
        world = World(lambda text: shift + scale * (noisy(2)(text) or 0.0), depth=DEPTH)
        searched(search, world, Given(1, calibrated=False))
        return world.expanded

    assert order(1, 0) == order(128, -64) == order(2**-20, 0)
    flat = World(lambda text: 7.0, depth=DEPTH)
    searched(search, flat, Given(1, calibrated=False))
    assert len(flat.expanded[:30]) == 30


def test_a_tree_is_a_value() -> None:
    tree = added((Node(),), [(0, [Born(0.5), Born(0.25, closed=True)])])
    shut = closed(tree, [0, 1])
    assert not tree[0].closed and shut[0].over and shut[1].over and not tree[1].over
    assert added(tree, [(1, [])]) == tree and added(tree, []) == tree


# --- the stage --------------------------------------------------------------------------------------

WORDS = ("two", "six", "ten")


def writer(depth: int = 3, **fails: str) -> Scripted:
    """Lines of one word; an answer has so many. A beginning whose last line is in `fails` cannot be continued."""

    def reply(call: Call) -> Reply | Exception:
        prefix = call.request.prefix
        if prefix.splitlines()[-1:] == [fails.get("at")]:
            return RequestRejected("no", status=400)
        lines = prefix.count("\n")
        words = [WORDS[(call.index + i) % 3] for i in range(depth - lines)]
        if "\n" not in call.request.sampling.stop:
            return Reply("\n".join(words))
        return Reply(words[0]) if lines == depth - 1 else Reply(words[0], finish="stop_string", stop="\n")

    return Scripted(reply=reply, identity=f"writer {depth} {fails}")


def judge() -> Scripted:
    return Scripted(score=lambda text: (text.count("ten") + text.count("six") / 2) / 4, identity="judge")


def models(**settings: str) -> Mapping[str, Model]:
    return {"default": writer(**settings), "reward": judge()}  # type: ignore[arg-type]


def test_it_calls_as_documented() -> None:
    outcome = played(MCTS(n=3, children=3, exploration=0) | BestOf(), models())
    # The root, `ten`, `ten ten`: 3 × 3 calls and scores.
    assert outcome.by_model["default"].requests == 9 and outcome.by_model["reward"].requests == 9
    assert outcome.answer == "ten\nten\nten" and outcome.chosen is not None
    assert outcome.chosen.steps == ("ten\n", "ten\n", "ten") and outcome.chosen.score() == 0.75
    assert len(outcome.candidates) == 3 and outcome.stopped == "complete"


def test_rollouts_cost_a_second_call_for_each_child_that_is_not_finished() -> None:
    outcome = played(MCTS(n=2, children=3, value="rollout"), models())
    assert outcome.by_model["default"].requests == 2 * 3 * 2
    assert outcome.by_model["reward"].requests <= 2 * 3
    assert len(outcome.final) == 6 and all(candidate.text.count("\n") == 2 for candidate in outcome.final)
    ends = played(MCTS(n=9, children=3, value="rollout"), models(depth=1))  # type: ignore[arg-type]
    assert ends.by_model["default"].requests == 3, (
        "what is finished is not rolled out, and there is nothing more"
    )


def test_a_completion_costs_two_calls_and_a_score() -> None:
    outcome = played(MCTS(n=1, children=3), models())
    assert outcome.by_model["default"].requests == 3 + 2 and outcome.by_model["reward"].requests == 3 + 1
    assert texts(outcome.final) == ["ten\n" + outcome.final[0].text[4:]] and outcome.final[0].finish == "stop"


def test_its_plan() -> None:
    def plan(**fields: Any) -> tuple[Count, Count]:
        return MCTS(n=16, children=4, **fields).plan(NONE)

    assert plan() == (Count(1, 64 + 2 + 64 + 1), Count(0, 65))
    assert plan(value="rollout") == (Count(1, 2 * 64 + 2 + 64 + 1), Count(0, 65))
    assert plan(reward=None) == (Count(1, 64 + 2), Count(0, 65))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_failing_beginning_ends_nothing_else(batch: int) -> None:
    outcome = played(MCTS(n=30, children=3, batch=batch), models(at="ten"))
    assert len(outcome.failures) == 9 and outcome.answer is not None  # after ten, two-ten and six-ten
    assert {text.splitlines()[0] for text in texts(outcome.final)} == {"two", "six"}
    assert len(outcome.final) == 2 * 2 * 3


@pytest.mark.parametrize("requests", [1, 4, 7, 12, 20])
def test_where_the_budget_ends_there_is_what_was_found(requests: int) -> None:
    outcome = played(MCTS(n=30, children=3), models(), requests=requests)
    assert outcome.usage.requests <= requests and outcome.stopped == "budget"
    assert outcome.final


def test_a_replay_makes_no_call(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = tmp_path / "store.sqlite"
    runs = [played(MCTS(n=5, children=3, batch=2), models(), store=store) for _ in range(2)]
    assert runs[1].fresh.requests == 0 and runs[0].usage.requests == runs[1].usage.requests
    assert texts(runs[0].candidates) == texts(runs[1].candidates)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        {"children": 1},
        {"n": 0},
        {"exploration": -1},
        {"exploration": math.inf},
        {"batch": 0},
        {"value": "x"},
    ):
        with pytest.raises(ValidationError):
            MCTS(**wrong)


class TestMCTS(StageCases):
    def make_stage(self) -> Stage:
        return MCTS(n=3, children=2, exploration=0.5, batch=2, backup="max")

    def models(self) -> Mapping[str, Model]:
        return models()

    async def test_one_candidate_is_enough(self) -> None:
        assert (await self.run_stage(self.make_stage(), ("only",))).final


class TestRollouts(TestMCTS):
    def make_stage(self) -> Stage:
        return MCTS(n=2, children=2, value="rollout")
