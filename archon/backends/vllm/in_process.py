"""The backend `vllm` with `in_process: true`: no server, but vLLM's engine in a thread of ours (engine_thread.py).

Prompts, parameters and seeds are those that a server of the same model would be given, and so are the samples'
keys: what one has drawn the other replays. The samples of one request are requests of their own to the engine:
each is yielded as it finishes, and what is outstanding is stopped when the iterator is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from archon.backends.base import Capabilities, Completion, Progress, Request, Tokens
from archon.backends.servers import dialect
from archon.backends.vllm import metrics
from archon.backends.vllm.capabilities import needs_fields
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.engine_thread import BESIDE, Asked, EngineThread, Facts, hold, leaving
from archon.candidate import Finish, TokenLogprob
from archon.engine import EngineFigures
from archon.errors import (
    ArchonError,
    ConnectionDropped,
    ContextOverflow,
    EndpointDown,
    MissingExtra,
    Overloaded,
    RequestRejected,
)

_DEATHS_UNTIL_DOWN = 3
"""An engine that dies so often without having answered in between is not started again."""
_PATIENCE = 30.0
"""Seconds to wait for how far cancelled samples had come: a step of the engine may be in work."""
_KEPT = 256
"""Prompts whose tokens are kept."""
_LEAST_LOGPROB = -9999.0
"""What vLLM's server says for minus infinity, which JSON does not have."""
_numbers = itertools.count()


