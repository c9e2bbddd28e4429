"""vLLM's engine in a thread of this process, which alone builds it, steps it and lets go of it.

It is vLLM's own offline engine with its core in the same process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so nothing of
it can outlive us. Its asynchronous one (`AsyncLLM`) always has its core in another process, which stays when we are
killed. Between two steps the thread takes orders, requests to begin or to stop; what has finished it hands to whoever
asked. Needs vLLM in our own Python; nothing is imported before an engine starts.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from archon.backends.vllm import errors
from archon.backends.vllm.capabilities import Known
from archon.backends.vllm.config import VLLM
from archon.errors import ArchonError, ConnectionDropped, EndpointDown, RequestRejected, UserError

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""While it starts. Standard output is ours: results are printed there. What goes wrong is raised."""
_NOT_THE_USER_S = {"n", "seed", "output_kind", "skip_clone", "detokenize"}
BESIDE = {"priority", "cache_salt", "chat_template_kwargs"}
"""What a request holds beside its sampling parameters, by the names of the server's API."""


class Facts(NamedTuple):
    """What an engine tells of itself once it runs."""

    known: Known
    context: int
    defaults: dict[str, Any]
    """Sampling parameters where a request gives none: the model's `generation_config.json`, as for a server."""
    fields: frozenset[str]
    """What a request may hold."""
    tokenizer: Any
    """A copy: the engine's own is in use."""


@dataclass(eq=False)
class Asked:
    """Samples of one prompt."""

    names: Sequence[str]
    tokens: Sequence[int]
    params: Sequence[Any]
    """vLLM's `SamplingParams`, one for each."""
    hear: Callable[[int, Any], None]
    """Gets each sample's number with its `RequestOutput`, or with an error; called in the engine's thread."""
    priority: int = 0
    cache_salt: str | None = None
    cached: int = 0
    """Tokens of the prompt that were in the prefix cache when the first of them began; set with the first heard."""
    heard: bool = False


class EngineThread:
    """One engine, from its start to its end. `started` gives its facts, or why it did not start."""

    def __init__(self, config: VLLM) -> None:
        self.config = config
        self.holders = 0
        self.started: Future[Facts | ArchonError] = Future()
        self.end = ""
        """What it died of."""
        self.over = False
        self._closing = threading.Lock()
        self._orders: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._waiting: dict[str, tuple[Asked, int]] = {}
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Begin these samples. Raises ConnectionDropped where the engine is over."""
        with self._closing:
            if self.over:
                raise self._lost()
            self._waiting.update((name, (asked, number)) for number, name in enumerate(asked.names))
            self._orders.put(lambda engine: self._add(engine, asked))

    def abort(self, names: Sequence[str], told: Callable[[int | None], None]) -> None:
        """Stop these, and tell how many tokens they had got: None where this vLLM does not say, or it is over."""

        def stop(engine: Any) -> None:
            begun = [name for name in names if self._waiting.pop(name, None) is not None]
            told(_generated(engine, set(begun)))
            engine.abort_request(begun)

        with self._closing:
            if not self.over:
                self._orders.put(stop)
                return
        told(None)

    @property
    def outstanding(self) -> int:
        """Samples asked for and not yet there."""
        return len(self._waiting)

    def close(self) -> None:
        """End it, and wait until it has let go of its memory."""
        with self._closing:
            self._orders.put(None)
        self._thread.join()

    def _lost(self) -> ConnectionDropped:
        why = f" ({self.end})" if self.end else ""
        return ConnectionDropped(f"the engine in this process has ended{why}", model=self.config.model)

    # --- in the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with _environment(self.config):
                engine = _build(self.config)
                facts = _facts(engine)
        except BaseException as error:  # vLLM may even leave by SystemExit
            self.over = True
            why = error if isinstance(error, ArchonError) else errors.refusal(self.config.model, error)
            self.started.set_result(why.with_traceback(None))  # its frames would keep the engine
            _clean()
            return
        self.started.set_result(facts)
        try:
            self._serve(engine)
        except Exception as error:
            self.end = f"{type(error).__name__}: {error}"[:300]
        with self._closing:
            self.over = True
        for asked, number in self._waiting.values():
            asked.hear(number, self._lost())
        self._waiting.clear()
        while not self._orders.empty():  # whoever wants to hear how far a sample came
            with contextlib.suppress(Exception):
                order = self._orders.get()
                if order is not None:
                    order(engine)
        _shut_down(engine)
        del engine
        _clean()

    def _serve(self, engine: Any) -> None:
        """Step while there is something to do, and otherwise wait for orders."""
        while True:
            while not engine.has_unfinished_requests() or not self._orders.empty():
                order = self._orders.get()
                if order is None:
                    return
                order(engine)
            for output in engine.step():
                asked, number = self._waiting.get(output.request_id, (None, 0))
                if asked is None or not output.finished:
                    continue
                del self._waiting[output.request_id]
                if not asked.heard:
                    asked.heard, asked.cached = True, _cached(engine, asked.names[0], output)
                asked.hear(number, output)

    def _add(self, engine: Any, asked: Asked) -> None:
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": list(asked.tokens)}
        if asked.cache_salt is not None:
            prompt["cache_salt"] = asked.cache_salt
        for number, (name, params) in enumerate(zip(asked.names, asked.params, strict=True)):
            if name not in self._waiting:  # all is over
                continue
            try:
                engine.add_request(name, prompt, params, priority=asked.priority)
            except Exception as error:  # it refuses this request
                del self._waiting[name]
                asked.hear(number, RequestRejected(f"vLLM refuses the request: {error}"))


@contextlib.contextmanager
def _environment(config: VLLM) -> Iterator[None]:
    """Variables that vLLM reads when it is imported and when an engine starts."""
    ours = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
    wanted = {**ours, **config.environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _build(config: VLLM) -> Any:
    """The engine, by the options as vLLM's own command line reads them. Raises what vLLM raises."""
    from vllm import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:  # before 0.12
        from vllm.utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise EndpointDown(
                f"vLLM refuses its `options`: {message}. In this process they are its engine's, by the names of its "
                "command line; what belongs to its server (`chat_template`, `tool_call_parser`, ...) needs one: leave "
                "out `in_process`",
                model=config.model,
            )

    parser = EngineArgs.add_cli_args(Parser())
    arguments = EngineArgs.from_cli_args(parser.parse_args(["--model", config.served, *config.engine_flags]))
    chosen = {"enable_chunked_prefill", "max_num_batched_tokens"} & set(config.options)
    if not chosen and current_platform.is_cpu():
        arguments.enable_chunked_prefill = False  # with it, seeds kill an engine on a CPU (design/vllm.md)
    engine = LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
    if "generate" not in engine.get_supported_tasks():
        _shut_down(engine)
        raise UserError(
            f"{config.model!r} writes no replies: it is a reward model, or one of embeddings. The backend "
            "`reward_server` starts a server for reward models"
        )
    return engine


