"""The Llama decoder in numpy: RMS norms, rotary positions, grouped queries, a gated feed-forward, a tied head.

Touvron et al. 2023 (https://arxiv.org/abs/2302.13971); grouped queries: Ainslie et al. 2023; rotary positions: Su et
al. 2021, in Hugging Face's convention (the halves of a head are turned together).

What it computes for a token has the same bits whatever else is in the batch, so that a seed means one sample. A BLAS
does not promise that: it takes another way for the last columns of a product, or for a single one. So every product
has a fixed shape. Tokens go in tiles of 16 columns (`_tile` tries whether all columns of a tile are alike), positions
in blocks of 64, what is masked adds exact zeros, and what is added up is added in order. A sample's own keys and values
stay apart from its prompt's, with which all tokens of a tile are multiplied at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archon.backends.nano.folder import Shape, read_shape, read_tensors
from archon.backends.nano.reading import BLOCK, Floats, Prefix, exponentials, readings
from archon.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from archon.backends.nano.batch import Batch

Tokens = NDArray[np.int64]
_MASKED = np.float32(-np.inf)


class _Layer(NamedTuple):
    qkv: Floats
    out: Floats
    gate_up: Floats
    down: Floats


class Llama:
    """Weights, ready for products. The norms' gains and the scale of attention are multiplied into them."""

    def __init__(self, folder: Path) -> None:
        self.shape = s = read_shape(folder)
        take = _Tensors(read_tensors(folder / "model.safetensors"), folder)
        self._embedding = take("model.embed_tokens", s.vocabulary, s.hidden)
        self._layers = [_layer(take, f"model.layers.{number}.", s) for number in range(s.layers)]
        head = take("score", 1, s.hidden) if s.rewards else self._embedding
        self._head: Floats = head * take("model.norm", s.hidden)
        angles = np.arange(s.positions)[:, None] * s.theta ** (-np.arange(0, s.head_dim, 2) / s.head_dim)
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self._tile = _tile((*self._layers[0], self._head), s.head_dim)
        with np.errstate(all="ignore"):
            every = self.read(range(s.vocabulary)[: s.positions]).outcome
        if not np.isfinite(every).all():
            raise DataError(f"{str(folder)!r}: these weights give no finite numbers")

    def read(self, tokens: Sequence[int], past: Prefix | None = None) -> Prefix:
        """Read tokens after `past`, all at once. At least one, and no more than there are positions."""
        return self.read_all([(tokens, past)])[0]

    @np.errstate(over="ignore")  # of exponentials of gates that are shut
    def read_all(self, texts: Sequence[tuple[Sequence[int], Prefix | None]]) -> list[Prefix]:
        """Several at once, each as if it were alone: their tokens share all products but those of attention."""
        groups = list(readings(texts, self.shape, self._tile))
        x = self._embedded(np.fromiter(chain.from_iterable(new for new, _ in texts), np.int64))
        starts = [0 if past is None else past.size for _, past in texts]
        places = [np.arange(start, start + len(new)) for start, (new, _) in zip(starts, texts, strict=True)]
        turn = self._turn(self._tiled(np.concatenate(places)))
        for number, layer in enumerate(self._layers):
            queries, k, v = self._project(x, layer, turn)
            by_token = _by_token(queries)
            k, v = _by_token(k), _by_token(v)
            seen = np.zeros_like(by_token)
            for reading in groups:
                reading.keep(number, k, v)
                asked = by_token[reading.columns]
                asked = self._in_tiles(asked.reshape(-1, *asked.shape[2:]))
                asked = np.ascontiguousarray(asked).reshape(*reading.tiles, *asked.shape[1:])
                told = _by_token(reading.attended(number, asked).reshape(-1, *asked.shape[2:]))
                seen[reading.columns[reading.real]] = told.reshape(*reading.real.shape, *told.shape[1:])[
                    reading.real
                ]
            self._finish(x, layer, np.ascontiguousarray(self._in_tiles(seen)))
        outcome = self._outcome(x)
        found = {place: prefix for reading in groups for place, prefix in reading.read(texts, outcome)}
        return [found[place] for place in range(len(texts))]

    @np.errstate(over="ignore")
    def step(self, tokens: Tokens, batch: Batch[Any]) -> Floats:
        """The logits after one token more of every sample of the batch, which keeps its keys and values."""
        s, count = self.shape, len(tokens)
        x = self._embedded(tokens)
        rows, group = len(x) * self._tile, s.heads // s.kv_heads
        turn = self._turn(self._tiled(batch.places))
        batch.make_room()
        mask = batch.mask
        parts = list(_parts(batch.runs, self._tile))
        shared = np.empty(
            (len(x), s.kv_heads, group, max(p.size for _, _, p in parts), self._tile), np.float32
        )
        asked = np.zeros((count, s.kv_heads, _filled(group, 4), s.head_dim), np.float32)  # fours are quicker
        own = np.empty((*asked.shape[:3], mask.shape[-1]), np.float32)
        # what fills up the last tile has seen nothing: its sums are 1, so that nothing is divided by zero
        top = np.zeros((rows, *own.shape[1:3]), np.float32)
        sums = np.ones((rows, s.kv_heads, group), np.float32)
        mine = np.zeros((rows, *asked.shape[1:]), np.float32)
        for number, layer in enumerate(self._layers):
            queries, k, v = self._project(x, layer, turn)
            keys, values = batch.keep(number, _by_token(k)[:count], _by_token(v)[:count])
            shared.fill(_MASKED)
            for tiles, columns, prefix in parts:
                product = prefix.keys[number, :, None, : prefix.size] @ queries[tiles]
                shared[tiles, :, :, : prefix.size, columns] = product[..., columns]
            asked[:, :, :group] = _by_token(queries)[:count]
            for at, block in enumerate(keys):
                np.matmul(asked, block.swapaxes(2, 3), out=own[..., at * BLOCK : (at + 1) * BLOCK])
            own += mask
            top[:count] = own.max(axis=-1)
            top[..., :group] = np.maximum(_by_token(shared.max(axis=-2)), top[..., :group])
            totals = exponentials(shared, self._in_tiles(top[..., :group])[..., None, :]).sum(axis=-2)
            sums[:count] = _in_order(exponentials(own, top[:count, ..., None]))[..., :group]
            totals += self._in_tiles(sums)
            seen = np.zeros_like(queries)
            for tiles, columns, prefix in parts:
                product = (
                    prefix.values[number, :, None, :, : prefix.size] @ shared[tiles, :, :, : prefix.size]
                )
                seen[tiles, ..., columns] = product[..., columns]
            mine[:count] = 0
            for at, block in enumerate(values):
                mine[:count] += own[..., at * BLOCK : (at + 1) * BLOCK] @ block
            seen += self._in_tiles(mine[:, :, :group])
            self._finish(x, layer, seen / totals[..., None, :])
        batch.advance()
        return self._outcome(x)[:count]

    def _tiled(self, values: NDArray[Any]) -> NDArray[Any]:
        """One value per token as [tile, column], filled up with the last."""
        count = len(values)
        rows = np.empty(_filled(count, self._tile), values.dtype)
        rows[:count], rows[count:] = values, values[-1]
        return rows.reshape(-1, self._tile)

    def _in_tiles(self, by_token: Floats) -> Floats:
        """[token, ...] as [tile, ..., column]."""
        tiles = by_token.reshape(-1, self._tile, *by_token.shape[1:])
        return tiles.transpose(0, *range(2, tiles.ndim), 1)

    def _embedded(self, tokens: Tokens) -> Floats:
        """[tile, feature, column], as everything that follows."""
        return np.ascontiguousarray(self._embedding[self._tiled(tokens)].swapaxes(1, 2))

    def _turn(self, places: Tokens) -> tuple[Floats, Floats]:
        """Cosines and sines of the tokens' positions."""
        cos, sin = (np.ascontiguousarray(table[places].swapaxes(1, 2)) for table in (self._cos, self._sin))
        return cos[:, None], sin[:, None]

    def _project(
        self, x: Floats, layer: _Layer, turn: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats, Floats]:
        """Queries as [tile, key-value head, query, dimension, column]; keys and values."""
        s, half = self.shape, self.shape.head_dim // 2
        projected = (layer.qkv @ self._normed(x)).reshape(len(x), -1, s.head_dim, self._tile)
        turning, values = projected[:, : -s.kv_heads], projected[:, -s.kv_heads :]
        turned = np.empty_like(turning)
        left, right, (cos, sin) = turning[:, :, :half], turning[:, :, half:], turn
        turned[:, :, :half] = left * cos - right * sin
        turned[:, :, half:] = right * cos + left * sin
        queries = turned[:, : s.heads].reshape(len(x), s.kv_heads, -1, s.head_dim, self._tile)
        return queries, turned[:, s.heads :], values

    def _finish(self, x: Floats, layer: _Layer, seen: Floats) -> None:
        """Add to `x` what attention saw, and the feed-forward."""
        x += layer.out @ seen.reshape(len(x), -1, self._tile)
        gate_up = layer.gate_up @ self._normed(x)
        gate, up = gate_up[:, : self.shape.feed_forward], gate_up[:, self.shape.feed_forward :]
        opened = np.negative(gate)
        np.exp(opened, out=opened)
        opened += 1
        np.divide(gate, opened, out=opened)
        opened *= up
        x += layer.down @ opened

    def _normed(self, x: Floats) -> Floats:
        means = (x * x).sum(axis=1, keepdims=True) / np.float32(self.shape.hidden)
        normed: Floats = x / np.sqrt(means + np.float32(self.shape.eps))
        return normed

    def _outcome(self, x: Floats) -> Floats:
        """By token: logits, or the one score of a reward model."""
        if self.shape.rewards:  # one row: BLAS would take another way for it
            score: Floats = (self._head.T * self._normed(x)).sum(axis=1).reshape(-1)
            return score
        logits: Floats = self._head @ self._normed(x)
        return _by_token(logits)


