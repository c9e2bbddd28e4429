"""vLLM's engine in our own process: what is refused before it starts, and a real one, on the Python that has vLLM."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sysconfig
import threading
import time
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Completion, Progress, Request, Sampling
from archon.backends.nano.backend import Nano
from archon.backends.rewards import RewardServer
from archon.backends.vllm import engine_thread, in_process
from archon.backends.vllm.capabilities import Known
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.errors import refusal
from archon.config import load
from archon.errors import (
    ConnectionDropped,
    EndpointDown,
    MissingExtra,
    ModelNotFound,
    RequestRejected,
    UserError,
)
from archon.problem import Message
from tests.archon.conftest import PYTHON

ROOT = Path(__file__).resolve().parent.parent.parent

# --- before anything runs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"url": "http://x/v1"}, {"replicas": 2}, {"port": 8000}, {"python": "p"}, {"keep": 9}, {"stream": True}],
)
def test_what_is_a_server_s_is_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(
        ValidationError, match=f"`{name}` is for a server, and with `in_process` there is none"
    ):
        VLLM(model="m", in_process=True, **fields)


def test_thoughts_and_reward_models_need_a_server() -> None:
    with pytest.raises(ValidationError, match="`reasoning_parser` is the server's work"):
        VLLM(model="m", in_process=True, options={"reasoning_parser": "deepseek_r1"})
    with pytest.raises(ValidationError, match="reward models run on a server"):
        RewardServer(model="m", reads="qwen2.5-math-prm", vllm={"in_process": True})


def test_samples_are_those_of_a_server_of_the_same_model(tmp_path: Path) -> None:
    options = {"max_model_len": 64}
    inside, served = (VLLM(model="m", in_process=i, options=options) for i in (True, False))
    assert inside.identity == served.identity
    assert inside.connect().endpoint != served.connect().endpoint
    assert inside.engine_flags == ["--max-model-len", "64"]
    file = tmp_path / "p.yaml"
    file.write_text(
        "models: {default: {backend: vllm, model: m, in_process: true}}\npipeline: [sample: {}]\n"
    )
    assert load(file).models["default"] == VLLM(model="m", in_process=True)


async def test_a_python_without_vllm_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = VLLM(model="m", in_process=True)
    with pytest.raises(MissingExtra, match=r"Install archon into the environment that has vLLM.*make vllm"):
        model.check()
    with pytest.raises(MissingExtra, match="leave out `in_process`"):
        await anext(model.connect().complete(Request(prompt="x"), (0,), Progress()))


def test_why_an_engine_did_not_start_is_read_from_what_it_raised() -> None:
    try:
        try:
            raise OSError("m is not a valid model identifier listed on the hub")
        except OSError as cause:
            raise RuntimeError("it failed") from cause
    except RuntimeError as error:
        found = refusal("m", error)
    assert type(found) is ModelNotFound and "there is no such model (OSError: m is not" in str(found)
    memory = refusal("m", ValueError("No available memory for the cache blocks.\nTry more"))
    assert type(memory) is EndpointDown and "lower `max_model_len`" in str(memory)
    assert str(refusal("m", KeyError("x"))) == "vLLM did not start with 'm': KeyError: 'x'"


# --- an engine of a few lines, which writes a token per step ------------------------------------------


DEADLY = 20


class FakeEngine:
    """Ends each request when it has as many tokens as its parameters say; one that is to have 20 kills it."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.output_processor = SimpleNamespace(request_states=self.states)
        self.engine_core = SimpleNamespace(shutdown=lambda: None)

    def has_unfinished_requests(self) -> bool:
        return bool(self.states)

    def add_request(self, name: str, prompt: Any, params: int, priority: int) -> None:
        if params < 0:
            raise ValueError("less than nothing")
        written = SimpleNamespace(tokens=0)
        written.num_output_tokens = lambda: written.tokens
        cached = 2 if self.states else 1
        self.states[name] = SimpleNamespace(
            request_id=name, detokenizer=written, wanted=params, num_cached_tokens=cached
        )

    def step(self) -> list[Any]:
        time.sleep(0.001)
        ended = []
        for name, state in list(self.states.items()):
            state.detokenizer.tokens += 1
            if state.wanted == DEADLY and state.detokenizer.tokens == 13:
                raise RuntimeError("thirteen")
            if state.detokenizer.tokens == state.wanted:
                del self.states[name]
                text = SimpleNamespace(
                    text="t" * state.wanted,
                    token_ids=[5] * state.wanted,
                    finish_reason="stop",
                    stop_reason=None,
                )
                ended.append(
                    SimpleNamespace(
                        request_id=name,
                        finished=True,
                        outputs=[text],
                        num_cached_tokens=state.num_cached_tokens,
                    )
                )
        return ended

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            del self.states[name]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> VLLM:
    """A model on it: each sample's number of tokens is its seed."""
    tokenizer = SimpleNamespace(
        apply_chat_template=lambda messages, **_: messages[0]["content"],
        encode=lambda text, **_: [*text.encode()],
    )
    facts = engine_thread.Facts(Known("1.0", 64), 64, {}, frozenset(), tokenizer)
    monkeypatch.setattr(engine_thread, "_build", lambda config: FakeEngine())
    monkeypatch.setattr(engine_thread, "_facts", lambda engine: facts)
    monkeypatch.setattr(in_process, "importable", lambda: None)
    monkeypatch.setattr(in_process, "_figures", lambda: None)
    monkeypatch.setattr(in_process.InProcessBackend, "_parameters", lambda *given: given[-1])
    monkeypatch.setattr(Request, "seed_of", lambda request, index: index)
    return VLLM(model="m", in_process=True)


