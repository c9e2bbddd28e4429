"""Killed with SIGKILL at random moments, a run goes on where it was: nothing is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from archon.testing import Answer, Asked, StubServer

PROBLEMS, SAMPLES = 10, 6
KILLS = 10
"""Per seed; five seeds make fifty."""
TIMING = {"seconds", "fresh"}
"""What may differ between a run in one go and one that was interrupted."""


def reply(asked: Asked) -> Answer:
    """Right or wrong, sooner or later, by the prompt and the seed alone."""
    number = int(hashlib.sha256(f"{asked.text}|{asked.body['seed']}".encode()).hexdigest()[:8], 16)
    factor = 2 if number % 3 == 0 else number % 97
    return Answer(
        f"```python\ndef f(x):\n    return {factor} * x  # {asked.body['seed']}\n```",
        delay=0.05 + (number % 100) / 400,
    )


def write_questions(path: Path) -> None:
    lines = [
        {
            "id": f"p{i}",
            "question": f"Variant {i}: write f(x), which doubles x.",
            "entry_point": "f",
            "tests": [{"args": [i], "expected": 2 * i}],
            "hidden_tests": [{"args": [i + 1], "expected": 2 * i + 2}],
        }
        for i in range(PROBLEMS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


class Trial:
    """One run's folder, store and share of the server."""

    def __init__(self, server: StubServer, folder: Path, name: str) -> None:
        self.server = server
        self.name = name
        self.out = folder / name
        self.store = folder / f"{name}.sqlite"
        self.questions = folder / "questions.jsonl"

    @property
    def began(self) -> float:
        """When the first request came (monotonic)."""
        return min(a.at for a in self._requests)

    @property
    def asked(self) -> Counter[tuple[str, int]]:
        return Counter((a.text, int(a.body["seed"])) for a in self._requests)

    @property
    def _requests(self) -> list[Asked]:
        return [a for a in self.server.asked if a.path.startswith(f"/{self.name}/")]

    def stored(self) -> set[tuple[str, int]]:
        """The samples that had reached the store, as (prompt, seed)."""
        if not self.store.exists():
            return set()
        with sqlite3.connect(self.store) as db:
            try:
                rows = db.execute(
                    "SELECT request, text FROM samples JOIN pools ON pools.id = pool"
                ).fetchall()
            except sqlite3.OperationalError:  # killed before the tables were made
                return set()
        db.close()
        return {
            (json.loads(request)["messages"][-1][1], int(text.rsplit("# ", 1)[1].split("\n")[0]))
            for request, text in rows
        }

    async def start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "archon", "bench", str(self.questions)]
        command += ["--pipeline", "best_of_n", "--samples", str(SAMPLES), "--seed", "1", "--quiet"]
        command += ["--model", "openai:m", "--base-url", f"{self.server.url}/{self.name}", "--no-pictures"]
        command += ["--store", str(self.store), "--out", str(self.out)]
        return await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "OPENAI_API_KEY": "none"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def finish(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        process = await self.start()
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        results = json.loads((self.out / "results.json").read_text().replace(f"/{self.name}", ""))
        lines = (self.out / "problems.jsonl").read_text().splitlines()
        records = sorted((json.loads(line) for line in lines), key=lambda record: str(record["id"]))
        return without_timing(results), without_timing(records)


def without_timing(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: without_timing(v) for k, v in data.items() if k not in TIMING}
    if isinstance(data, list):
        return [without_timing(item) for item in data]
    return data


def session_members(session: int) -> list[str]:
    """Processes that a run has left behind."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(status.parent.name)
    return found


async def until_gone(session: int) -> None:
    async with asyncio.timeout(300):
        while session_members(session):
            await asyncio.sleep(0.02)


async def heard(server: StubServer) -> None:
    """Once this returns, what a client sent before it died has been read, and let go of. What is in a socket becomes
    a request within some turns of the loop, however long they take."""
    for _ in range(100):
        await asyncio.sleep(0)
    async with asyncio.timeout(300):
        while server.in_flight:
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_killed_at_random_moments_it_goes_on_and_pays_for_nothing_twice(
    seed: int, tmp_path: Path
) -> None:
    moments = random.Random(seed)
    write_questions(tmp_path / "questions.jsonl")
    killed_midway = 0
    async with StubServer(reply) as server:
        whole = Trial(server, tmp_path, "whole")
        expected = await whole.finish()
        work = time.monotonic() - whole.began
        assert sum(whole.asked.values()) == PROBLEMS * SAMPLES
        for number in range(KILLS):
            trial = Trial(server, tmp_path, f"killed{number}")
            before_it = server.answered
            process = await trial.start()
            if number % 5 == 0:  # while it starts, too
                await asyncio.sleep(moments.uniform(0.05, 0.8))
            elif number % 5 == 4:  # at any time, so most often while it grades and reports
                while not trial.asked and process.returncode is None:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(moments.uniform(0, work))
            else:  # after so many answers: samples are arriving, however fast the machine is
                answers = moments.randrange(2, PROBLEMS * SAMPLES - 4)
                while server.answered - before_it < answers and process.returncode is None:
                    await asyncio.sleep(0.002)
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
            await process.communicate()
            await until_gone(process.pid)
            await heard(server)
            stored, before = trial.stored(), trial.asked
            killed_midway += 0 < len(stored) < PROBLEMS * SAMPLES
            assert await trial.finish() == expected
            again = trial.asked - before
            assert not stored & set(again), "a stored sample was paid for again"
            assert set(again) | stored == set(whole.asked)
            assert all(count == 1 for count in again.values())
    assert killed_midway >= 4, "too few kills came while samples were arriving"