class _Tensors:
    """Takes tensors by name, and says what is wrong with them."""

    def __init__(self, tensors: Mapping[str, Floats], folder: Path) -> None:
        self._tensors = tensors
        self._folder = folder

    def __call__(self, name: str, *shape: int) -> Floats:
        tensor = self._tensors.get(f"{name}.weight")
        if tensor is None or tensor.shape != shape:
            have = "absent" if tensor is None else f"of shape {list(tensor.shape)}"
            raise DataError(
                f"{str(self._folder)!r}: {name}.weight is {have}; by `config.json` it is {list(shape)}"
            )
        return tensor


def _layer(take: _Tensors, name: str, s: Shape) -> _Layer:
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    scale = np.float32(math.sqrt(s.head_dim))
    sizes = {"q": q, "k": kv, "v": kv}
    qkv = [take(f"{name}self_attn.{which}_proj", size, s.hidden) for which, size in sizes.items()]
    gate_up = [take(f"{name}mlp.{which}_proj", s.feed_forward, s.hidden) for which in ("gate", "up")]
    return _Layer(
        np.concatenate([qkv[0] / scale, *qkv[1:]]) * take(f"{name}input_layernorm", s.hidden),
        take(f"{name}self_attn.o_proj", s.hidden, q),
        np.concatenate(gate_up) * take(f"{name}post_attention_layernorm", s.hidden),
        take(f"{name}mlp.down_proj", s.hidden, s.feed_forward),
    )


