"""What counts as the expected value: evalplus's rules, on plain data only.

evalplus: equal is equal; where floats are expected an absolute tolerance of 1e-6 (or the task's own) and a relative
one of 1e-7 are added, element by element as `numpy.allclose` does, between values of one type and length.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.problem import Case
from archon.verifiers.compare import matches, shown
from archon.verifiers.sandbox.wire import Opaque
from tests.verifiers.test_wire import VALUES

QUICK = settings(max_examples=100, deadline=None)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
Rule = Literal["equal", "same_set", "is_not_none", "anything"]
HUGE = 10**400  # no float is as large
RULES: tuple[Rule, ...] = ("equal", "same_set", "is_not_none", "anything")


def matching(expected: Any, value: Any, tolerance: float = 0.0, **fields: Any) -> bool:
    return matches(Case(expected=expected, tolerance=tolerance, **fields), value)


# --- equal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (1, 1), (1, True), (1, 1.0), (2.0, 2), ("a", "a"), (None, None), ([], []), ((1, 2), (1, 2)), ({1}, {1}),
        ({"a": [1]}, {"a": [1]}), (1 + 0j, 1), (frozenset({1}), {1}), (b"a", bytearray(b"a")), (0.0, -0.0),
        (HUGE, HUGE), (math.inf, math.inf), ([1, [2, (3,)]], [1, [2, (3,)]]), (range(3), range(0, 3, 1)),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
    ],
)  # fmt: skip
def test_equal_values_match(expected: Any, value: Any) -> None:
    assert matching(expected, value)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (1, 2), (1, "1"), (1, None), (None, 0), (None, False), ([1], (1,)), ((1,), [1]), ([1], [1, 1]),
        ([1, 2], [2, 1]),
        ("a", "A"), ("a", b"a"), ([], None), ({}, []), (set(), {}), (1, [1]), ([1], 1), ({1: 2}, {1: 3}),
        (HUGE, HUGE + 1), (HUGE, math.inf), (math.inf, -math.inf), (1, 1 + 1e-9), (3, 3.0000001),
        ([0, 1], range(2)), (True, "True"), ([[1]], [[1.5]]), (0, ""), ("", []),
    ],
)  # fmt: skip
def test_other_values_do_not(expected: Any, value: Any) -> None:
    assert not matching(expected, value)


@given(VALUES)
@QUICK
def test_a_copy_of_the_expected_value_matches(value: Any) -> None:
    if value == value and copy.deepcopy(value) == value:  # not where a NaN is in it
        assert matching(value, copy.deepcopy(value))


@given(VALUES, VALUES, st.sampled_from([0.0, 1e-6, 0.5]), st.sampled_from(RULES))
@QUICK
def test_any_two_values_give_yes_or_no(expected: Any, value: Any, tolerance: float, rule: Rule) -> None:
    assert matches(Case(expected=expected, tolerance=tolerance, rule=rule), value) in (True, False)


# --- floats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "value", "tolerance", "match"),
    [
        (1.0, 1.0 + 9e-7, 0, True),
        (1.0, 1.0 + 3e-6, 0, False),
        (1e9, 1e9 + 99, 0, True),
        (1e9, 1e9 + 101, 0, False),
        (1.0, 1.009, 0.01, True),
        (1.0, 1.011, 0.01, False),
        (0.0, 1e-7, 1e-9, False),
        ([1.0, 2.0], [1.0, 2.0 + 9e-7], 0, True),
        ((1.0, 2.0), (1.0, 2.0 + 9e-7), 0, True),
        ([1.0, 2.0], (1.0, 2.0), 0, False),
        ([1.0, 2.0], (1.0, 2.0), 0.5, False),
        ([1.0, 2.0], [1.0], 0.5, False),
        ([1.0], [1.0, 1.0], 0.5, False),
        ([], [0.0], 0.5, False),
        ([1.0, 2], [1.0, 2 + 1e-9], 0, False),
        ([[1.0]], [[1.0 + 9e-7]], 0, False),
        ([[1.0]], [[1.0 + 9e-7]], 1e-6, True),
        ([[1.0], [2.0, 3.0]], [[1.0], [2.0]], 1e-6, False),
        (1.5, "1.5", 0.5, False),
        (1.5, None, 0.5, False),
        (1.5, [1.5], 0.5, False),
        ([1.5], 1.5, 0.5, False),
        (1, 1.2, 0.5, False),
        (1.0, 1 + 0j, 0, True),
        (math.inf, math.inf, 0, True),
        (math.inf, 1e308, 0.5, False),
        (-math.inf, math.inf, 0.5, False),
        (1e308, math.inf, 0.5, False),
        (1.0, HUGE, 0.5, False),
        ([1.0], [HUGE], 0.5, False),
        (math.nan, 1.0, 0.5, False),
        (1.0, math.nan, 0.5, False),
    ],
)  # fmt: skip
def test_floats_may_differ_a_little_and_nothing_else_may(
    expected: Any, value: Any, tolerance: float, match: bool
) -> None:
    assert matching(expected, value, tolerance) is match


@given(FINITE, FINITE, st.sampled_from([0.0, 1e-9, 1e-4, 0.1, 10.0]))
@QUICK
def test_floats_are_compared_as_numpy_does(expected: float, value: float, tolerance: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        close = bool(np.allclose(value, expected, rtol=1e-7, atol=tolerance or 1e-6))
    assert matching(expected, value, tolerance) is (close or value == expected)


@given(st.lists(st.tuples(FINITE, st.floats(-3e-6, 3e-6)), min_size=1, max_size=6))
@QUICK
def test_lists_of_floats_are_compared_as_numpy_does(pairs: list[tuple[float, float]]) -> None:
    expected, value = [a for a, _ in pairs], [a + d for a, d in pairs]
    with np.errstate(over="ignore", invalid="ignore"):
        close = bool(np.allclose(value, expected, rtol=1e-7, atol=1e-6))
    assert matching(expected, value) is (close or value == expected)
    assert matching(tuple(expected), tuple(value)) is (close or value == expected)


def test_what_is_not_numbers_is_not_close() -> None:
    assert not matching(["a", 1.0], ["a", 1.0 + 1e-7], 0.5)


def test_complex_numbers_have_a_tolerance_too() -> None:
    assert matching(1 + 2j, 1 + 2.001j, 0.01)


NANS = (math.nan, -math.nan, math.inf - math.inf)


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: [x, 1], lambda x: (1.5, x), lambda x: {1: [[x]]},
                                  lambda x: complex(x, 0), lambda x: [x] * 20])  # fmt: skip
def test_one_nan_is_as_good_as_another_and_nothing_else_is(hold: Callable[[float], Any]) -> None:
    for nan in NANS:
        assert matching(hold(math.nan), hold(nan))
        assert not matching(hold(math.nan), hold(1.0)) and not matching(hold(1.0), hold(nan))


def test_floats_beside_a_nan_still_may_differ_a_little() -> None:
    assert matching([math.nan, 1.0], [-math.nan, 1.0 + 9e-7])
    assert not matching([math.nan, 1.0], [-math.nan, 1.0 + 3e-6])


# --- the other rules ---------------------------------------------------------------------------------


def test_alternatives_are_right_too() -> None:
    fields: dict[str, Any] = {"alternatives": (0, [1])}
    assert matching(5, 5, **fields) and matching(5, 0, **fields) and matching(5, [1], **fields)
    assert not matching(5, 1, **fields) and not matching(5, [0], **fields)


@pytest.mark.parametrize(
    ("expected", "value", "match"),
    [
        ([1, 2], [2, 1], True),
        ([1, 2], (2, 2, 1), True),
        ([1, 2], {1, 2}, True),
        ([1, 2], iter([1, 2]), True),
        ((1, 2), range(1, 3), True),
        ([(1, 2)], [(1, 2)], True),
        ([1, 2], [1], False),
        ([1], [1, 2], False),
        ([1, 2], None, False),
        ([1, 2], 12, False),
        (["a", "b"], "ba", True),
        ([1, 2], [[1], [2]], False),
        ([[1]], [[1]], False),
        ([1], {1: 2}, True),
        ([], [], True),
        ([], None, False),
    ],
)
def test_as_sets(expected: Any, value: Any, match: bool) -> None:
    assert matching(expected, value, rule="same_set") is match


@pytest.mark.parametrize("value", [range(10**8), range(10**15), range(10**30), range(0, -(10**30), -1)])
def test_a_range_of_astronomic_length_is_no_set_of_ours(value: range) -> None:
    assert not matching([1, 2], value, rule="same_set")


def test_a_set_may_be_given_with_many_repetitions() -> None:
    assert matching([1, 2], [1, 2] * 1000, rule="same_set")


def test_colliding_values_are_no_set_of_ours() -> None:
    assert not matching([1, 2], [n * (2**61 - 1) for n in range(1000)], rule="same_set")


@pytest.mark.parametrize(
    ("expected", "value", "match"),
    [
        (True, "a match", True),
        (True, Opaque("re.Match"), True),
        (True, 0, True),
        (True, True, True),
        (True, False, False),
        (True, None, False),
        (False, None, True),
        (False, False, True),
        (False, True, False),
        (False, "a match", False),
        (False, Opaque("re.Match"), False),
    ],
)
def test_something_or_nothing(expected: bool, value: Any, match: bool) -> None:
    assert matching(expected, value, rule="is_not_none") is match


@given(VALUES)
@QUICK
def test_where_anything_is_right_everything_is(value: Any) -> None:
    assert matching(1, value, rule="anything")


@pytest.mark.parametrize("rule", ["equal", "same_set"])
@pytest.mark.parametrize("expected", ["m.A", ("m.A",), ["m.A"], {"m.A"}, None, True, 1, "", [1.5]])
def test_what_could_not_cross_matches_nothing(expected: Any, rule: Rule) -> None:
    for value in (Opaque("m.A"), [Opaque("m.A")], (Opaque("m.A"),), {"m.A": Opaque("m.A")}):
        if rule == "same_set" and isinstance(value, dict):
            continue  # its keys are plain data
        assert not matching(expected, value, 0.5, rule=rule)


# --- for people --------------------------------------------------------------------------------------


@given(VALUES)
@QUICK
def test_any_value_is_shown_in_few_words_on_one_line(value: Any) -> None:
    text = shown(value)
    assert 0 < len(text) <= 120 and "\n" not in text
    text.encode()


def test_what_is_too_large_is_shown_all_the_same() -> None:
    digits = 10**5000  # more than Python turns into text
    for value in (10**100_000, -digits, [digits], {"a": digits}, "x" * 10**6, ["\n"] * 50, range(digits)):
        assert 0 < len(shown(value)) <= 120 and "\n" not in shown(value)


def test_a_short_value_is_shown_as_it_is() -> None:
    for value in (
        [1, "a"],
        (1,),
        (),
        [()],
        {"a": {1: 2}},
        {1},
        set(),
        frozenset([1]),
        b"a",
        bytearray(b"a"),
        1.5,
        None,
    ):
        assert shown(value) == repr(value)
    assert shown(Opaque("m.A")) == "<m.A>"
    assert len(shown("x" * 500, 40)) == 40
