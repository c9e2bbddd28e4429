"""The nano backend with real worker processes: samples, seeds, scores, cancellation, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import pytest

from archon.backends.base import Backend, Completion, Progress, Request, Sampling, ScoreRequest
from archon.backends.nano import processes
from archon.backends.nano.backend import Nano, NanoBackend
from archon.budget import Budget, Budgets
from archon.errors import (
    CapabilityError,
    ConnectionDropped,
    ContextOverflow,
    DataError,
    EndpointDown,
    ModelNotFound,
    RequestRejected,
)
from archon.pipeline import Pipeline
from archon.problem import Message, Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.testing import BackendCases, ScorerCases
from tests.archon.nano_model import random_folder

PATIENCE = 120.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(random_folder(tmp_path_factory.mktemp("weights") / "lm"))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(random_folder(tmp_path_factory.mktemp("weights") / "prm", scores=True))


class TestNano(BackendCases):
    @pytest.fixture(autouse=True)
    def folder(self, weights: str) -> None:
        self.weights = weights

    async def open_backend(self) -> Backend:
        return Nano(weights=self.weights, workers=1, sampling=Sampling(max_tokens=20)).connect()

    def request(self) -> Request:
        return Request(super().request().messages, sampling=Sampling(max_tokens=20), problem="conformance")

    def unanswerable(self) -> Request:
        return Request((Message(role="user", content="x" * 2000),))


class TestNanoScores(ScorerCases):
    @pytest.fixture(autouse=True)
    def folder(self, rewards: str) -> None:
        self.weights = rewards

    async def open_backend(self) -> Backend:
        return Nano(weights=self.weights, workers=1).connect()


def asked(text: str = "What is 6 times 7?", **sampling: object) -> Request:
    return Request((Message(role="user", content=text),), sampling=Sampling.model_validate(sampling))


async def collect(
    backend: Backend, request: Request, indices: range, progress: Progress | None = None
) -> dict[int, Completion]:
    async with aclosing(backend.complete(request, indices, progress or Progress())) as stream:
        return {c.index: c async for c in stream}


def worker_of(backend: NanoBackend) -> int:
    pid = backend._workers._workers[0].pid
    assert pid is not None
    return pid


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_one_sample_is_the_same_from_any_worker_beside_any_others(weights: str) -> None:
    backend = Nano(weights=weights, workers=2, batch=24).connect()
    request = asked(seed=5, max_tokens=60, logprobs=1)
    try:
        first, others, few = await asyncio.gather(
            collect(backend, request, range(40)),
            collect(backend, asked("something else", max_tokens=90), range(20)),
            collect(backend, request, range(17, 20)),
        )
        alone = await collect(backend, request, range(23, 24))
    finally:
        await backend.close()
    assert sorted(first) == list(range(40)) and len(others) == 20
    assert len({c.text for c in first.values()}) > 30
    for index, completion in {**few, **alone}.items():
        assert (completion.text, completion.logprobs) == (first[index].text, first[index].logprobs)
    assert sum(c.requests for c in first.values()) == 1
    assert sorted(c.tokens.prompt for c in first.values())[-2:] == [0, 20]


async def test_texts_stops_prefixes_and_raw_prompts(weights: str) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    try:
        request = asked(seed=1, temperature=2.0, max_tokens=30, logprobs=2)
        whole = (await collect(backend, request, range(1)))[0]
        assert whole.finish == "length" and whole.tokens.completion == 30
        assert whole.logprobs is not None and len(whole.logprobs[0].top) == 2
        said = [one.token for one in whole.logprobs]
        assert "".join(c for c in said if len(c) == 1) == whole.text
        stop = whole.text[9:12]
        stopped = (await collect(backend, asked(seed=1, temperature=2.0, stop=("é", stop)), range(1)))[0]
        assert (stopped.finish, stopped.stop) == ("stop_string", stop)
        assert whole.text.startswith(stopped.text + stop) and stop not in stopped.text
        given = Sampling(seed=1, max_tokens=9)
        chat = await collect(backend, Request(asked("ab").messages, prefix="c", sampling=given), range(1))
        raw = await collect(backend, Request(prompt="ab", prefix="c", sampling=given), range(1))
        assert (chat[0].tokens.prompt, raw[0].tokens.prompt) == (5, 4)
    finally:
        await backend.close()


async def test_closing_the_stream_takes_the_samples_out_and_tells_their_tokens(weights: str) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    progress = Progress()
    try:
        stream = backend.complete(asked(max_tokens=900, top_k=2), range(6), progress)
        waiting = asyncio.ensure_future(anext(stream))
        small = await collect(backend, asked(max_tokens=5), range(1))  # while they are decoded
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert small[0].tokens.completion <= 5
        assert progress.prompt_tokens == 20
        assert progress.completion_tokens is not None and progress.completion_tokens > 0
        assert progress.completion_tokens < 6 * 900
    finally:
        await backend.close()


async def test_a_run_on_it_counts_tokens_dollars_and_flops_and_stays_within_its_budget(weights: str) -> None:
    model = Nano(weights=weights, workers=1, sampling=Sampling(max_tokens=40), samples_per_request=1)
    budget = Budgets(run=Budget(tokens=1000, usd=1, flops=1e15))
    async with Session(models=model, budget=budget) as session:
        outcome = await session.solve(Pipeline([Sample(n=64)]).graph(), Problem.ask("question"))
    assert outcome.stopped == "budget"
    assert 0 < len(outcome.candidates) < 64
    assert outcome.usage.tokens <= 1000 and outcome.usage.usd == 0
    assert outcome.usage.unpriced == outcome.usage.unsized == 0
    assert outcome.usage.flops > 0


async def test_what_it_cannot_do_is_a_classified_error(weights: str, rewards: str) -> None:
    backend, scorer = Nano(weights=weights).connect(), Nano(weights=rewards).connect()
    try:
        with pytest.raises(ContextOverflow, match="2003 tokens do not fit the context of 1024"):
            await collect(backend, asked("x" * 2000), range(1))
        with pytest.raises(RequestRejected, match="no extra parameters"):
            await collect(backend, asked(extra={"best_of": 2}), range(1))
        with pytest.raises(CapabilityError, match="reward model and writes nothing"):
            await collect(scorer, asked(), range(1))
        with pytest.raises(CapabilityError, match="language model and scores nothing"):
            await backend.score(ScoreRequest(asked().messages, (("a",),)), Progress())
        with pytest.raises(DataError, match="there are no weights 'nothing'"):
            Nano(weights="nothing").check()
    finally:
        await backend.close()
        await scorer.close()


async def test_an_outcome_model_scores_the_whole_reply_once(tmp_path: Path) -> None:
    weights = str(random_folder(tmp_path / "orm", scores=True))
    backend = Nano(weights=weights, workers=1).connect()
    try:
        replies = (("1\n", "2"), ("12",), ("1\n2",))
        scored = await backend.score(ScoreRequest(asked().messages, replies), Progress())
    finally:
        await backend.close()
    assert backend.capabilities.scores == "outcome"
    assert [len(one.steps) for one in scored] == [1, 1, 1]
    assert scored[0].steps == scored[2].steps != scored[1].steps


def test_its_flops_are_those_of_its_architecture_and_its_price_is_zero(weights: str) -> None:
    model = Nano(weights=weights)
    flops = model.flops()
    assert flops is not None and flops.exact and flops.per_token > 0
    assert model.price is not None and model.price.cost(1000, 0, 1000) == 0


async def test_a_prompt_may_fill_the_context_but_for_one_token(weights: str) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    try:
        (only,) = (await collect(backend, asked("x" * 1021, max_tokens=9), range(1))).values()
        assert (only.tokens.prompt, only.tokens.completion) == (1023, 1)
        with pytest.raises(ContextOverflow):
            await collect(backend, asked("x" * 1022, max_tokens=9), range(1))
        nothing = Request(prompt="", sampling=Sampling(max_tokens=2))
        (from_nothing,) = (await collect(backend, nothing, range(1))).values()
        assert from_nothing.tokens.prompt == 1
    finally:
        await backend.close()


async def test_weights_that_change_during_a_run_stop_it(tmp_path: Path) -> None:
    """A worker that starts later would give samples of another model, to be stored as this one's."""
    folder = random_folder(tmp_path / "lm")
    backend = Nano(weights=str(folder), workers=1).connect()
    random_folder(folder, seed=1)
    try:
        with pytest.raises(ModelNotFound, match="has changed since this run began"):
            await collect(backend, asked(max_tokens=2), range(1))
    finally:
        await backend.close()


