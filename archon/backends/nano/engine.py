"""Continuous batching: the samples of all requests share decoding steps; who finishes leaves, who waits enters.

(Yu et al. 2022, Orca.) A prompt is read once for all of its samples, and what is read of it is kept for the next that
begins alike. One thread, no clock, no files: `add`, `cancel` and `step` are all there is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from archon.backends.nano.batch import Batch
from archon.backends.nano.llama import Llama
from archon.backends.nano.reading import Floats, Prefix
from archon.backends.nano.sampling import Choice, choose, log_probabilities
from archon.backends.nano.tokens import EOS, has_text

_KEPT_BYTES = 128 << 20
"""Memory for prompts that were read."""
_READ_AT_ONCE = 2048
"""Once so many tokens of prompts were read, those who are decoded have a step before more enter."""
_WORTH_WAITING = 16
"""A text that begins with so many tokens more like one that is being read than like any that was read waits for it."""


class Ask(NamedTuple):
    """Samples of one prompt."""

    key: int
    """Names the request."""
    tokens: tuple[int, ...]
    """The prompt."""
    samples: tuple[tuple[int, int | None], ...]
    """Number and seed of each; without a seed it is random."""
    choice: Choice
    limit: int
    """New tokens at most; the model's context ends a sample as well."""
    stops: tuple[tuple[int, ...], ...] = ()
    """Stop strings: of those that end with one character, that which began first counts."""
    logprobs: int | None = None
    """Alternatives per token, where log-probabilities are wanted."""


class Logprob(NamedTuple):
    """The log-probability of a token, with the likeliest ones."""

    value: float
    top: tuple[tuple[int, float], ...]


class Done(NamedTuple):
    """One finished sample."""

    key: int
    number: int
    tokens: tuple[int, ...]
    """All that were generated, those that ended it included."""
    text: int
    """How many of them are its text."""
    stop: int | None
    """Which stop string ended it; -1 is the end of the turn, None the limit."""
    logprobs: tuple[Logprob, ...] | None
    cached: int
    """Tokens of the prompt that were read before."""


class _Sample:
    """A sample in flight."""

    def __init__(
        self, ask: Ask, number: int, seed: int | None, prefix: Prefix, cached: int, limit: int
    ) -> None:
        self.ask = ask
        self.number = number
        self.prefix = prefix
        self.cached = cached
        self.limit = limit
        self.uniform = np.random.default_rng(seed).random(limit)
        self.tokens: list[int] = []
        self.characters: list[int] = []
        """The tokens that have a text, in which stop strings are looked for."""
        self.logprobs: list[Logprob] = []

    def append(self, token: int) -> Done | None:
        """One token more; the sample, if that ended it."""
        tokens, ask = self.tokens, self.ask
        tokens.append(token)
        text, stop = len(tokens), None
        if token == EOS:
            text, stop = text - 1, -1
        else:
            if has_text(token):
                stop = self._stopped(token)
            if stop is not None:
                text = self._before(len(ask.stops[stop]))
            elif len(tokens) < self.limit:
                return None
        logprobs = None if ask.logprobs is None else tuple(self.logprobs)
        return Done(ask.key, self.number, tuple(tokens), text, stop, logprobs, self.cached)

    def _stopped(self, character: int) -> int | None:
        """Which stop string ends with this character."""
        self.characters.append(character)
        stops = self.ask.stops
        ended = (n for n, one in enumerate(stops) if tuple(self.characters[-len(one) :]) == one)
        return max(ended, key=lambda n: len(stops[n]), default=None)

    def _before(self, characters: int) -> int:
        """How many tokens come before the last so many characters."""
        place = len(self.tokens)
        while characters:
            place -= 1
            characters -= has_text(self.tokens[place])
        return place