def _facts(engine: Any) -> Facts:
    import vllm
    from vllm import SamplingParams

    config = engine.model_config
    params = set(inspect.signature(SamplingParams.from_optional).parameters) - _NOT_THE_USER_S
    return Facts(
        Known(vllm.__version__, config.max_model_len),
        config.max_model_len,
        dict(config.get_diff_sampling_param()),
        frozenset(params | BESIDE),
        copy.deepcopy(engine.get_tokenizer()),
    )


def _states(engine: Any) -> list[Any]:
    """What vLLM keeps of the samples in work: not part of what it documents, so it may be absent."""
    states = getattr(getattr(engine, "output_processor", None), "request_states", None)
    return list(states.values()) if isinstance(states, dict) else []


def _name(state: Any) -> str:
    return str(getattr(state, "external_req_id", None) or state.request_id)


def _generated(engine: Any, names: set[str]) -> int | None:
    """Tokens that these have got so far."""
    with contextlib.suppress(AttributeError):
        found = [int(s.detokenizer.num_output_tokens()) for s in _states(engine) if _name(s) in names]
        if len(found) == len(names):
            return sum(found)
    return None


def _cached(engine: Any, first: str, output: Any) -> int:
    """Cached tokens of the prompt: those of the sample that began first, for the others find its own."""
    if output.request_id == first:
        return output.num_cached_tokens or 0
    state = next((s for s in _states(engine) if _name(s) == first), None)
    return getattr(state, "num_cached_tokens", 0) or 0


def _shut_down(engine: Any) -> None:
    """End what it started; what a broken engine says to that does not matter."""
    with contextlib.suppress(Exception):
        engine.engine_core.shutdown()


def _clean() -> None:
    """Give memory back, once nothing refers to the engine any more."""
    with contextlib.suppress(Exception):
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


_running: list[EngineThread] = []


def leaving() -> list[EngineThread]:
    """Those that are over, or that nobody holds any more: they may not have let go of their memory yet."""
    return [thread for thread in _running if thread.over or not thread.holders]


def hold(config: VLLM) -> EngineThread:
    """The engine of this configuration: the one that runs, or a new one. Raises UserError where another runs."""
    for other in _running:
        if other in leaving():
            continue
        if other.config.mark != config.mark:
            raise UserError(
                f"one model at a time can run in this process, and {other.config.model!r} does. Leave out "
                f"`in_process` for {config.model!r}: its server is a process of its own"
            )
        other.holders += 1
        return other
    new = EngineThread(config)
    new.holders = 1
    _running[:] = [new]
    return new