async def test_weights_that_cannot_be_read_stop_the_run(tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "lm")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(
        data.replace(b"lm.norm", b"lm.morn").replace(b"model.norm", b"model.morn")
    )
    backend = Nano(weights=str(folder)).connect()
    try:
        with pytest.raises(ModelNotFound, match=r"model.norm.weight is absent"):
            await collect(backend, asked(), range(1))
    finally:
        await backend.close()


async def test_a_worker_that_is_killed_drops_its_requests_and_another_takes_its_place(weights: str) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    try:
        progress = Progress()
        stream = asyncio.ensure_future(collect(backend, asked(max_tokens=900, top_k=2), range(4), progress))
        await collect(backend, asked(max_tokens=2), range(1))
        os.kill(worker_of(backend), signal.SIGKILL)
        with pytest.raises(ConnectionDropped, match="worker process"):
            await stream
        assert progress.completion_tokens is None  # nobody knows any more
        assert len(await collect(backend, asked(max_tokens=2), range(1))) == 1
    finally:
        await backend.close()


async def test_a_run_survives_the_death_of_a_worker(weights: str) -> None:
    """Nothing is lost and nothing delivered twice; what was in flight is asked again, and counted."""
    model = Nano(weights=weights, workers=1, samples_per_request=1, max_concurrency=8)
    async with Session(models=model, seed=1) as session:
        backend = session.caller("default").backend
        assert isinstance(backend, NanoBackend)
        worker = backend._workers._workers[0]

        async def kill() -> None:
            while worker.pid is None or worker.load < 8:
                await asyncio.sleep(0.01)
            os.kill(worker_of(backend), signal.SIGKILL)

        killing = asyncio.create_task(kill())
        graph = Pipeline([Sample(n=24, max_tokens=200, temperature=1.0)]).graph()
        outcome = await session.solve(graph, Problem.ask("question"))
        await killing
    assert sorted(c.index for c in outcome.candidates) == list(range(24)) and not outcome.failures
    assert sum(c.usage.requests for c in outcome.candidates) == 24 < outcome.usage.requests <= 24 + 8


