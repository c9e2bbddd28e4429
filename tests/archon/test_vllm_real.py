"""A real vLLM of ours: its engine is killed in the middle of a run, and then the run itself."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from archon.backends.vllm.config import VLLM
from tests.archon.fake_vllm import keepers, left
from tests.archon.nano_model import random_folder

PROGRAM = """
    import asyncio, json, os, signal, sys
    from contextlib import suppress
    from itertools import count
    from pathlib import Path

    from archon import Problem, Session
    from archon.backends.vllm.config import VLLM
    from archon.problem import Message
    from archon.strategies.sample import Sample
    from tests.archon.fake_vllm import left

    def engine():
        for process in left():
            with suppress(OSError):  # it has just ended
                if b"EngineCore" in Path(f"/proc/{process}/cmdline").read_bytes():
                    return process

    async def main():
        model = VLLM.model_validate_json(sys.argv[1])
        async with Session(models=model, seed=1) as session:
            backend = session.caller("default").backend

            async def kill():
                while not backend.running:
                    await asyncio.sleep(0.1)
                victim = engine()
                while not (figures := await backend.figures()) or figures.running < 8:
                    await asyncio.sleep(0.02)
                os.kill(victim, signal.SIGKILL)

            killing = asyncio.create_task(kill())
            for number in count():  # the next one where a fast engine had ended it before we looked
                messages = (Message(role="user", content=f"12+{30 + number}=?"),)
                problem = Problem(id=f"p{number}", messages=messages)
                outcome = await session.solve(Sample(n=64, max_tokens=900, temperature=1.0), problem)
                if killing.done():
                    break
            print(json.dumps({
                "indices": sorted(c.index for c in outcome.candidates),
                "failures": [str(f.error) for f in outcome.failures],
                "requests": outcome.usage.requests,
                "of_candidates": sum(c.usage.requests for c in outcome.candidates),
                "tokens": sum(c.usage.completion_tokens for c in outcome.candidates),
                "servers": len(left()),
            }), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)  # with its server running

    asyncio.run(main())
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_a_run_survives_the_death_of_its_engine_and_no_server_survives_the_run(
    vllm: VLLM, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHON_VLLM_STATE", str(tmp_path_factory.mktemp("v")))
    root = Path(__file__).resolve().parent.parent.parent
    monkeypatch.setenv("PYTHONPATH", str(root))
    own = {"model": str(random_folder(tmp_path / "m")), "keep": 0.0}
    model = vllm.model_copy(update={**own, "samples_per_request": 1, "max_concurrency": 16})
    run = [sys.executable, "-c", textwrap.dedent(PROGRAM), model.model_dump_json(exclude_defaults=True)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=900)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["indices"] == list(range(64)) and not told["failures"], "nothing is lost"
    assert told["of_candidates"] == 64 < told["requests"] <= 64 + 2 * 16, (
        "each once, and those in flight as attempts"
    )
    assert told["servers"] >= 3, "its API server, its engine, its worker"
    assert "starting it again" in done.stderr
    until = time.monotonic() + 300
    while left() or keepers():
        assert time.monotonic() < until, "the server is left behind"
        time.sleep(0.1)
