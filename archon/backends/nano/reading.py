"""Texts that are read together, as attention sees them: those with as many positions and tiles stand in one array.

Every product has the shape that it has for one text, so that each is read with the same bits alone or among others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archon.backends.nano.folder import Shape

Floats = NDArray[np.float32]
BLOCK = 64
"""Positions per product of attention."""
_MASKED = np.float32(-np.inf)


@dataclass(frozen=True, eq=False)
class Prefix:
    """The beginning of a sequence, read."""

    tokens: tuple[int, ...]
    keys: Floats
    """[layer, head, position, dimension]; there may be more positions than tokens."""
    values: Floats
    """[layer, head, dimension, position]."""
    outcome: Floats
    """After each token: the next one's logits, or of a reward model the score."""

    @property
    def size(self) -> int:
        """How many tokens it has."""
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """The memory it takes."""
        return self.keys.nbytes + self.values.nbytes + self.outcome.nbytes

    def cut(self, size: int) -> Prefix:
        """Its beginning."""
        return Prefix(self.tokens[:size], self.keys, self.values, self.outcome[:size])


Text = tuple[Sequence[int], Prefix | None]
"""What is new, and what was read before it."""


class Reading:
    """Texts of one size: keys and values as [text, layer, ...]."""

    def __init__(self, texts: Sequence[tuple[int, int, Text]], width: int, tile: int, shape: Shape) -> None:
        """Each with its place among all and the column where its tokens begin among those of all."""
        s, count = shape, len(texts)
        sizes = np.array([len(new) for _, _, (new, _) in texts])
        self._texts = [(place, column) for place, column, _ in texts]
        self._starts = np.array([0 if past is None else past.size for _, _, (_, past) in texts])
        self.tiles = count, int(-(-sizes.max() // tile))
        """How many texts, and tiles of each."""
        steps = np.arange(self.tiles[1] * tile)
        self.real = steps < sizes[:, None]
        """Which columns of its tiles are tokens, [text, column]."""
        first = np.array([column for _, column in self._texts])
        self.columns = first[:, None] + np.minimum(steps, sizes[:, None] - 1)
        """Where they stand among the tokens of all; what fills up the last tile is its last token once more."""
        self._keys = np.zeros((count, s.layers, s.kv_heads, width, s.head_dim), np.float32)
        self._values = np.zeros((count, s.layers, s.kv_heads, s.head_dim, width), np.float32)
        for at, (_, _, (_, past)) in enumerate(texts):
            if past is not None:
                self._keys[at, :, :, : past.size] = past.keys[:, :, : past.size]
                self._values[at, ..., : past.size] = past.values[..., : past.size]
        self._at, self._steps = np.nonzero(self.real)
        self._places = self._starts[self._at] + self._steps
        places = (self._starts[:, None] + np.minimum(steps, sizes[:, None] - 1)).reshape(*self.tiles, tile)
        seen = np.arange(width)[:, None] <= places[:, :, None]
        self._mask = np.where(seen, np.float32(0), _MASKED)[:, :, None, None]
        self._blocks = [slice(at, at + BLOCK) for at in range(0, width, BLOCK)]
        self._scores = np.empty((*self.tiles, s.kv_heads, s.heads // s.kv_heads, width, tile), np.float32)

    def keep(self, layer: int, keys: Floats, values: Floats) -> None:
        """Keep what the layer made of the tokens of all texts, [token, head, dimension]."""
        columns = self.columns[self.real]
        self._keys[self._at, layer, :, self._places] = keys[columns]
        self._values[self._at, layer, :, :, self._places] = values[columns]

    def attended(self, layer: int, queries: Floats) -> Floats:
        """What each token sees. Queries, and what is returned, are [text, tile, head, query, dimension, column]."""
        keys, values = self._keys[:, layer, None, :, None], self._values[:, layer, None, :, None]
        scores = self._scores
        for block in self._blocks:
            np.matmul(keys[..., block, :], queries, out=scores[..., block, :])
        scores += self._mask
        totals = exponentials(scores, scores.max(axis=-2, keepdims=True)).sum(axis=-2, keepdims=True)
        seen = np.zeros_like(queries)
        for block in self._blocks:
            seen += values[..., block] @ scores[..., block, :]
        seen /= totals
        return seen

    def read(self, texts: Sequence[Text], outcome: Floats) -> Iterator[tuple[int, Prefix]]:
        """Each text with its place among all; `outcome` is after each token of all. A text keeps nothing of others."""
        for at, (place, column) in enumerate(self._texts):
            new, past = texts[place]
            told = outcome[column : column + len(new)]
            whole = told.copy() if past is None else np.concatenate((past.outcome, told))
            tokens = (*(() if past is None else past.tokens), *new)
            yield place, Prefix(tokens, self._keys[at].copy(), self._values[at].copy(), whole)


def readings(texts: Sequence[Text], shape: Shape, tile: int) -> Iterator[Reading]:
    """Texts by what attention needs room for."""
    groups: dict[tuple[int, int], list[tuple[int, int, Text]]] = {}
    column = 0
    for place, (new, past) in enumerate(texts):
        size = len(new) + (0 if past is None else past.size)
        groups.setdefault((-(-size // BLOCK) * BLOCK, -(-len(new) // tile)), []).append(
            (place, column, (new, past))
        )
        column += len(new)
    for (width, _), group in groups.items():
        yield Reading(group, width, tile, shape)


def exponentials(scores: Floats, top: Floats) -> Floats:
    """In place."""
    scores -= top
    return np.exp(scores, out=scores)