async def test_half_a_line_of_a_worker_that_is_killed_is_no_message(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "worker"
    program.write_text('#!/bin/sh\nread line\nprintf \'{"op": "done", "key": 0, "num\'\n')
    program.chmod(0o755)
    monkeypatch.setattr(processes, "sys", SimpleNamespace(executable=str(program)))
    backend = Nano(weights=weights, workers=1).connect()
    with pytest.raises(ConnectionDropped, match="worker process"):
        await collect(backend, asked(), range(1))
    await backend.close()
    monkeypatch.setattr(processes, "sys", SimpleNamespace(executable=str(tmp_path / "nothing")))
    backend = Nano(weights=weights, workers=1).connect()
    progress = Progress()
    with pytest.raises(ConnectionDropped, match="can be started"):
        await collect(backend, asked(), range(1), progress)
    assert not progress.sent and backend._workers._workers[0].load == 0


async def test_closing_while_it_starts_leaves_nothing_behind_and_closed_it_stays(weights: str) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    asking = asyncio.ensure_future(collect(backend, asked(), range(1)))
    await asyncio.sleep(0)  # its process is being started
    worker = backend._workers._workers[0]
    assert worker._starting.locked()
    await asyncio.gather(backend.close(), backend.close())
    with pytest.raises((ConnectionDropped, EndpointDown)):
        await asking
    with pytest.raises(EndpointDown, match="was closed"):
        await collect(backend, asked(), range(1))
    await backend.close()
    assert worker.pid is None and worker.load == 0 and not worker._requests


@pytest.mark.parametrize("turns", [0, 1, 3, 10])
async def test_a_request_that_is_cancelled_twice_is_forgotten(weights: str, turns: int) -> None:
    backend = Nano(weights=weights, workers=1).connect()
    worker = backend._workers._workers[0]
    try:
        await collect(backend, asked(max_tokens=2), range(1))
        asking = asyncio.ensure_future(collect(backend, asked(max_tokens=900, top_k=2), range(4)))
        while not worker.load:
            await asyncio.sleep(0)
        asking.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert worker.load == 0 and not worker._requests
        assert len(await collect(backend, asked(max_tokens=2), range(1))) == 1
    finally:
        await backend.close()


async def test_what_a_worker_has_given_is_no_load_any_more(weights: str) -> None:
    backend = Nano(weights=weights, workers=1, batch=1).connect()
    loads = []
    try:
        async with aclosing(backend.complete(asked(max_tokens=40), range(8), Progress())) as stream:
            async for _ in stream:
                loads.append(backend._workers._workers[0].load)
    finally:
        await backend.close()
    assert loads[0] > loads[-1] == 0


def test_no_worker_outlives_a_parent_that_is_killed(weights: str) -> None:
    script = f"""
import asyncio
from archon.backends.base import Progress, Request
from archon.backends.nano.backend import Nano
async def main():
    backend = Nano(weights={weights!r}, workers=1).connect()
    async for _ in backend.complete(Request(prompt="a"), range(1), Progress()):
        print(backend._workers._workers[0].pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert lives(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while lives(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(worker)