def _filled(number: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `number`."""
    return -(-number // unit) * unit


def _by_token(tiles: Floats) -> Floats:
    """[tile, ..., column] as [token, ...]."""
    last = tiles.ndim - 1
    return tiles.transpose(0, last, *range(1, last)).reshape(-1, *tiles.shape[1:-1])


def _parts(runs: Iterable[tuple[int, int, Prefix]], tile: int) -> Iterator[tuple[slice, slice, Prefix]]:
    """The runs of samples with one prompt as whole tiles, and columns of a tile: which tiles, which columns."""
    for start, stop, prefix in runs:
        for at in (first, last) if (first := start // tile) != (last := stop // tile) else (first,):
            begin, end = max(start, at * tile) - at * tile, min(stop, (at + 1) * tile) - at * tile
            if begin > 0 or 0 < end < tile:
                yield slice(at, at + 1), slice(begin, end), prefix
        whole = slice(-(-start // tile), last)
        if whole.start < whole.stop:
            yield whole, slice(0, tile), prefix


def _in_order(values: Floats) -> Floats:
    """The sum over the last axis, block by block in order: zeros at the end change no bit of it."""
    blocks: Floats = values.reshape(*values.shape[:-1], -1, BLOCK).sum(axis=-1)
    total = blocks[..., 0].copy()
    for number in range(1, blocks.shape[-1]):
        total += blocks[..., number]
    return total


def _tile(weights: Iterable[Floats], head_dim: int) -> int:
    """The most columns of a product, of those tried, that all get the same bits for the same column.

    Found by trying, as BLAS libraries differ: OpenBLAS treats 16 alike on AVX2, and not 24 or 12. Where none is
    found, a sample may depend on its place in the batch by the last bits of its logits.
    """
    draw = np.random.default_rng(0)
    blocks = [(BLOCK, head_dim), (head_dim, BLOCK), (61, head_dim), (head_dim, 61)]
    tried = [*weights, *(draw.standard_normal(shape, np.float32) for shape in blocks)]
    for tile in (16, 8, 4):
        columns = [np.repeat(draw.standard_normal((w.shape[1], 1), np.float32), tile, axis=1) for w in tried]
        products = [w @ column for w, column in zip(tried, columns, strict=True) if len(w) > 1]
        if all((product == product[:, :1]).all() for product in products):
            return tile
    return 16