class _Waiting:
    """A request's samples that have not entered yet."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.samples = deque(ask.samples)
        self.cached: int | None = None
        """How much of its prompt had been read before it came, once that is known."""


class Engine:
    """Generates with one model."""

    def __init__(self, model: Llama, capacity: int = 256) -> None:
        self.model = model
        self._batch: Batch[_Sample] = Batch(model.shape, capacity)
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._read: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._read_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._batch.rows

    def add(self, ask: Ask) -> None:
        """Samples to generate. The prompt must leave room for a token."""
        if ask.samples:
            self._waiting[ask.key] = _Waiting(ask)

    def cancel(self, key: int) -> int:
        """Let a request's unfinished samples go; returns the tokens that they had got."""
        self._waiting.pop(key, None)
        places = [place for place, sample in enumerate(self._batch.rows) if sample.ask.key == key]
        tokens = sum(len(self._batch.rows[place].tokens) for place in places)
        for place in reversed(places):
            self._batch.remove(place)
        return tokens

    def step(self) -> list[Done]:
        """One token more for every sample; returns those that it ended."""
        done = self._admit()
        rows = self._batch.rows
        if rows:
            logits = self.model.step(np.array([sample.tokens[-1] for sample in rows]), self._batch)
            ended = self._draw(rows, logits)
            done += ended.values()
            for place in reversed(ended):
                self._batch.remove(place)
        return done

    def read(self, texts: Sequence[tuple[int, ...]]) -> list[tuple[Prefix, int]]:
        """Sequences, read; and how much of each had been read before. What begins like one that is being read waits
        for it."""
        found: dict[int, tuple[Prefix, int]] = {}
        left = dict(enumerate(texts))
        while left:
            now: dict[tuple[int, ...], tuple[Prefix | None, int]] = {}
            for place, tokens in list(left.items()):
                if tokens in now:
                    continue
                past, common = self._known(tokens)
                if past is not None and common == len(tokens):
                    if tokens not in self._read:
                        self._keep(past)
                    found[place] = past, common
                    del left[place]
                elif all(_common(other, tokens, common) < common + _WORTH_WAITING for other in now):
                    now[tokens] = past, common
            if not now:
                break
            fresh = self.model.read_all([(tokens[common:], past) for tokens, (past, common) in now.items()])
            for prefix in fresh:
                self._keep(prefix)
            told = {prefix.tokens: prefix for prefix in fresh}
            for place, tokens in list(left.items()):
                if tokens in told:
                    found[place] = told[tokens], now.pop(tokens, (None, len(tokens)))[1]
                    del left[place]
        return [found[place] for place in range(len(texts))]

    def _known(self, tokens: tuple[int, ...]) -> tuple[Prefix | None, int]:
        """The longest beginning that was read, and its size."""
        whole = self._read.get(tokens)
        if whole is not None:
            self._read.move_to_end(tokens)
            return whole, len(tokens)
        best, common = None, 0
        for kept in self._read.values():
            same = _common(kept.tokens, tokens, common)
            if same > common:
                best, common = kept, same
        return (None if best is None else best.cut(common)), common

    def _keep(self, prefix: Prefix) -> None:
        self._read[prefix.tokens] = prefix
        self._read_bytes += prefix.nbytes
        while len(self._read) > 1 and self._read_bytes > _KEPT_BYTES:
            self._read_bytes -= self._read.popitem(last=False)[1].nbytes

    def _admit(self) -> list[Done]:
        """Let samples enter, with their first token; returns those that end with it."""
        entering: list[tuple[_Waiting, int, int | None]] = []
        prompts: dict[tuple[int, ...], None] = {}
        room, to_read = self._batch.capacity - len(self._batch), _READ_AT_ONCE
        while self._waiting and len(entering) < room and to_read > 0:
            key, waiting = next(iter(self._waiting.items()))
            entering.append((waiting, *waiting.samples.popleft()))
            if not waiting.samples:
                del self._waiting[key]
            prompt = waiting.ask.tokens
            if prompt not in prompts:
                prompts[prompt] = None
                to_read -= len(prompt) - self._known(prompt)[1]
        read = dict(zip(prompts, self.read(list(prompts)), strict=True))
        fresh: list[_Sample] = []
        for waiting, number, seed in entering:
            ask = waiting.ask
            prefix, cached = read[ask.tokens]
            if waiting.cached is None:
                waiting.cached = cached
                read[ask.tokens] = prefix, prefix.size  # for whoever asks the same now
            limit = min(ask.limit, self.model.shape.positions - prefix.size)
            fresh.append(_Sample(ask, number, seed, prefix, waiting.cached, limit))
        if not fresh:
            return []
        ended = self._draw(fresh, np.stack([sample.prefix.outcome[-1] for sample in fresh]))
        for place, sample in enumerate(fresh):
            if place not in ended:
                self._batch.add(sample)
        return list(ended.values())

    def _draw(self, samples: Sequence[_Sample], logits: Floats) -> dict[int, Done]:
        """Give each sample its next token; returns those that it ended, by place, in order."""
        uniform = np.array([sample.uniform[len(sample.tokens)] for sample in samples])
        tokens = choose(logits, [sample.ask.choice for sample in samples], uniform).tolist()
        told = [place for place, sample in enumerate(samples) if sample.ask.logprobs is not None]
        if told:
            for place, logs in zip(told, log_probabilities(logits[told]), strict=True):
                likeliest = np.argsort(-logs, kind="stable")[: samples[place].ask.logprobs]
                top = tuple((int(token), float(logs[token])) for token in likeliest)
                samples[place].logprobs.append(Logprob(float(logs[tokens[place]]), top))
        ended = {}
        for place, (sample, token) in enumerate(zip(samples, tokens, strict=True)):
            done = sample.append(token)
            if done is not None:
                ended[place] = done
        return ended


def _common(one: tuple[int, ...], other: tuple[int, ...], least: int) -> int:
    """How many tokens two sequences begin with alike; `least` where that is not more."""
    if one[: least + 1] != other[: least + 1]:
        return least
    most = min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
