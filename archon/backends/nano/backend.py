"""The nano models as a backend: real sampling, verifying and scoring without a key, a GPU or a download.

    model = Nano()                      # the language model that ships
    scorer = Nano(weights="prm")        # the process reward model

The same weights can be served by vLLM (`{backend: vllm, model: .../weights/lm}`). Samples with a seed are the same in
every run on the same machine, whatever is decoded beside them. Where no temperature is given it is 1. Log-probabilities
are the model's own, before the temperature. What differs from vLLM: design/nano_engine.md.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archon.backends.base import (
    Capabilities,
    Completion,
    LikelihoodRequest,
    Model,
    Progress,
    Request,
    Scored,
    ScoreRequest,
    Tokens,
)
from archon.backends.nano import tokens as alphabet
from archon.backends.nano.folder import fingerprint, locate, read_shape
from archon.backends.nano.processes import Worker, Workers
from archon.candidate import Finish, TokenLogprob
from archon.compute import Architecture
from archon.errors import CapabilityError, ConnectionDropped, ContextOverflow, ModelNotFound, RequestRejected
from archon.prices import Price

_LEAST_SHARE = 16
"""Fewer samples of one prompt are not spread over workers: each would read the prompt."""
_PATIENCE = 5.0
"""Seconds to wait for how far cancelled samples had come."""


class Nano(Model):
    """A tiny model that runs here: one that ships (`lm`, `prm`, `orm`), or a folder of the same kind."""

    name: ClassVar[str] = "nano"
    short: ClassVar[str] = "weights"
    of_the_lab: ClassVar[bool] = True

    weights: str = "lm"
    """Shipped weights by name, or the path of a folder with `config.json` and `model.safetensors`."""
    scores: Literal["steps", "outcome"] | None = None
    """What a reward model was trained to score; `outcome` for a folder whose name begins with `orm`, else `steps`."""
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Processes; `auto`: one per core, eight at most. They start as they are needed."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 256
    """Samples that one worker decodes together; more wait."""
    price: Price | None = Price(input=0, output=0)
    """It runs here and costs nothing, which is a price. Its FLOPs are counted."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens where a stage gives none; where not given, until the context is full."""
    concurrency: Annotated[int, Field(ge=1)] = 256
    """Calls in flight at the start: the engine itself lets wait what does not fit."""

    @property
    def label(self) -> str:
        """Its price is its own."""
        return f"nano:{self.weights}"

    def shape(self) -> Architecture | None:
        """By its folder, where it is not given."""
        if self.architecture is not None or self.parameters is not None:
            return super().shape()
        return Architecture.read(locate(self.weights) / "config.json")

    def check(self) -> None:
        """Raise DataError where there are no such weights."""
        read_shape(locate(self.weights))

    def connect(self) -> NanoBackend:
        """Look at the folder; processes start with the first request. Raises DataError."""
        return NanoBackend(self)


