"""The tree of observations: its size is the original's, and a part of it is a fair one."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.strategies.plan_tree import PAPER, Harvest, Node, Shape, affordable, children, shared, tree

ROOT = Node()
ORIGINAL = {3: (8, 49, 98), 4: (12, 121, 242), 5: (17, 256, 512), 6: (23, 484, 968)}
"""Observations at every node: observation prompts, tuples, codes, as the original's tree code gave them."""


def found_at(node: Node, n: int) -> list[str]:
    """Other observations at every node."""
    return [f"{node.way} {i}" for i in range(n)]


def leaves_of(n: int, shape: Shape = PAPER, salt: int = 7) -> tuple[int, list[list[Node]]]:
    """How many nodes were asked in a tree grown whole, and its leaves, branch by branch."""
    level, asked = [[Node()]], 0
    for _ in range(shape.layers):
        nodes = list(itertools.chain.from_iterable(level))
        asked += len(nodes)
        level = [children(node, found_at(node, n), shape.subset, salt) for node in nodes]
    return asked, level


def taken(branches: list[list[Node]], wanted: int | None, alone: bool = False) -> list[tuple[str, ...]]:
    harvest = Harvest(alone)
    for branch, share in zip(branches, shared(wanted, len(branches)), strict=True):
        harvest.offer(branch, share)
    harvest.close(wanted)
    found = []
    while harvest:
        found.append(harvest.pop().known(alone))
    return found


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), ORIGINAL.items())
def test_the_sizes_are_those_of_the_original(n: int, size: tuple[int, int, int]) -> None:
    assert tree(n)[:3] == size


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("n", "size"), ORIGINAL.items())
def test_a_tree_that_is_grown_has_these_sizes_by_leaves_and_by_levels(
    n: int, size: tuple[int, int, int], alone: bool
) -> None:
    asked, branches = leaves_of(n)
    found = taken(branches, None, alone)
    assert (asked, len(found), len(set(found))) == (size[0], size[1], size[1])


def test_by_levels_they_are_every_subset_at_any_level_by_itself() -> None:
    _, branches = leaves_of(3)
    root = found_at(Node(), 3)
    subsets: set[tuple[str, ...]] = {c for k in range(3) for c in itertools.combinations(root, k)}
    for child in children(Node(), root, 2, 7):
        subsets |= {c for k in range(3) for c in itertools.combinations(found_at(child, 3), k)}
    assert set(taken(branches, None, alone=True)) == subsets
    assert len(subsets) == 1 + 6 + 7 * 6


def test_by_leaves_they_are_all_observations_on_the_way() -> None:
    _, branches = leaves_of(3)
    for leaf in itertools.chain.from_iterable(branches):
        assert leaf.known() == leaf.way[0] + leaf.way[1]
        assert len(leaf.known()) <= 4
    assert () in taken(branches, None)


@pytest.mark.parametrize(
    ("found", "shape", "calls"),
    [
        (4, PAPER, 12 * 2 + 121 * (1 + 2) + 242 * 2),
        (4, Shape(filter=False), 12 + 121 * 3 + 242 * 2),
        (4, Shape(fix=False), 24 + 121 + 121 * 2),
        (4, Shape(pseudocode=False), 24 + 121 * 3 + 242),
        (4, Shape(sketch=False, fix=False, pseudocode=False), 24 + 121),
        (4, Shape(layers=1), 2 + 11 * 3 + 22 * 2),
        (3, Shape(layers=3), (1 + 7 + 49) * 2 + 343 * 3 + 686 * 2),
        (4, Shape(subset=1), (1 + 5) * 2 + 25 * 3 + 50 * 2),
        (4, Shape(subset=0), 2 * 2 + 3 + 4),
        (0, PAPER, 2 + 3 + 4),
    ],
)
def test_calls_follow_the_formula(found: int, shape: Shape, calls: int) -> None:
    assert tree(found, shape).calls == calls


@pytest.mark.parametrize(
    ("codes", "size"),
    [(0, (0, 0, 0)), (1, (2, 1, 1)), (2, (2, 1, 2)), (3, (3, 2, 3)), (16, (9, 8, 16)), (500, (12, 121, 242))],
)
def test_so_many_codes_take_a_part_of_it(codes: int, size: tuple[int, int, int]) -> None:
    assert tree(4, codes=codes)[:3] == size


@given(st.integers(0, 6), st.integers(0, 3), st.integers(1, 2), st.integers(0, 900), st.integers(1, 30))
def test_what_a_budget_affords_fits_into_it_and_no_more_would(
    found: int, subset: int, layers: int, calls: int, root: int
) -> None:
    shape = Shape(layers, subset)
    codes = affordable(calls, found, shape, root=root)
    most = tree(found, shape, root=root).codes
    assert 0 <= codes <= most
    if codes:
        assert tree(found, shape, codes=codes, root=root).calls - 2 <= calls
    if codes < most:
        assert tree(found, shape, codes=codes + 1, root=root).calls - 2 > calls


# --- a fair part ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    wanted=st.integers(0, 60),
    order=st.randoms(use_true_random=False),
)
def test_branches_take_turns_and_make_up_for_those_that_lack(
    sizes: list[int], wanted: int, order: object
) -> None:
    """Whatever the order in which branches come, it is what would come first in a tree known from the start."""
    branches = [
        children(Node(((f"branch {i}",),), (i,)), [f"{i}-{j}" for j in range(size)], 2, 3)
        for i, size in enumerate(sizes)
    ]
    harvest = Harvest()
    pairs = list(zip(branches, shared(wanted, len(branches)), strict=True))
    order.shuffle(pairs)  # type: ignore[attr-defined]
    for branch, share in pairs:
        harvest.offer(branch, share)
    harvest.close(wanted)
    found = []
    while harvest:
        found.append(harvest.pop())
    expected = sorted(itertools.chain.from_iterable(branches), key=lambda leaf: leaf.turn[::-1])[:wanted]
    assert sorted(found, key=lambda leaf: leaf.turn[::-1]) == expected
    of_branch = Counter(leaf.turn[0] for leaf in found)
    short = [i for i, branch in enumerate(branches) if of_branch[i] < len(branch)]
    assert all(of_branch[i] >= max(of_branch.values(), default=0) - 1 for i in short)


def test_a_larger_part_holds_the_smaller() -> None:
    _, branches = leaves_of(3)
    parts = [set(taken(branches, wanted)) for wanted in range(50)]
    assert [len(part) for part in parts] == list(range(50))
    assert all(small < large for small, large in itertools.pairwise(parts))


def test_equal_observations_are_taken_once() -> None:
    twins = [children(Node(((),), (i,)), ["a", "b"], 2, i) for i in range(3)]
    assert sorted(taken(twins, None)) == [(), ("a",), ("a", "b"), ("b",)]
    assert len(taken(twins, 3)) == 3
    assert len(children(Node(), ["a", "a", "b"], 2, 0)) == 4


def test_the_order_is_the_salt_s_and_differs_from_node_to_node() -> None:
    def order(salt: int, node: Node = ROOT) -> list[tuple[str, ...]]:
        return [child.way[-1] for child in children(node, list("abcdef"), 2, salt)]

    assert order(1) == order(1) != order(2)
    assert order(1) != order(1, Node(((),), (0,)))
    firsts = Counter(order(salt)[0] for salt in range(400))
    assert len(firsts) == 22 and max(firsts.values()) < 50
