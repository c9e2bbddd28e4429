"""Bytes from a hostile process: `decode` gives a value or a WireError, soon, and never anything else."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.verifiers.sandbox.wire import TooManyItems, WireError, decode, encode, hashable
from tests.verifiers.test_wire import VALUES

TAGS = b"isfTFNltSZdbBOcrIjk"
MODULUS = sys.hash_info.modulus
QUICK = settings(max_examples=120, deadline=None)


def attempt(data: bytes) -> Any:
    """What these bytes are; None where they are nothing. Any other error goes through."""
    try:
        value = decode(data)
    except WireError as error:
        assert str(error)
        return None
    return value


def sized(tag: bytes, size: int, body: bytes = b"") -> bytes:
    return tag + struct.pack(">I", size) + body


@given(st.binary(max_size=200))
@QUICK
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    attempt(data)


@given(
    st.lists(
        st.sampled_from([bytes([t]) for t in TAGS] + [b"\0\0\0\1", b"\0\0\0\2", b"\0", b"\xff"]), max_size=40
    )
)
@QUICK
def test_tags_in_any_order_are_read_or_refused(parts: list[bytes]) -> None:
    attempt(b"".join(parts))


@given(VALUES, st.data())
@QUICK
def test_a_damaged_value_is_read_or_refused(value: Any, draw: st.DataObject) -> None:
    data = bytearray(encode(value))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        change = draw.draw(st.sampled_from(["flip", "insert", "delete", "splice"]))
        if change == "insert":
            data[at:at] = draw.draw(st.binary(min_size=1, max_size=5))
        elif change == "splice":
            data[at:at] = data[: draw.draw(st.integers(0, len(data)))]
        elif at < len(data):
            data[at : at + 1] = (
                b"" if change == "delete" else bytes([data[at] ^ draw.draw(st.integers(1, 255))])
            )
    attempt(bytes(data))


@given(VALUES, st.data())
@QUICK
def test_a_value_cut_off_anywhere_is_refused(value: Any, draw: st.DataObject) -> None:
    data = encode(value)
    with pytest.raises(WireError):
        decode(data[: draw.draw(st.integers(0, len(data) - 1))])


@given(VALUES, st.binary(min_size=1, max_size=5))
@QUICK
def test_bytes_behind_a_value_are_refused(value: Any, more: bytes) -> None:
    with pytest.raises(WireError):
        decode(encode(value) + more)


@pytest.mark.parametrize("tag", [bytes([t]) for t in b"isltSZdbBOjk"])
@pytest.mark.parametrize("size", [1, 1000, 2**31, 2**32 - 1])
def test_a_size_beyond_the_bytes_allocates_nothing(tag: bytes, size: int) -> None:
    with pytest.raises(WireError):
        decode(sized(tag, size))


@pytest.mark.parametrize("tag", [t for t in range(256) if t not in TAGS])
def test_an_unknown_tag_is_refused(tag: int) -> None:
    with pytest.raises(WireError):
        decode(bytes([tag]) + b"\0" * 16)


@pytest.mark.parametrize("depth", [300, 5_000, 300_000])
@pytest.mark.parametrize(
    "level",
    [sized(b"l", 1), sized(b"t", 1), sized(b"Z", 1), sized(b"d", 1, b"N"), sized(b"d", 1), b"I", b"r"],
)
def test_nesting_beyond_the_limit_is_refused(level: bytes, depth: int) -> None:
    with pytest.raises(WireError):
        decode(level * depth + b"N" * 3)


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"{}", b'{"a": 1}', b"1", b"[1", b"[1]]", b"[[1]]", b"[{}]", b"[1,]", b"nul", b"[nan]", b"\xff\xfe",
        b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 5000 + b"]",
        b'["\xff"]', b'["\\ud8"]', b"[1] x", b'["' + b"a" * 100, "[1]".encode("utf-16")[:-1],
    ],
)  # fmt: skip
@pytest.mark.parametrize("tag", [b"j", b"k"])
def test_json_that_is_no_flat_list_is_refused(tag: bytes, text: bytes) -> None:
    with pytest.raises(WireError):
        decode(sized(tag, len(text), text))


FLAT = st.none() | st.integers() | st.text(max_size=5)


@given(st.recursive(FLAT, lambda v: st.lists(v) | st.dictionaries(st.text(max_size=5), v), max_leaves=8))
@QUICK
def test_no_json_brings_in_more_than_a_flat_list(value: Any) -> None:
    text = json.dumps(value).encode()
    read = attempt(sized(b"j", len(text), text))
    assert read is None or (type(read) is list and not any(isinstance(item, list | dict) for item in read))


@pytest.mark.parametrize("value", [[], {}, set(), bytearray(b"a"), [1] * 20])
def test_what_cannot_be_hashed_is_refused_in_sets_and_as_keys(value: Any) -> None:
    for holder in (b"S", b"Z", b"d"):
        with pytest.raises(WireError):
            decode(sized(holder, 1, encode(value) + b"N" * (holder == b"d")))
        with pytest.raises(WireError):
            decode(sized(holder, 1, encode((1, value)) + b"N" * (holder == b"d")))


def test_a_range_must_be_one() -> None:
    for parts in ((1, 2, 0), (1.0, 2, 3), (1, True, 3), ("a", "b", "c"), (None, 1, 1)):
        with pytest.raises(WireError):
            decode(b"r" + b"".join(map(encode, parts)))


def test_an_iterator_must_be_one() -> None:
    for items in (1, (1,), "ab", {1}, {1: 2}):
        with pytest.raises(WireError):
            decode(b"I" + encode(items))


@pytest.mark.parametrize(
    "value", [[0.5, b""] * 50, {0: (1, 2), 3: {4, 5}}, [[[], []], []], list(range(100)), iter([b"", b""])]
)
def test_items_beyond_what_the_reader_wants_are_refused(value: Any) -> None:
    data = encode(value)
    count = next(most for most in range(len(data)) if reads(data, most))
    assert count > 0 and not reads(data, count - 1)


def reads(data: bytes, most: int) -> bool:
    try:
        decode(data, most)
    except TooManyItems:
        return False
    return True


def test_items_are_counted_before_they_are_read() -> None:
    with pytest.raises(TooManyItems):
        decode(sized(b"l", 1000, b"?" * 1000), 999)


# --- hashes ------------------------------------------------------------------------------------------


def colliding(count: int) -> list[int]:
    return [n * MODULUS for n in range(count)]


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: (n, "a"), lambda n: frozenset([n])])
def test_values_made_to_share_one_hash_are_refused(wrap: Callable[[int], Any]) -> None:
    few, many = [[wrap(n) for n in colliding(count)] for count in (10, 500)]
    assert len({hash(item) for item in many}) == 1
    assert decode(encode(set(few))) == set(few)
    for value in (set(many), frozenset(many), dict.fromkeys(many), [1, {"a": set(many)}]):
        with pytest.raises(WireError):
            decode(encode(value))
    with pytest.raises(WireError):
        hashable(many)


def test_one_value_many_times_is_refused_or_is_one() -> None:
    assert attempt(sized(b"S", 1000, encode(1) * 1000)) in (None, {1})


def test_sets_of_ordinary_values_are_not_taken_for_hostile() -> None:
    for value in (
        set(range(-1000, 50_000)),
        {float(i) for i in range(5_000)} | {i + 0.5 for i in range(5_000)},
        {(i, j) for i in range(100) for j in range(100)},
        {str(i) for i in range(20_000)},
        {frozenset([i, -i]) for i in range(3_000)},
        *({i << shift for i in range(5_000)} for shift in (5, 32, 44, 51, 60)),
        *(dict.fromkeys(i << shift for i in range(5_000)) for shift in (5, 32, 39, 44, 51, 60)),
        {i / 2**17 for i in range(5_000)},
        dict.fromkeys([*range(1_000), *map(str, range(1_000)), None, True, (), b""]),
    ):
        assert decode(encode(value)) == value


def crowd(bits: int) -> list[int]:
    """Integers of different hashes that still crowd each other in a dictionary of 2**bits places.

    Some stand on the places 0, 1, 6, 31, ... that a search goes through when it has used up the hash; the
    others meet only taken places until they reach that path near its start, and must walk along all of it.
    """
    mask = (1 << bits) - 1
    path = [0]
    while len(path) < int(0.42 * (mask + 1)):
        path.append((path[-1] * 5 + 1) & mask)
    taken = set(path)
    near = set(path[: len(path) // 3])
    joining: list[int] = []
    number = 1 << bits
    while len(joining) < int(0.16 * (mask + 1)):
        number += 1
        place, rest = number & mask, number
        while place in taken and rest:
            rest >>= 5
            place = (place * 5 + rest + 1) & mask
        if not rest and place in near:
            joining.append(number)
    return path + joining


def cpu_seconds(data: bytes) -> float:
    def once() -> float:
        started = time.process_time()
        decode(data)
        return time.process_time() - started

    return min(once() for _ in range(5))


def test_keys_that_crowd_each_other_are_refused_or_cost_no_more_than_others() -> None:
    hostile = encode(dict.fromkeys(crowd(15), 1))
    honest = encode(dict.fromkeys(range(len(crowd(15))), 1))
    assert attempt(hostile) is None or cpu_seconds(hostile) < 4 * cpu_seconds(honest)