def importable() -> None:
    """Raise MissingExtra where our own Python has no vLLM."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # a folder of that name, perhaps
        raise MissingExtra(
            f"`in_process` needs vLLM in our own Python, and {sys.executable} has none. Install archon into the "
            "environment that has vLLM, and run it from there (docs/vllm.md); or leave out `in_process`: a server may "
            "run on another Python (`make vllm`, ARCHON_VLLM_PYTHON)"
        )


class InProcessBackend:
    """Asks an engine in this process, and starts it when it is first needed."""

    def __init__(self, config: VLLM) -> None:
        self.config = config
        self._identity = config.identity
        overridden = {k: v for k, v in config.capabilities.given().items() if v is not None}
        self._table = dialect("vllm", "").capabilities.model_copy(update=overridden)
        self._thread: EngineThread | None = None
        self._facts: Facts | None = None
        self._starting = asyncio.Lock()
        self._failed: ArchonError | None = None
        self._deaths = 0
        self._before = EngineFigures()
        self._prompts: dict[str, list[int]] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's: its weights and options, wherever it runs."""
        return self._identity

    @property
    def endpoint(self) -> str:
        """This process, and what tells the model from others."""
        return f"vllm {self.config.model} (in this process, {self.config.mark})"

    @property
    def capabilities(self) -> Capabilities:
        """Those of a server; the context's length once it runs."""
        return self._table if self._facts is None else self._facts.known.capabilities(self._table)

    async def ready(self) -> None:
        """Wait until it runs; it is started where it does not. Raises FatalError or UserError."""
        if self._facts is not None and self._thread is not None and not self._thread.over:
            return
        async with self._starting:
            if self._failed is not None:
                raise self._failed
            if self._thread is not None and self._thread.over:
                self._deaths += 1
                died, self._thread = self._thread, None
                self._say(f"its engine died ({died.end}); starting it again")
                if self._deaths >= _DEATHS_UNTIL_DOWN:
                    text = (
                        f"the engine of {self.config.model!r} died {self._deaths} times in a row: {died.end}"
                    )
                    self._failed = EndpointDown(text, model=self.config.model)
                    raise self._failed
            if self._thread is None:
                importable()
                for other in leaving():
                    await asyncio.to_thread(other.close)
                self._thread = hold(self.config)
                if not self._thread.started.done():
                    self._say("starting in this process")
            started = asyncio.wrap_future(self._thread.started)
            await asyncio.wait([started])  # which leaves it alone when we are cancelled
            found = started.result()
            if isinstance(found, ArchonError):
                self._failed = found
                raise found
            if found is not self._facts:
                self._facts, self._before = found, _figures() or EngineFigures()

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Each sample as it finishes."""
        await self.ready()
        thread, facts = self._thread, self._facts
        assert thread is not None and facts is not None
        if needs_fields(request, self.config.api):
            fields = facts.fields | {"continue_final_message"}
            facts.known.check(request, fields, self.config.api)
        heard: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        asked = self._asked(request, indices, facts, heard)
        thread.ask(asked)
        progress.sent, progress.prompt_tokens = True, len(asked.tokens)
        left = set(range(len(indices)))
        try:
            while left:
                number, output = await heard.get()
                if isinstance(output, Exception):
                    raise output
                first = len(left) == len(indices)
                left.discard(number)
                self._deaths = 0
                yield self._completion(indices[number], output, request, asked, first)
        finally:
            if left:
                progress.completion_tokens = await _stop(thread, [asked.names[n] for n in left], heard)

    async def figures(self) -> EngineFigures | None:
        """The engine's figures since it runs; None where it does not, or has `disable_log_stats`."""
        now = None if self._facts is None or self._thread is None else _figures()
        if now is None or self._thread is None:
            return None
        running = min(now.running, self._thread.outstanding)  # its own is that of its last step
        return replace(now - self._before, running=running)

    async def close(self) -> None:
        """End the engine, where nobody else holds it."""
        thread, self._thread, self._facts = self._thread, None, None
        if thread is not None:
            thread.holders -= 1
            if thread.holders == 0:
                await asyncio.to_thread(thread.close)

    def _say(self, text: str) -> None:
        print(f"vllm: {self.config.model}: {text}", file=sys.stderr, flush=True)

    # --- what is asked ------------------------------------------------------------------------------

    def _asked(
        self,
        request: Request,
        indices: Sequence[int],
        facts: Facts,
        heard: asyncio.Queue[tuple[int, Any]],
    ) -> Asked:
        """The request as the engine takes it. Raises RequestRejected."""
        loop = asyncio.get_running_loop()
        tokens = self._tokens(request, facts)
        extra = request.sampling.extra
        seeds = [request.seed_of(index) if self._table.seed else None for index in indices]
        try:
            params = self._parameters(request, facts, facts.context - len(tokens), seeds)
            priority = int(extra.get("priority", 0))
        except Exception as error:  # vLLM's own kinds of errors among them
            raise RequestRejected(f"vLLM refuses the request: {error}", model=self.config.model) from None
        return Asked(
            [f"archon-{next(_numbers)}" for _ in indices],
            tokens,
            params,
            lambda number, output: _tell(loop, heard, number, output),
            priority,
            extra.get("cache_salt"),
        )

    def _tokens(self, request: Request, facts: Facts) -> list[int]:
        """The prompt, as vLLM's server makes it of the same request. Raises RequestRejected or ContextOverflow."""
        arguments = request.sampling.extra.get("chat_template_kwargs") or {}
        key = json.dumps([request.content["messages"], request.prompt, request.prefix, arguments])
        tokens = self._prompts.get(key)
        if tokens is None:
            try:
                tokens = self._encoded(request, facts.tokenizer, arguments)
            except Exception as error:  # a template may raise what it likes
                raise RequestRejected(
                    f"the chat template or the tokenizer refuses the prompt: {error}", model=self.config.model
                ) from None
            while len(self._prompts) >= _KEPT:
                del self._prompts[next(iter(self._prompts))]
            self._prompts[key] = tokens
        if len(tokens) >= facts.context:
            raise ContextOverflow(
                f"{len(tokens)} tokens do not fit the context of {facts.context}; shorten the prompt, or raise "
                "`max_model_len` where the model takes more",
                model=self.config.model,
            )
        return tokens

    def _encoded(self, request: Request, tokenizer: Any, arguments: Mapping[str, Any]) -> list[int]:
        if self.config.api == "completions":
            text = request.prompt
            if text is None:
                text = "\n\n".join(m.content for m in request.messages)
            return list(tokenizer.encode(text + request.prefix))
        text = tokenizer.apply_chat_template(
            request.turns,
            tokenize=False,
            add_generation_prompt=not request.prefix,
            continue_final_message=bool(request.prefix),
            **arguments,
        )
        return list(tokenizer.encode(text, add_special_tokens=False))

    def _parameters(
        self, request: Request, facts: Facts, room: int, seeds: Sequence[int | None]
    ) -> list[Any]:
        """vLLM's parameters for each sample: the request's over the model's defaults."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        sampling = request.sampling
        given = sampling.model_dump(
            include={"temperature", "top_p", "top_k", "min_p", "logprobs", "max_tokens"}
        )
        wanted = {
            **facts.defaults,
            **{name: value for name, value in given.items() if value is not None},
            "stop": list(sampling.stop),
            **{name: value for name, value in sampling.extra.items() if name not in BESIDE},
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        wanted["max_tokens"] = min(room, wanted.get("max_tokens") or room)
        structure = wanted.get("structured_outputs")
        if isinstance(structure, Mapping):
            wanted["structured_outputs"] = StructuredOutputsParams(**structure)
        return [SamplingParams.from_optional(**wanted, seed=seed) for seed in seeds]

    # --- what comes back ----------------------------------------------------------------------------

    def _completion(self, index: int, output: Any, request: Request, asked: Asked, first: bool) -> Completion:
        """One sample; the prompt is accounted with the first."""
        (written,) = output.outputs
        finish: Finish = "length" if written.finish_reason == "length" else "stop"
        stop = written.stop_reason if isinstance(written.stop_reason, str) else None
        if written.finish_reason == "abort":
            raise ConnectionDropped("the engine stopped the request", model=self.config.model)
        if written.finish_reason not in ("stop", "length"):
            raise Overloaded(f"the request ended by {written.finish_reason!r}", model=self.config.model)
        return Completion(
            index,
            written.text,
            "stop_string" if finish == "stop" and stop is not None else finish,
            stop if finish == "stop" else None,
            logprobs=_logprobs(written, request.sampling.logprobs),
            tokens=Tokens(
                len(asked.tokens) if first else 0,
                min(asked.cached, len(asked.tokens)) if first else 0,
                len(written.token_ids),
            ),
            requests=int(first),
        )


def _logprobs(written: Any, most: int | None) -> tuple[TokenLogprob, ...] | None:
    """Of each token, and of the likeliest at its place."""
    if most is None or written.logprobs is None:
        return None
    found = []
    for token, place in zip(written.token_ids, written.logprobs, strict=True):
        ranked = sorted(
            (o for o in place.values() if o.rank is None or o.rank <= most), key=lambda o: -o.logprob
        )
        top = tuple((str(other.decoded_token), max(other.logprob, _LEAST_LOGPROB)) for other in ranked[:most])
        chosen = place[token]
        found.append(TokenLogprob(str(chosen.decoded_token), max(chosen.logprob, _LEAST_LOGPROB), top))
    return tuple(found)


def _tell(
    loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[tuple[int, Any]], number: int, output: Any
) -> None:
    """From the engine's thread to whoever waits; nobody does where their loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(heard.put_nowait, (number, output))


async def _stop(
    thread: EngineThread, names: Sequence[str], heard: asyncio.Queue[tuple[int, Any]]
) -> int | None:
    """Stop samples; returns the tokens that they had got, None where that cannot be told."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[int | None] = asyncio.Queue()

    def tell(count: int | None) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(told.put_nowait, count)

    thread.abort(names, tell)
    try:
        tokens = await asyncio.wait_for(told.get(), _PATIENCE)
    except TimeoutError:
        return None
    while tokens is not None and not heard.empty():  # finished in the meantime
        _, output = heard.get_nowait()
        tokens += 0 if isinstance(output, Exception) else len(output.outputs[0].token_ids)
    return tokens


def _figures() -> EngineFigures | None:
    from prometheus_client import REGISTRY, generate_latest

    return metrics.read(generate_latest(REGISTRY).decode("utf-8", "replace"))
