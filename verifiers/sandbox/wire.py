"""Values as bytes, safely: what crosses between a program's process and everybody else.

Only exact built-in types cross. An instance of a subclass of one (a Counter, a named tuple, a number of
numpy's) crosses as the plain data it holds; anything else (a function, an instance of the program's own
class) as an *opaque* mark with its type's name, which equals nothing. So no `__eq__`, `__hash__` or
`__bool__` of the program's making is ever run outside its process.

Equal values of these types usually have equal bytes, so a comparison can often be one of bytes. This file
is also loaded by the isolated interpreters, so it imports nothing but the standard library.

Frames on a socket are a length (4 bytes, big-endian), a kind (1 byte), and a body.
"""

from __future__ import annotations

import json
import struct
import types
from typing import Any

_U32 = struct.Struct(">I")
_F64 = struct.Struct(">d")
_C128 = struct.Struct(">dd")
FRAME = struct.Struct(">IB")

LOAD, LOADED, CALL, RETURNED, RAISED, VERDICT, SUITE, CHECK, APART, LEFT = range(1, 11)
"""Kinds of frames: a program to load; it is loaded; a call; its value; its exception; a judge's verdict; the tests it
judges by; a program for it to check; a program that needs a process of its own; what one that left had used."""

_DEEPEST = 200
_MANY = 16
_SCALARS: frozenset[type] = frozenset((int, float, str, bool, type(None)))
"""What JSON tells apart and gives back as it was: a long flat list of these crosses as JSON, ten times as fast."""
_FEW_KEYS = 64
_MOST_STEPS = {1: 60, 10: 20}
"""Steps that a search for a free place may take on average, by the places it looks at in one. The oddest of honest
keys (multiples of 2**44) take a third and a half of that."""

_ITERATORS: set[type] = {
    type(iter(())),
    type(iter([])),
    type(iter("")),
    type(iter({})),
    type(iter({}.values())),
    type(iter({}.items())),
    type(iter(set())),
    type(iter(range(0))),
    type(reversed([])),
    types.GeneratorType,
    map,
    filter,
    zip,
    enumerate,
}
_MOST_ITEMS = 1_000_000


class WireError(ValueError):
    """Bytes that are not of this form, or values beyond its limits."""


class TooManyItems(WireError):
    """More items than the reader wants."""


