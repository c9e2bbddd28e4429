"""The samples that are decoded together: their own keys and values, and which of them share a prompt.

Samples of one prompt stand side by side as far as possible, as a run shares one product over the prompt. A sample that
leaves is replaced by the last of its run, and that by the last of all, so that no row is ever idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from archon.backends.nano.folder import Shape
from archon.backends.nano.reading import BLOCK, Floats, Prefix


class Row(Protocol):
    """A sample as the batch needs it."""

    prefix: Prefix


R = TypeVar("R", bound=Row)


class Batch(Generic[R]):
    """At most `capacity` samples. `rows` are they, in the order of every array."""

    def __init__(self, shape: Shape, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[R] = []
        self._kept = np.zeros(capacity, np.int64)
        self._sizes = np.zeros(capacity, np.int64)
        self._slots = (np.zeros(0, np.int64),) * 3
        """Where the next key of each goes: block, sample, place in the block."""
        self._used = 0
        """Blocks that hold keys, or will with the next."""
        nothing = (shape.layers, 0, capacity, shape.kv_heads, BLOCK, shape.head_dim)
        self._keys, self._values = np.zeros(nothing, np.float32), np.zeros(nothing, np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def runs(self) -> Iterator[tuple[int, int, Prefix]]:
        """Stretches of rows with one prompt: start, stop, prompt."""
        start = 0
        for _, same in groupby(self.rows, key=lambda row: id(row.prefix)):
            stop = start + len(list(same))
            yield start, stop, self.rows[start].prefix
            start = stop

    @property
    def places(self) -> NDArray[np.int64]:
        """The position of each sample's next token."""
        count = len(self.rows)
        return self._sizes[:count] + self._kept[:count]

    def add(self, row: R) -> None:
        """Take a sample in, at the end."""
        place = len(self.rows)
        self.rows.append(row)
        self._kept[place], self._sizes[place] = 0, row.prefix.size

    def remove(self, place: int) -> None:
        """Let a sample go."""
        end, last = place, len(self.rows) - 1
        while end < last and self.rows[end + 1].prefix is self.rows[place].prefix:
            end += 1
        for source, target in ((end, place), (last, end)):
            if source != target:
                self._move(source, target)
        self.rows.pop()

    def make_room(self) -> None:
        """Room for one token more of each, before `mask` and `keep`."""
        count = len(self.rows)
        block, offset = np.divmod(self._kept[:count], BLOCK)
        self._slots = block, np.arange(count), offset
        have, self._used = self._keys.shape[1], int(block.max(initial=0)) + 1
        if self._used > have:
            self._keys, self._values = (
                _longer(store, max(self._used, 2 * have)) for store in (self._keys, self._values)
            )

    @property
    def mask(self) -> Floats:
        """What the next token of each row sees of the sample's own (0) or not (minus infinity)."""
        kept = self._kept[: len(self.rows), None, None, None]
        return np.where(np.arange(self._used * BLOCK) <= kept, np.float32(0), np.float32(-np.inf))

    def keep(self, layer: int, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Keep a key and a value ([sample, head, dimension]) more; returns all of the layer, block by block."""
        block, sample, offset = self._slots
        for store, new in ((self._keys, keys), (self._values, values)):
            store[layer][block, sample, :, offset] = new
        kept = slice(self._used), slice(len(sample))
        return self._keys[layer][kept], self._values[layer][kept]

    def advance(self) -> None:
        """One token more is kept of each."""
        self._kept[: len(self.rows)] += 1

    def _move(self, source: int, target: int) -> None:
        blocks = int(self._kept[source]) // BLOCK + 1
        for store in (self._keys, self._values):
            store[:, :blocks, target] = store[:, :blocks, source]
        self._kept[target], self._sizes[target] = self._kept[source], self._sizes[source]
        self.rows[target] = self.rows[source]


def _longer(store: Floats, blocks: int) -> Floats:
    """More blocks; memory that no sample has needed yet is not touched."""
    longer = np.zeros((len(store), blocks, *store.shape[2:]), np.float32)
    longer[:, : store.shape[1]] = store
    return longer