ASKING = Request((Message(role="user", content="hello"),))


async def samples(backend: Any, *indices: int) -> list[Completion]:
    async with aclosing(backend.complete(ASKING, indices, Progress())) as stream:
        return [completion async for completion in stream]


async def test_samples_come_as_they_finish_and_the_prompt_is_accounted_with_the_first(fake: VLLM) -> None:
    backend = fake.connect()
    found = await samples(backend, 9, 3, 5)
    assert [(c.index, c.text, c.requests) for c in found] == [
        (3, "t" * 3, 1),
        (5, "t" * 5, 0),
        (9, "t" * 9, 0),
    ]
    assert (found[0].tokens.prompt, found[0].tokens.cached) == (5, 1), "what was cached when the first began"
    assert [c.tokens.completion for c in found] == [3, 5, 9] and found[1].tokens.prompt == 0
    await backend.close()


async def test_what_is_closed_is_stopped_and_counted(fake: VLLM) -> None:
    backend, progress = fake.connect(), Progress()
    stream = backend.complete(ASKING, (1, 10**6, 10**7), progress)
    assert (await anext(stream)).index == 1
    await stream.aclose()
    assert progress.prompt_tokens == 5 and progress.completion_tokens is not None
    assert 2 <= progress.completion_tokens < 10**6
    assert (await samples(backend, 4))[0].text == "tttt", "and the engine lives"
    await backend.close()


async def test_a_request_that_the_engine_refuses_ends_alone(fake: VLLM) -> None:
    backend = fake.connect()
    refused, fine = await asyncio.gather(samples(backend, -1), samples(backend, 5), return_exceptions=True)
    assert isinstance(refused, RequestRejected) and "less than nothing" in str(refused)
    assert isinstance(fine, list) and fine[0].index == 5
    await backend.close()


async def test_an_engine_that_dies_is_started_anew_until_it_dies_without_having_answered(fake: VLLM) -> None:
    backend = fake.connect()
    for _ in range(2):
        with pytest.raises(ConnectionDropped, match="RuntimeError: thirteen"):
            await samples(backend, DEADLY)
        assert (await samples(backend, 2))[0].text == "tt"
    for _ in range(3):
        with pytest.raises(ConnectionDropped):
            await samples(backend, DEADLY)
    with pytest.raises(EndpointDown, match="died 3 times in a row: RuntimeError: thirteen"):
        await samples(backend, 2)
    await backend.close()


