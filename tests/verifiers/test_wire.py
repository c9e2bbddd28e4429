"""Values that cross between processes come out as they went in: type for type, bit for bit."""

from __future__ import annotations

import collections
import copy
import enum
import functools
import itertools
import math
import struct
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.wire import Opaque, WireError, decode, encode

TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
INTEGERS = st.one_of(st.integers(), st.integers(-(2**300), 2**300))
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), TEXT)
RANGES = st.builds(range, st.integers(), st.integers(), st.integers().filter(bool))
LEAVES = st.one_of(SCALARS, st.binary(), st.complex_numbers(), RANGES)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
VALUES = st.recursive(
    st.one_of(
        LEAVES, st.binary().map(bytearray), st.sets(HASHABLE, max_size=4), st.lists(SCALARS, max_size=40)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(SCALARS, min_size=14, max_size=20).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
    ),
    max_leaves=12,
)
QUICK = settings(max_examples=150, deadline=None)


def exact(value: Any) -> Any:
    """Something that is equal only where type and bits are: 1, 1.0 and True differ, NaN is itself."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, complex):
        return kind, exact(value.real), exact(value.imag)
    if isinstance(value, list | tuple):
        return kind, tuple(map(exact, value))
    if isinstance(value, set | frozenset):
        return kind, frozenset(map(exact, value))
    if isinstance(value, dict):
        return kind, tuple((exact(k), exact(v)) for k, v in value.items())
    if isinstance(value, range):
        return kind, value.start, value.stop, value.step
    return kind, bytes(value) if isinstance(value, bytearray) else value


@given(VALUES)
@QUICK
def test_a_value_comes_out_as_it_went_in(value: Any) -> None:
    assert exact(decode(encode(value))) == exact(value)


@given(st.lists(SCALARS, min_size=15, max_size=60))
@QUICK
def test_long_flat_lists_keep_the_types_of_their_items(items: list[Any]) -> None:
    assert exact(decode(encode(items))) == exact(items)
    assert exact(decode(encode(tuple(items)))) == exact(tuple(items))
    assert exact(decode(encode([*items, b""]))) == exact([*items, b""])


@given(VALUES)
@QUICK
def test_a_copy_has_the_same_bytes(value: Any) -> None:
    assert encode(copy.deepcopy(value)) == encode(value)
    assert encode(decode(encode(value))) == encode(value)


@given(st.lists(HASHABLE, max_size=8), st.randoms(use_true_random=False))
@QUICK
def test_the_order_in_which_a_set_was_filled_does_not_show(items: list[Any], random: Any) -> None:
    distinct = [pair[0] for pair in {exact(i): (i,) for i in set(items)}.values()]
    shuffled = random.sample(distinct, len(distinct))
    assert encode(set(distinct)) == encode(set(shuffled))
    assert encode(frozenset(distinct)) == encode(frozenset(shuffled))


@pytest.mark.parametrize(
    "value",
    [
        0, -1, 255, 256, -128, -129, 2**63, -(2**63), 10**5000, -(10**5000), True, False, None, 0.0, -0.0,
        math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308, complex(-0.0, math.nan), "", "\0",
        "\ud800", "\udfff", "\U0010ffff", b"", bytearray(b"\xff"), [], (), set(), frozenset(), {}, range(0),
        range(10**30, 0, -(10**29)), {None: ()}, {frozenset({(1, "a")}): [{2}]}, [[]] * 20, [10**5000] * 20,
        [math.nan, -0.0, math.inf] * 10, [True, 1, 1.0] * 10, ["\ud800", "\0", "é"] * 10, [None] * 16,
        "x" * 1_000_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_odd_ones_cross(value: Any) -> None:
    assert exact(decode(encode(value))) == exact(value)
    assert exact(decode(encode([value] * 20))) == exact([value] * 20)


def test_two_surrogates_do_not_become_one_character() -> None:
    apart, joined = ["\ud83d\ude00"] * 20, ["\U0001f600"] * 20
    assert apart != joined
    assert decode(encode(apart)) == apart
    assert encode(apart) != encode(joined)


@pytest.mark.parametrize(
    ("one", "other"),
    list(
        itertools.combinations([1, 1.0, True, "1", b"1", bytearray(b"1"), (1,), [1], {1}, frozenset({1})], 2)
    ),
)
def test_values_that_are_only_alike_have_other_bytes(one: Any, other: Any) -> None:
    assert encode(one) != encode(other)
    assert encode([one] * 20) != encode([other] * 20)


# --- subclasses cross as the data in them ------------------------------------------------------------


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.IntEnum):
    RED = 3


class Word(enum.StrEnum):
    HI = "hi"


class LyingList(list[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([9, 9])

    def __len__(self) -> int:
        return 99

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __int__(self) -> int:
        return 7

    def __hash__(self) -> int:
        return 7

    def bit_length(self) -> int:
        return 1


class LyingText(str):
    def __str__(self) -> str:
        return "no"

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"no"


class LyingFloat(float):
    def __float__(self) -> float:
        return 7.0


class LyingBytes(bytes):
    def __bytes__(self) -> bytes:
        return b"no"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 3),
        (Word.HI, "hi"),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (LyingList([1, 2]), [1, 2]),
        (LyingInt(3), 3),
        (LyingText("yes"), "yes"),
        (LyingFloat(2.5), 2.5),
        (LyingBytes(b"yes"), b"yes"),
        (np.float64(0.1), 0.1),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.complex128(1j), 1j),
        ([np.int64(1)] * 20, [1] * 20),
        ({np.int64(1): (np.float32(0.5),)}, {1: (0.5,)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_instance_of_a_subclass_crosses_as_plain_data(value: Any, plain: Any) -> None:
    assert exact(decode(encode(value))) == exact(plain)


def test_a_subclass_of_bytearray_is_no_exception() -> None:
    class Buffer(bytearray):
        pass

    assert decode(encode(Buffer(b"ab"))) == bytearray(b"ab")


# --- what cannot cross -------------------------------------------------------------------------------


class EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "value",
    [EqualToAll(), object(), len, lambda: 1, EqualToAll, int, Decimal("1"), Fraction(1), memoryview(b"a"),
     collections.deque([1]), {}.keys(), NotImplemented, ..., itertools.count(), functools.partial(print)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_anything_else_crosses_as_a_mark_that_equals_nothing(value: Any) -> None:
    marked: Any = decode(encode(value))
    assert isinstance(marked, Opaque)
    assert type(value).__qualname__ in repr(marked)
    equals_nothing(marked)


def equals_nothing(marked: Any) -> None:
    name = marked.type_name
    for other in (0, 1, True, False, None, "", (), name, (name,), [name], decode(encode(marked))):
        assert not marked == other  # noqa: SIM201 - each operator is asked, from both sides
        assert not other == marked  # noqa: SIM201
        assert marked != other and other != marked
    assert marked not in {name, (name,)}
    for ask in (len, iter, bool, float, sorted, set):
        with pytest.raises(TypeError):
            ask(marked)


def test_a_type_may_call_itself_anything() -> None:
    for name in ("\ud800", "x" * 10_000, "", "builtins.int"):
        odd = type("Odd", (), {"__qualname__": name, "__module__": name})
        marked = decode(encode(odd()))
        assert type(marked) is Opaque and len(marked.type_name) <= 200


@pytest.mark.parametrize(
    "value",
    [iter([1, 2]), iter((1, 2)), (i for i in (1, 2)), map(int, "12"), filter(None, [0, 1, 2]), iter({1: 0, 2: 0}),
     reversed([2, 1]), iter(range(1, 3)), iter({0: 1, 1: 2}.values())],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_iterator_crosses_with_its_items_and_is_no_list(value: Any) -> None:
    came = decode(encode(value))
    assert not isinstance(came, list | tuple) and came != [1, 2]
    assert list(came) == [1, 2]


def test_pairs_from_iterators_stay_pairs() -> None:
    assert list(decode(encode(zip("ab", [1, 2], strict=True)))) == [("a", 1), ("b", 2)]
    assert list(decode(encode(enumerate("a")))) == [(0, "a")]


def endless() -> Iterator[int]:
    while True:
        yield 0


def matryoshka() -> Iterator[Any]:
    yield matryoshka()


@pytest.mark.parametrize(
    "value", [endless(), map(abs, endless()), matryoshka()], ids=["items", "map", "nested"]
)
def test_an_iterator_without_end_is_refused(value: Any) -> None:
    with pytest.raises(WireError):
        encode(value)


def nested(depth: int, kind: Any = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {0: value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, frozenset, dict])
def test_deep_values_cross_and_deeper_ones_are_refused(kind: Any) -> None:
    assert exact(decode(encode(nested(150, kind)))) == exact(nested(150, kind))
    for depth in (1_000, 50_000):
        with pytest.raises(WireError):
            encode(nested(depth, list if kind is frozenset else kind))


def test_whatever_can_be_encoded_can_be_decoded() -> None:
    for depth in range(190, 215):
        for kind in (list, tuple, dict, frozenset):
            try:
                data = encode(nested(depth, kind))
            except WireError:
                continue
            assert exact(decode(data)) == exact(nested(depth, kind))


def test_a_value_that_holds_itself_is_refused() -> None:
    row: list[Any] = []
    row.append(row)
    table: dict[Any, Any] = {}
    table[1] = (table,)
    branching: list[Any] = []
    branching.extend([branching, branching])
    for value in (row, table, branching):
        with pytest.raises(WireError):
            encode(value)


def test_a_frame_is_a_length_a_kind_and_a_body() -> None:
    assert wire.frame(wire.CALL, b"abc") == b"\0\0\0\3" + bytes([wire.CALL]) + b"abc"
    assert wire.frame(wire.LOADED) == b"\0\0\0\0" + bytes([wire.LOADED])
    kinds = [
        wire.LOAD,
        wire.LOADED,
        wire.CALL,
        wire.RETURNED,
        wire.RAISED,
        wire.VERDICT,
        wire.SUITE,
        wire.CHECK,
    ]
    assert len(set(kinds)) == len(kinds)
