"""Which worker goes on from what: the one that has read the longest beginning of a text, if it is not too busy.

A worker keeps what it has read for the next text that begins alike, and a search asks for many that do. To a worker
that has not read the beginning, it is new, and is read, and paid for, again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile

_BLOCK = 16
"""Tokens; how far texts agree is known to so many."""
_REMEMBERED = 1 << 13
"""Blocks of each worker: about what its memory for what was read has room for."""
_SLACK = 32
"""How many samples more than the idlest worker the one that knows the beginning may have to do. Beside others, the
first dozen or two cost hardly more than one."""


class Reader:
    """What one worker was given to read, as far as it is remembered."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def known(self, blocks: Sequence[int]) -> int:
        """How many of the first blocks it has read."""
        return sum(1 for _ in takewhile(self._blocks.__contains__, blocks))

    def note(self, blocks: Sequence[int]) -> None:
        """It reads them now."""
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > _REMEMBERED:
            self._blocks.popitem(last=False)

    def forget(self) -> None:
        """The worker has ended."""
        self._blocks.clear()


def blocks(tokens: Sequence[int]) -> list[int]:
    """A number for each whole block of a text, which stands for everything up to its end."""
    return list(_chained(tokens))


def _chained(tokens: Sequence[int]) -> Iterator[int]:
    past = 0
    for at in range(_BLOCK, len(tokens) + 1, _BLOCK):
        past = hash((past, *tokens[at - _BLOCK : at]))
        yield past


def choose(loads: Sequence[int], readers: Sequence[Reader], text: Sequence[int]) -> int:
    """The place of the worker to ask: of those that are not too busy, the one that has read most of the text, given
    as its blocks; else the idlest."""
    most = min(loads) + _SLACK
    able = [place for place, load in enumerate(loads) if load <= most]
    return max(able, key=lambda place: (readers[place].known(text), -loads[place]))