async def test_equal_models_share_an_engine_and_another_has_to_wait_for_its_end(fake: VLLM) -> None:
    one, two = fake.connect(), fake.connect()
    await asyncio.gather(samples(one, 2), samples(two, 3))
    threads = [t for t in threading.enumerate() if t.name == "vllm"]
    assert len(threads) == 1
    other = VLLM(model="n", in_process=True).connect()
    with pytest.raises(UserError, match="one model at a time can run in this process, and 'm' does"):
        await samples(other, 1)
    await one.close()
    assert (await samples(two, 4))[0].index == 4
    await two.close()
    assert not threads[0].is_alive()
    assert (await samples(other, 4))[0].index == 4
    await other.close()


# --- a real engine ----------------------------------------------------------------------------------

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""One thread: on cores that others use, several wait for each other at every step."""
OPTIONS = {"max_model_len": 1024, "enforce_eager": True, "dtype": "float32", "kv_cache_memory_bytes": 2**27}
PROGRAM = """
import asyncio, gc, json, os, signal, sys, threading
from contextlib import aclosing, suppress
from pathlib import Path

sys.path.append(sys.argv[2])  # pytest, for the conformance suite
from archon import Problem, Session
from archon.backends.base import Progress, Request, Sampling
from archon.backends.vllm.config import VLLM
from archon.errors import ArchonError
from archon.problem import Message
from archon.strategies.sample import Sample
from archon.testing import BackendCases

given = json.load(sys.stdin)
model = VLLM(model=sys.argv[1], in_process=True, options=given["options"], environment=given["environment"])

def request(text, prefix="", **sampling):
    return Request((Message(role="user", content=text),), prefix=prefix, sampling=Sampling(temperature=0, **sampling)
        if "temperature" not in sampling else Sampling(**sampling))

async def ask(backend, request, *indices):
    async with aclosing(backend.complete(request, indices or (0,), Progress())) as stream:
        return [{**c._asdict(), "tokens": c.tokens._asdict()} async for c in stream]

async def failure(backend, request):
    try:
        await ask(backend, request)
    except ArchonError as error:
        return [type(error).__name__, str(error)]

async def stopped(backend):
    progress = Progress()
    long = request("go on", temperature=1, max_tokens=900, extra={"ignore_eos": True})
    stream = backend.complete(long, range(8), progress)
    first = asyncio.ensure_future(anext(stream))
    while (await backend.figures()).running < 8:
        await asyncio.sleep(0.05)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await stream.aclose()
    figures = await backend.figures()
    return {"tokens": progress.completion_tokens, "running": figures.running, "cut_off": figures.cut_off}

class Cases(BackendCases):
    async def open_backend(self): return self.backend
    async def close_backend(self, backend): pass
    def request(self): return request("What is 6 times 7?", temperature=1, max_tokens=4)
    def unanswerable(self): return request("x" * 2000)

def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += (task / "children").read_text().split()
    return [Path(f"/proc/{p}/cmdline").read_bytes().replace(b"\\0", b" ").decode() for p in found]