class NanoBackend:
    """Workers, and what goes to and comes from them."""

    def __init__(self, config: Nano) -> None:
        folder = locate(config.weights)
        self._shape = read_shape(folder)
        self._name = config.weights
        self._sha256 = fingerprint(folder)
        if not self._shape.rewards:
            self._scores = None
        else:
            self._scores = config.scores or ("outcome" if folder.name.startswith("orm") else "steps")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(cores, 8) if config.workers == "auto" else config.workers
        self._workers = Workers(folder, self._sha256, count, config.batch)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights and how `config.json` uses them, wherever they lie."""
        return {"backend": "nano", "sha256": self._sha256}

    @property
    def endpoint(self) -> str:
        """The weights: each have their own workers."""
        return f"nano {self._sha256[:12]}"

    @property
    def capabilities(self) -> Capabilities:
        """Everything of a language model, or of a reward model."""
        if self._scores is not None:
            return Capabilities(
                completes=False, scores=self._scores, score_scale="logit", max_replies=256, aborts=True
            )
        return Capabilities(
            max_n=4096,
            prefix=True,
            logprobs=True,
            seed=True,
            raw_prompt=True,
            truncation_params=True,
            aborts=True,
            max_tokens=self._shape.positions - 1,
            max_replies=256,
            likelihoods=True,
        )

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Each sample as it finishes. A sample without a seed is random."""
        message, stops = self._message(request)
        prompt = len(message["tokens"])
        progress.prompt_tokens, progress.completion_tokens = prompt, 0
        heard: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        asked: list[tuple[Worker, int]] = []
        left = set(indices)
        first = True
        try:
            for share in self._workers.shares(indices, _LEAST_SHARE):
                samples = [(index, request.seed_of(index)) for index in share]
                asked.append(await self._workers.ask({**message, "samples": samples}, heard, len(share)))
                progress.sent = True
            while left:
                done = self._checked(await heard.get())
                left.discard(done["number"])
                completion = self._completion(done, stops, prompt if first else 0)
                first = False
                yield completion
        finally:
            try:
                if left:
                    progress.completion_tokens = None  # who is cancelled once more does not wait to know
                    progress.completion_tokens = await self._cancel(asked, heard)
            finally:
                for worker, key in asked:
                    worker.forget(key)

    async def score(self, request: ScoreRequest, progress: Progress) -> Sequence[Scored]:
        """Scores at the ends of steps, or after the whole reply, as logits."""
        if self._scores is None:
            raise CapabilityError(
                f"{self._name!r} is a language model and scores nothing; use `weights: prm`"
            )
        read = [self._places(request, steps) for steps in request.replies]
        messages = [{"op": "score", "tokens": tokens, "places": places} for tokens, places in read]
        told = await self._told(messages, progress)
        return [
            Scored(
                tuple(one["numbers"]), Tokens(len(tokens), cached=one["cached"]), requests=int(number == 0)
            )
            for number, (one, (tokens, _)) in enumerate(zip(told, read, strict=True))
        ]

    async def likelihoods(self, request: LikelihoodRequest, progress: Progress) -> Sequence[Scored]:
        """By one reading of each reply; a token is a character, so that none reaches into two steps."""
        self._check_writes(request.extra)
        raw = request.prompt
        opening = alphabet.chat(request.messages) if raw is None else alphabet.raw(raw)
        messages: list[Mapping[str, Any]] = []
        sizes = []
        for steps in request.replies:
            parts = [alphabet.encode(step) for step in steps]
            if request.finished:
                parts[-1].append(alphabet.EOS)
            following = [token for part in parts for token in part]
            tokens = [*opening, *following[: len(following) - request.finished]]
            self._check_room(len(tokens))
            messages.append(
                {"op": "weigh", "tokens": tokens, "first": len(opening) - 1, "following": following}
            )
            sizes.append(tuple(map(len, parts)))
        told = await self._told(messages, progress)
        found = []
        for number, (one, counts) in enumerate(zip(told, sizes, strict=True)):
            logs = iter(one["numbers"])
            sums = tuple(math.fsum(islice(logs, count)) for count in counts)
            used = Tokens(len(messages[number]["tokens"]), cached=one["cached"])
            found.append(Scored(sums, used, requests=int(number == 0), counts=counts))
        return found

    async def _told(
        self, messages: Sequence[Mapping[str, Any]], progress: Progress
    ) -> list[Mapping[str, Any]]:
        """What the workers say of texts that are read once."""
        progress.prompt_tokens = sum(len(message["tokens"]) for message in messages)
        progress.completion_tokens = 0
        heard: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        asked: list[tuple[Worker, int]] = []
        found: dict[int, Mapping[str, Any]] = {}
        try:
            for number, message in enumerate(messages):
                asked.append(await self._workers.ask({**message, "number": number}, heard, 1))
                progress.sent = True
            while len(found) < len(messages):
                told = self._checked(await heard.get())
                found[told["number"]] = told
        finally:
            for worker, key in asked:
                if len(found) < len(messages):
                    worker.cancel(key)
                worker.forget(key)
        return [found[number] for number in range(len(messages))]

    async def close(self) -> None:
        """End the workers."""
        await self._workers.close()

    def _message(self, request: Request) -> tuple[dict[str, Any], list[str]]:
        """What a worker is told, but for the samples; and its stop strings."""
        sampling = request.sampling
        self._check_writes(sampling.extra)
        if request.prompt is not None:
            tokens = alphabet.raw(request.prompt, request.prefix)
        else:
            tokens = alphabet.chat(request.messages, request.prefix)
        self._check_room(len(tokens) + 1)
        stops = [
            s for s in sampling.stop if s and alphabet.UNK not in alphabet.encode(s)
        ]  # others never come
        message = {
            "op": "ask",
            "tokens": tokens,
            "choice": (
                1.0 if sampling.temperature is None else sampling.temperature,
                sampling.top_p or 1.0,
                sampling.top_k or 0,
                sampling.min_p or 0.0,
            ),
            "limit": sampling.max_tokens or self._shape.positions,
            "stops": [alphabet.encode(stop) for stop in stops],
            "logprobs": sampling.logprobs,
        }
        return message, stops

    def _places(self, request: ScoreRequest, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """A reply as it is read, and the tokens whose scores count."""
        tokens = alphabet.chat(request.messages)
        places = []
        for step in steps:
            tokens += alphabet.encode(step)
            places.append(len(tokens) - 1)
        if self._scores == "outcome":
            tokens.append(alphabet.EOS)
            places = [len(tokens) - 1]
        self._check_room(len(tokens))
        return tokens, places

    def _check_writes(self, extra: Mapping[str, Any]) -> None:
        if self._shape.rewards:
            raise CapabilityError(f"{self._name!r} is a reward model and writes nothing; use `weights: lm`")
        if extra:
            raise RequestRejected(
                f"the nano models take no extra parameters ({', '.join(extra)})", model=self._name
            )

    def _check_room(self, tokens: int) -> None:
        if tokens > self._shape.positions:
            raise ContextOverflow(
                f"{tokens} tokens do not fit the context of {self._shape.positions} (a token is a character); "
                "shorten the prompt",
                model=self._name,
            )

    def _checked(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["op"] == "failed":
            raise ModelNotFound(f"the weights cannot be used: {message['why']}", model=self._name)
        if message["op"] == "lost":
            raise ConnectionDropped("a worker process of the nano engine has ended", model=self._name)
        return message

    def _completion(self, done: Mapping[str, Any], stops: Sequence[str], prompt: int) -> Completion:
        """`prompt` is 0 where it came with another sample."""
        ended: int | None = done["stop"]
        finish: Finish = "length" if ended is None else "stop" if ended < 0 else "stop_string"
        logprobs = None
        if done["logprobs"] is not None:
            logprobs = tuple(
                TokenLogprob(
                    alphabet.shown(token),
                    value,
                    tuple((alphabet.shown(other), logprob) for other, logprob in top),
                )
                for token, (value, top) in zip(done["tokens"], done["logprobs"], strict=True)
            )
        return Completion(
            done["number"],
            alphabet.decode(done["tokens"][: done["text"]]),
            finish,
            stops[ended] if finish == "stop_string" and ended is not None else None,
            logprobs=logprobs,
            tokens=Tokens(prompt, done["cached"] if prompt else 0, len(done["tokens"])),
            requests=int(prompt > 0),
        )

    async def _cancel(
        self, asked: Sequence[tuple[Worker, int]], heard: asyncio.Queue[Mapping[str, Any]]
    ) -> int | None:
        """Let the unfinished samples go; returns the tokens that they had got, None where a worker cannot tell."""
        tokens, answers = 0, sum(worker.cancel(key) for worker, key in asked)
        if answers < len(asked):
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                while answers:
                    message = await heard.get()
                    if message["op"] == "done":  # in the meantime
                        tokens += len(message["tokens"])
                        continue
                    if message["op"] != "cancelled":
                        return None
                    tokens += message["tokens"]
                    answers -= 1
        except TimeoutError:
            return None
        return tokens