class Opaque:
    """Stands for a value that cannot cross: equal to nothing else, and neither true nor false."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __bool__(self) -> bool:
        raise TypeError(f"whether {self!r} is true is known only in the program's own process")

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def encode(value: Any) -> bytes:
    """A value as bytes. Raises WireError where it is nested too deeply or refers to itself."""
    out: list[bytes] = []
    try:
        _encode(value, out, 0)
    except RecursionError:
        raise WireError("nested too deeply") from None
    return b"".join(out)


def _encode(value: Any, out: list[bytes], depth: int) -> None:
    kind = type(value)
    if kind is int:
        size = (value.bit_length() + 8) // 8
        out.append(b"i" + _U32.pack(size) + value.to_bytes(size, "big", signed=True))
    elif kind is str:
        text = value.encode("utf-8", "surrogatepass")
        out.append(b"s" + _U32.pack(len(text)) + text)
    elif kind is float:
        out.append(b"f" + _F64.pack(value))
    elif kind is bool:
        out.append(b"T" if value else b"F")
    elif value is None:
        out.append(b"N")
    elif kind is list or kind is tuple:
        if depth > _DEEPEST:
            raise WireError("nested too deeply")
        if len(value) >= _MANY and (text := _flat(value)) is not None:
            out.append((b"j" if kind is list else b"k") + _U32.pack(len(text)) + text)
            return
        out.append((b"l" if kind is list else b"t") + _U32.pack(len(value)))
        for item in value:
            _encode(item, out, depth + 1)
    elif kind is dict:
        if depth > _DEEPEST:
            raise WireError("nested too deeply")
        out.append(b"d" + _U32.pack(len(value)))
        for key, item in value.items():
            _encode(key, out, depth + 1)
            _encode(item, out, depth + 1)
    elif kind is set or kind is frozenset:
        if depth > _DEEPEST:
            raise WireError("nested too deeply")
        items = []
        for item in value:
            one: list[bytes] = []
            _encode(item, one, depth + 1)
            items.append(b"".join(one))
        out.append((b"S" if kind is set else b"Z") + _U32.pack(len(items)))
        out.extend(sorted(items))
    elif kind is bytes or kind is bytearray:
        out.append((b"b" if kind is bytes else b"B") + _U32.pack(len(value)) + bytes(value))
    elif kind is complex:
        out.append(b"c" + _C128.pack(value.real, value.imag))
    elif kind is range:
        out.append(b"r")
        for part in (value.start, value.stop, value.step):
            _encode(part, out, depth + 1)
    elif kind in _ITERATORS:
        taken = []
        for item in value:
            taken.append(item)
            if len(taken) > _MOST_ITEMS:
                raise WireError("an iterator without end")
        out.append(b"I")
        _encode(taken, out, depth + 1)
    elif _is_number_of_numpy(kind):
        _encode(value.item(), out, depth)
    elif (plain := _plain(value, kind)) is not None:
        _encode(plain, out, depth)
    else:
        name = f"{kind.__module__}.{kind.__qualname__}"[:200]
        text = name.encode("utf-8", "replace")
        out.append(b"O" + _U32.pack(len(text)) + text)


def _flat(value: Any) -> bytes | None:
    """A list or tuple of scalars as JSON; None where something else is in it."""
    if not _SCALARS.issuperset(map(type, value)):
        return None
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of more digits than Python turns into text
        return None
    return None if "\\ud" in text else text.encode()  # JSON would join lone surrogates into one character


_PLAIN: dict[type, Any] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: b"".join([value]),
    bytearray: bytearray.copy,
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),),
    dict: dict.copy,
    set: lambda value: {*set.__iter__(value)},
    frozenset: lambda value: frozenset([*frozenset.__iter__(value)]),
}


def _plain(value: Any, kind: type) -> Any:
    """The built-in value inside an instance of a subclass of its type; None where there is none."""
    for base in type.__dict__["__mro__"].__get__(kind):
        if base in _PLAIN:
            plain = _PLAIN[base](value)
            return plain if type(plain) is base else None
    return None


def _is_number_of_numpy(kind: type) -> bool:
    return kind.__module__ == "numpy" and any(base.__name__ == "generic" for base in kind.__mro__)


def decode(data: bytes, most: int | None = None) -> Any:
    """The value of these bytes. Raises WireError for anything that is not exactly one value, and TooManyItems
    where its lists, sets and dictionaries hold more than `most` items together, before it reads them."""
    try:
        value, end = _decode(data, 0, 0, [len(data) if most is None else most])
    except WireError:
        raise
    except (
        struct.error,
        IndexError,
        ValueError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        raise WireError(f"{type(error).__name__}: {error}") from None
    if end != len(data):
        raise WireError("bytes left over")
    return value


def _decode(data: bytes, at: int, depth: int, room: list[int]) -> tuple[Any, int]:
    if depth > _DEEPEST + 4:
        raise WireError("nested too deeply")
    tag = data[at : at + 1]
    at += 1
    if tag in b"is" and tag:
        (size,) = _U32.unpack_from(data, at)
        at += 4
        body = data[at : at + size]
        if len(body) != size:
            raise WireError("cut off")
        at += size
        if tag == b"i":
            return int.from_bytes(body, "big", signed=True), at
        return body.decode("utf-8", "surrogatepass"), at
    if tag == b"f":
        return _F64.unpack_from(data, at)[0], at + 8
    if tag == b"T":
        return True, at
    if tag == b"F":
        return False, at
    if tag == b"N":
        return None, at
    if tag in (b"l", b"t", b"S", b"Z"):
        (count,) = _U32.unpack_from(data, at)
        at += 4
        if count > len(data) - at:
            raise WireError("cut off")
        _take(room, count)
        items = []
        for _ in range(count):
            item, at = _decode(data, at, depth + 1, room)
            items.append(item)
        if tag == b"l":
            return items, at
        if tag == b"t":
            return tuple(items), at
        return (set if tag == b"S" else frozenset)(hashable(items)), at
    if tag in (b"j", b"k"):
        (size,) = _U32.unpack_from(data, at)
        at += 4
        if size > len(data) - at:
            raise WireError("cut off")
        _take(room, data.count(b",", at, at + size))
        items = json.loads(data[at : at + size])
        if type(items) is not list or not _SCALARS.issuperset(map(type, items)):
            raise WireError("no flat list")
        return (items if tag == b"j" else tuple(items)), at + size
    if tag == b"d":
        (count,) = _U32.unpack_from(data, at)
        at += 4
        if count * 2 > len(data) - at:
            raise WireError("cut off")
        _take(room, count * 2)
        keys, values = [], []
        for _ in range(count):
            key, at = _decode(data, at, depth + 1, room)
            value, at = _decode(data, at, depth + 1, room)
            keys.append(key)
            values.append(value)
        return dict(zip(hashable(keys, neighbours=1), values, strict=True)), at
    if tag in (b"b", b"B", b"O"):
        (size,) = _U32.unpack_from(data, at)
        at += 4
        body = data[at : at + size]
        if len(body) != size:
            raise WireError("cut off")
        if tag == b"O":
            return Opaque(body.decode("utf-8", "replace")), at + size
        return (body if tag == b"b" else bytearray(body)), at + size
    if tag == b"c":
        return complex(*_C128.unpack_from(data, at)), at + 16
    if tag == b"r":
        parts = []
        for _ in range(3):
            part, at = _decode(data, at, depth + 1, room)
            if type(part) is not int:
                raise WireError("a range of no integers")
            parts.append(part)
        if parts[2] == 0:
            raise WireError("a range of step 0")
        return range(*parts), at
    if tag == b"I":
        items, at = _decode(data, at, depth + 1, room)
        if type(items) is not list:
            raise WireError("an iterator of no items")
        return iter(items), at
    raise WireError(f"unknown tag {tag!r}")


def _take(room: list[int], count: int) -> None:
    room[0] -= count
    if room[0] < 0:
        raise TooManyItems("too many items")


def hashable(items: list[Any], neighbours: int = 10) -> list[Any]:
    """The items, if putting them into a set (or a dictionary, that looks at no neighbours) cannot be made slow.

    Integers can be chosen so that they share one hash, or that their searches for a free place cross, which
    makes a set of them quadratic. Raises WireError.
    """
    try:
        hashes = [hash(item) for item in items]
    except TypeError as error:
        raise WireError(str(error)) from None
    if len(hashes) > _FEW_KEYS:
        size, sparsest = 2 * _FEW_KEYS, 3 if neighbours == 1 else 7
        while size <= sparsest * len(hashes):  # every size that the growing table can have
            _place(hashes[: size * 2 // 3], size, neighbours)
            size *= 2
    return items


def _place(hashes: list[int], size: int, neighbours: int) -> None:
    """Find places in a table of this size as CPython does, and count the steps."""
    mask, taken = size - 1, bytearray(size)
    steps = _MOST_STEPS[neighbours] * len(hashes)
    for value in hashes:
        rest = value & 0xFFFF_FFFF_FFFF_FFFF
        start = rest & mask
        while (place := taken.find(0, start, start + (neighbours if start + neighbours <= size else 1))) < 0:
            steps -= 1
            if steps < 0:
                raise WireError("too many colliding hashes")
            rest >>= 5
            start = (start * 5 + rest + 1) & mask
        taken[place] = 1


def frame(kind: int, body: bytes = b"") -> bytes:
    """One frame."""
    return FRAME.pack(len(body), kind) + body