async def main():
    told = {}
    backend = VLLM(model=sys.argv[1], in_process=True, options={"uvicorn_log_level": "info"}).connect()
    told["option"] = await failure(backend, request("x"))
    backend = model.connect()
    replies = await asyncio.gather(*(ask(backend, request(**r)) for r in given["requests"]))
    told["replies"] = [reply[0] for reply in replies]
    told["read before"] = (await ask(backend, request(**given["requests"][-1])))[0]["tokens"]
    drawn = request("Say something", temperature=1, seed=7, max_tokens=12)
    told["together"], told["alone"] = await ask(backend, drawn, *range(6)), await ask(backend, drawn, 4)
    told["stopped"] = await stopped(backend)
    told["failures"] = [await failure(backend, request(**r)) for r in given["refused"]]
    told["choice"] = (await ask(backend, request("So?", extra={"structured_outputs": {"choice": ["yes", "no"]}})))[0]
    told["ended"] = (await ask(backend, request("So?", max_tokens=40, stop=given["stop"])))[0]
    seeded = [request(f"{i}: " + "Consider it. " * 20, temperature=1, seed=i, max_tokens=1) for i in range(40)]
    told["long"] = sum(len(found) for found in await asyncio.gather(*(ask(backend, r) for r in seeded)))
    told["second"] = await failure(VLLM(model="other", in_process=True).connect(), request("x"))
    Cases.backend = backend
    told["cases"] = [name for name in dir(Cases) if name.startswith("test_")]
    for name in told["cases"]:
        await getattr(Cases(), name)()
    async with Session(models=model, seed=1) as session:  # the same engine
        outcome = await session.solve(Sample(n=5, max_tokens=6), Problem.ask("So?", id="p"))
        told["solved"] = [outcome.usage.requests, len(outcome.candidates), outcome.usage.completion_tokens]
        told["engines"] = [figures.describe() for figures in (await session.engines()).values()]
    told["context"], told["children"] = backend.capabilities.max_tokens, children()
    await backend.close()
    gc.collect()
    told["left"] = [t.name for t in threading.enumerate() if t.name == "vllm"]
    told["left"] += [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in ("LLMEngine", "EngineCore")]
    backend = model.connect()
    told["again"] = (await ask(backend, request(**given["requests"][0])))[0]
    stream = backend.complete(request("go on", max_tokens=900, extra={"ignore_eos": True}), range(8), Progress())
    first = asyncio.ensure_future(anext(stream))
    while (await backend.figures()).running < 8:
        await asyncio.sleep(0.05)
    Path(sys.argv[3]).write_text(json.dumps(told))
    os.kill(os.getpid(), signal.SIGKILL)  # with its engine at work

asyncio.run(main())
"""
ASKED: list[dict[str, Any]] = [
    *({"text": f"What is {i} + {i * i % 97} * {i % 7}?", "max_tokens": 12, "logprobs": 2} for i in range(24)),
    {"text": "2+3=?", "prefix": "2+", "max_tokens": 6, "logprobs": 2},
    {"text": "Consider every case with care. " * 20, "max_tokens": 2, "logprobs": 2},
    {"text": "Consider every case with care. " * 20 + "B", "max_tokens": 2, "logprobs": 2},
]
REFUSED: list[dict[str, Any]] = [
    {"text": "x", "extra": {"guided_choice": ["a"]}},
    {"text": "x", "extra": {"prioritty": 1}},
    {"text": "x" * 2000},
    {"text": "x", "extra": {"logit_bias": {"a": 1}}},
    {"text": "x", "extra": {"structured_outputs": {"regex": "("}}},
    {"text": "a lone surrogate: \ud800"},
]


@pytest.fixture(scope="module")
def told(vllm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program above saw. It has killed itself since."""
    found = tmp_path_factory.mktemp("in-process") / "told.json"
    given = {
        "options": OPTIONS,
        "environment": ENVIRONMENT,
        "requests": ASKED,
        "refused": REFUSED,
        "stop": ["\n", "="],
    }
    words = [PYTHON, "-c", PROGRAM, vllm_folder, sysconfig.get_path("purelib"), found]
    program = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    said, noise = program.communicate(json.dumps(given))
    assert found.exists(), noise[-4000:]
    seen: dict[str, Any] = json.loads(found.read_text())
    return {**seen, "printed": said, "survivors": survivors(program.pid)}


