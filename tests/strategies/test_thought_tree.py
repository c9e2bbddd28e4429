"""The search of Tree of Thoughts, in worlds made by hand: no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.strategies.stepping.search import dumped, loaded
from archon.strategies.thought_tree import (
    ROOT,
    Breadth,
    Depth,
    Level,
    Search,
    State,
    Tree,
    distinct,
    expansions_of,
    levels_of,
)

Value = Callable[[str], float | None]
"""What a state is worth, by its thoughts written as one word."""


def grown(state: State, letters: str, value: Value) -> list[State]:
    way = ("".join(state.thoughts) + letter for letter in letters)
    return [State(tuple(word), value(word)) for word in way]


def searched(search: Search, letters: str, value: Value) -> tuple[list[str], list[list[str]]]:
    """The leaves, best first, and what was continued, round by round."""
    tree, rounds = Tree(), list[list[str]]()
    while wanted := search.ask(tree):
        rounds.append(["".join(state.thoughts) for state in wanted])
        tree = search.tell(tree, [grown(state, letters, value) for state in wanted])
        assert loaded(Tree, dumped(tree)) == tree
    assert tree.expanded == sum(map(len, rounds))
    return ["".join(state.thoughts) for state in search.found(tree)], rounds


def vowels(word: str) -> float:
    """How many letters are `a`."""
    return word.count("a") / 10


# --- breadth-first ----------------------------------------------------------------------------------


def test_the_best_of_each_level_go_on() -> None:
    leaves, rounds = searched(Breadth(2, 3), "bac", vowels)
    assert rounds == [[""], ["a", "b"], ["aa", "ab"]]
    assert leaves == ["aaa", "aab"]


def test_a_level_that_is_wide_enough_loses_nothing() -> None:
    words = ["".join(word) for n in (1, 2, 3) for word in product("abc", repeat=n)]
    scores = {word: crc32(word.encode()) / 2**32 for word in words}
    leaves, rounds = searched(Breadth(27, 3), "abc", scores.__getitem__)
    assert list(map(len, rounds)) == [1, 3, 9]
    assert leaves == sorted((w for w in scores if len(w) == 3), key=lambda w: -scores[w])


def test_a_narrow_search_is_misled_and_a_wide_one_is_not() -> None:
    """The best leaf lies behind a first step that looks worst."""
    worth = {"a": 0.9, "b": 0.5, "c": 0.1}

    def value(word: str) -> float:
        return 1.0 if word == "cc" else worth[word[0]] / len(word)

    assert searched(Breadth(1, 2), "abc", value)[0] == ["aa"]
    assert searched(Breadth(3, 2), "abc", value)[0][0] == "cc"


def test_ties_go_to_the_earlier_and_what_is_unknown_comes_last() -> None:
    known: dict[str, float | None] = {"a": None, "b": 0.0, "c": 0.5, "d": 0.5}
    leaves, _ = searched(Breadth(4, 1), "abcd", known.__getitem__)
    assert leaves == ["c", "d", "b", "a"]


def test_equal_states_are_one() -> None:
    leaves, rounds = searched(Breadth(4, 2), "aaa", vowels)
    assert leaves == ["aa"] and rounds == [[""], ["a"]]
    assert distinct([State(("a",), 1.0), State(("b",)), State(("a",), 2.0)]) == [
        State(("a",), 1.0),
        State(("b",)),
    ]


def test_where_nothing_continues_a_level_it_is_the_last() -> None:
    search = Breadth(2, 3)
    tree = search.tell(Tree(), [grown(ROOT, "ab", vowels)])
    tree = search.tell(tree, [[], []])
    assert search.ask(tree) == () and [s.thoughts for s in search.found(tree)] == [("a",), ("b",)]
    nothing = search.tell(Tree(), [[]])
    assert search.ask(nothing) == () and search.found(nothing) == [ROOT]


def test_of_a_level_only_the_first_may_be_continued() -> None:
    search = Breadth(2, 3)
    tree = search.tell(Tree(), [grown(ROOT, "ab", vowels)])
    tree = search.tell(tree, [grown(tree.open[0], "ab", vowels)])
    assert [s.thoughts for s in search.ask(tree)] == [("a", "a"), ("a", "b")] and tree.expanded == 2


# --- depth-first ------------------------------------------------------------------------------------


def test_the_best_is_followed_down_and_then_the_next_best() -> None:
    leaves, rounds = searched(Depth(3, 3, 0, 100), "ba", vowels)
    assert rounds == [[""], ["a"], ["aa"], ["ab"]]
    assert leaves == ["aaa", "aab", "aba"]


def test_with_one_leaf_wanted_it_never_turns_back() -> None:
    leaves, rounds = searched(Depth(1, 5, 0, 100), "ba", vowels)
    assert leaves == ["aaaaa"] and len(rounds) == 5


def test_it_turns_back_where_nothing_is_worth_the_threshold() -> None:
    dead = {"aa", "ab", "ac"}

    def value(word: str) -> float:
        return 0.0 if word in dead else {"a": 0.9, "b": 0.5, "c": 0.01}[word[0]]

    leaves, rounds = searched(Depth(1, 2, 0.1, 100), "abc", value)
    assert rounds == [[""], ["a"], ["b"]] and leaves == ["ba"]
    leaves, rounds = searched(Depth(99, 2, 0.1, 100), "abc", value)
    assert rounds == [[""], ["a"], ["b"]] and leaves == ["ba", "bb", "bc"], "c is pruned"
    leaves, rounds = searched(Depth(99, 2, 0, 100), "abc", value)
    assert len(leaves) == 9 and len(rounds) == 4


def test_what_is_unknown_is_not_pruned_and_is_followed_last() -> None:
    known: dict[str, float | None] = {"a": None, "b": 0.3, "c": 0.0}
    leaves, rounds = searched(Depth(9, 2, 0.2, 100), "abc", lambda word: known[word[-1]])
    assert rounds == [[""], ["b"], ["a"]] and leaves == ["bb", "ab", "ba", "aa"]


@pytest.mark.parametrize("expansions", range(1, 8))
def test_it_continues_no_more_states_than_it_may(expansions: int) -> None:
    leaves, rounds = searched(Depth(99, 3, 0, expansions), "ba", vowels)
    assert len(rounds) == expansions
    if expansions < 3:  # the deepest it has come to
        assert leaves[0] == "a" * expansions
    else:
        assert leaves[0] == "aaa"


def test_without_a_leaf_the_deepest_state_is_found_the_dead_ones_too() -> None:
    leaves, _ = searched(Depth(1, 3, 0.5, 99), "ab", lambda word: 1.0 if len(word) < 3 else 0.0)
    assert leaves == ["aa", "ab", "ba", "bb"]
    search = Depth(1, 3, 0, 99)
    dead = search.tell(Tree(), [[]])
    assert search.ask(dead) == () and list(search.found(dead)) == [ROOT]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=39, max_size=39),
)
def test_depth_first_visits_as_the_recursion_of_the_paper_does(
    n: int, k: int, depth: int, worth: list[int]
) -> None:
    letters = "abc"[:k]
    words = ["".join(w) for size in range(1, depth + 1) for w in product(letters, repeat=size)]
    value = dict(zip(words, (w / 3 for w in worth), strict=False))
    visited, outputs = list[str](), list[str]()

    def dfs(word: str) -> None:
        if len(outputs) >= n:
            return
        if len(word) == depth:
            outputs.append(word)
            return
        visited.append(word)
        for child in sorted((word + letter for letter in letters), key=lambda c: -value[c]):
            if value[child] >= 0.3:
                dfs(child)

    dfs("")
    leaves, rounds = searched(Depth(n, depth, 0.3, 10_000), letters, value.__getitem__)
    assert [word for (word,) in rounds] == visited
    if outputs:
        assert leaves == sorted(outputs, key=lambda w: -value[w])


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k", "depth"), [*product((1, 2, 5), (1, 2, 3), (1, 2, 3, 4))])
def test_the_levels_are_those_of_a_search(n: int, k: int, depth: int) -> None:
    _, rounds = searched(Breadth(n, depth), "abc"[:k], vowels)
    widths = [width for count, width in levels_of(n, k, depth) for _ in range(count)]
    assert widths == list(map(len, rounds))


@pytest.mark.parametrize(("k", "depth", "most"), [*product((1, 2, 3), (1, 2, 3), (1, 2, 5, 99))])
def test_the_expansions_are_those_of_a_search(k: int, depth: int, most: int) -> None:
    _, rounds = searched(Depth(10**6, depth, 0, most), "abc"[:k], vowels)
    assert len(rounds) == expansions_of(k, depth, most)


def test_sizes_are_known_at_once() -> None:
    huge = 2**62
    assert levels_of(5, 5, huge) == [Level(1, 1), Level(huge - 1, 5)]
    assert levels_of(huge, 1, huge) == [Level(huge, 1)]
    assert expansions_of(2, huge, huge) == huge and expansions_of(1, huge, 7) == 7
    assert replace(ROOT, value=1.0).depth == 0


def test_a_search_over_nothing_ends() -> None:
    searches: Sequence[Search] = (Breadth(1, 2), Depth(1, 2, 0, 5))
    for search in searches:
        assert searched(search, "", vowels)[0] == [""]