def of_session(leader: int) -> list[str]:
    """The processes of a session that are there: its number is the sixth of a process's figures."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if rest.split()[3] == str(leader) and rest.split()[0] != "Z":
            found.append(name)
    return found


def survivors(leader: int) -> list[str]:
    """Those that do not end. What has been killed takes a moment."""
    deadline = time.monotonic() + 60
    while (found := of_session(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


real = pytest.mark.vllm


@real
async def test_greedy_replies_and_log_probabilities_are_those_of_the_numpy_engine(
    told: dict[str, Any], vllm_folder: Path
) -> None:
    backend = Nano(weights=str(vllm_folder)).connect()

    async def ask(text: str, prefix: str = "", **sampling: Any) -> Completion:
        asked = Sampling(temperature=0, **sampling)
        request = Request((Message(role="user", content=text),), prefix=prefix, sampling=asked)
        return await anext(backend.complete(request, (0,), Progress()))

    own = await asyncio.gather(*(ask(**asked) for asked in ASKED))
    await backend.close()
    for our, their in zip(own, told["replies"], strict=True):
        assert (our.text, our.finish) == (their["text"], their["finish"])
        assert our.tokens.prompt == their["tokens"]["prompt"], "the same prompt"
        assert our.logprobs is not None and len(their["logprobs"]) == their["tokens"]["completion"]
        for ours, (token, logprob, top) in zip(our.logprobs, their["logprobs"], strict=True):
            assert ours.token == token and abs(ours.logprob - logprob) < 2e-3
            assert len(top) == 2 and top[0] == [token, logprob], "the likeliest first"
    assert told["again"]["text"] == told["replies"][0]["text"], (
        "an engine that was closed can be started anew"
    )


@real
def test_samples_have_seeds_of_their_own_and_one_prompt_in_the_account(told: dict[str, Any]) -> None:
    together = {reply["index"]: reply for reply in told["together"]}
    assert sorted(together) == list(range(6)) and len({r["text"] for r in together.values()}) > 1
    assert told["alone"][0]["text"] == together[4]["text"], "sample 4 is sample 4, whoever it is asked with"
    assert [r["requests"] for r in told["together"]] == [1, 0, 0, 0, 0, 0], (
        "in the order in which they finish"
    )
    assert [r["tokens"]["prompt"] > 0 for r in told["together"]] == [True] + [False] * 5
    assert told["read before"]["prompt"] // 2 <= told["read before"]["cached"] < told["read before"]["prompt"]


@real
def test_closing_the_stream_stops_the_engine_and_tells_what_was_written(told: dict[str, Any]) -> None:
    assert 8 <= told["stopped"]["tokens"] < 8 * 900
    assert told["stopped"]["running"] == 0 and told["stopped"]["cut_off"] == 8


@real
def test_what_cannot_be_asked_is_refused_and_hurts_nobody_else(told: dict[str, Any]) -> None:
    kinds = ["CapabilityError"] * 2 + ["ContextOverflow"] + ["RequestRejected"] * 3
    words = ["structured_outputs: ", "'priority'", "do not fit", "logit_bias", "regex", "tokenizer refuses"]
    for (kind, text), wanted, word in zip(told["failures"], kinds, words, strict=True):
        assert kind == wanted and word in text
    assert told["choice"]["text"] in ("yes", "no")
    kind, text = told["second"]
    assert kind == "UserError" and "one model at a time" in text
    kind, text = told["option"]
    assert kind == "EndpointDown" and "--uvicorn-log-level" in text and "leave out `in_process`" in text


@real
def test_a_stop_string_ends_the_reply_and_is_told(told: dict[str, Any]) -> None:
    ended = told["ended"]
    assert not {"\n", "="} & set(ended["text"])
    assert (ended["finish"], ended["stop"]) in [("stop_string", "\n"), ("stop_string", "="), ("stop", None)]


@real
def test_it_keeps_the_backend_s_contract_and_serves_sessions(told: dict[str, Any]) -> None:
    assert len(told["cases"]) >= 8
    assert told["long"] == 40, "more seeded prompts at once than one step reads"
    requests, samples, tokens = told["solved"]
    assert samples == 5 and 1 <= requests <= 5 and tokens >= 5
    assert len(told["engines"]) == 1 and "sequences" in told["engines"][0]
    assert told["context"] == 1024
    assert told["printed"] == "", "standard output is for results"


@real
def test_nothing_is_left_of_it_when_it_is_closed_or_we_are_killed(told: dict[str, Any]) -> None:
    assert told["left"] == [] and told["children"] == []
    assert told["survivors"] == []
