"""A search that is killed in the middle goes on where it was: nothing that was paid for is paid for again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sqlite3
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from archon.testing import Answer, Asked, StubServer
from tests.archon.test_durability import heard

PROGRAM = """
    import asyncio, json, sys

    from archon import Problem, Session
    from archon.backends.openai import OpenAI
    from archon.backends.rewards import RewardServer
    from archon.strategies.beam_search import BeamSearch

    async def main(url, store):
        models = {
            "default": OpenAI(model="m", base_url=url, server="vllm", max_tokens=50, max_concurrency=4),
            "reward": RewardServer(model="r", base_url=f"{url}/score", api="json", scale="probability",
                                   replies_per_request=3),
        }
        search = BeamSearch(n=6, m=2, lookahead=1, max_steps=5)
        async with Session(models=models, store=store, seed=1) as session:
            outcome = await session.solve(search, Problem.ask("a question", id="p"))
        print(json.dumps([[c.text, c.finish, c.verdicts["reward"].score] for c in outcome.candidates]))
        print(outcome.usage.requests)

    asyncio.run(main(*sys.argv[1:]))
"""
STEPS = 4


def number(*of: Any) -> int:
    return int(hashlib.sha256(repr(of).encode()).hexdigest()[:8], 16)


def prefix_of(asked: Asked) -> str:
    last = asked.body["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def reply(asked: Asked) -> Answer:
    """By what is written and the seed alone; scores by the text alone."""
    if asked.path.endswith("/score"):
        replies = asked.body["replies"]
        ends = [["".join(steps[: n + 1]) for n in range(len(steps))] for steps in replies]
        scores = [[number(text) % 1000 / 1000 for text in texts] for texts in ends]
        return Answer(raw=json.dumps({"scores": scores}).encode(), delay=0.02)
    prefix, seed, n = prefix_of(asked), int(asked.body["seed"]), int(asked.body.get("n", 1))
    greedy = asked.body.get("temperature") == 0
    last = prefix.count("\n") == STEPS - 1
    choices = [
        Answer(
            f"{number(prefix, 0 if greedy else seed + i) % 1000}",
            extra={"stop_reason": None if last else "\n"},
        )
        for i in range(n)
    ]
    return Answer(choices[0].text, delay=0.03, extra=choices[0].extra, others=tuple(choices[1:]))


class Trial:
    """One run's address and store."""

    def __init__(self, server: StubServer, folder: Path, name: str) -> None:
        self.server, self.name = server, name
        self.store = folder / f"{name}.sqlite"

    @property
    def requests(self) -> list[Asked]:
        return [asked for asked in self.server.asked if asked.path.startswith(f"/{self.name}/")]

    @property
    def samples(self) -> Counter[tuple[str, bool, int]]:
        """What was asked for: beginning, greedy or not, seed."""
        return Counter(
            (prefix_of(asked), asked.body.get("temperature") == 0, int(asked.body["seed"]) + i)
            for asked in self.requests
            if not asked.path.endswith("/score")
            for i in range(int(asked.body.get("n", 1)))
        )

    @property
    def scored(self) -> Counter[tuple[Any, ...]]:
        """What was scored."""
        return Counter(
            (*steps, asked.body.get("finished"))
            for asked in self.requests
            if asked.path.endswith("/score")
            for steps in asked.body["replies"]
        )

    def stored(self) -> tuple[int, int]:
        """How many samples and how many scores are in the store."""
        with sqlite3.connect(self.store) as db:
            (samples,) = db.execute("SELECT count(*) FROM samples").fetchone()
            (scores,) = db.execute("SELECT count(*) FROM memory WHERE kind = 'score'").fetchone()
        db.close()
        return int(samples), int(scores)

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            f"{self.server.url.removesuffix('/v1')}/{self.name}",
            str(self.store),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def finish(self) -> tuple[Any, int]:
        process = await self.start()
        said, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        candidates, requests = said.decode().splitlines()
        return json.loads(candidates), int(requests)

    async def kill(self, after: int) -> None:
        """Start it, and end it with SIGKILL when so many requests have come in all."""
        process = await self.start()
        while len(self.requests) < after and process.returncode is None:
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        await heard(self.server)
        assert process.returncode == -signal.SIGKILL, "it was over before"


async def test_killed_in_mid_search_and_run_again_nothing_that_was_kept_is_paid_for_again(
    tmp_path: Path,
) -> None:
    async with StubServer(reply) as server:
        whole, killed = Trial(server, tmp_path, "whole"), Trial(server, tmp_path, "killed")
        result, requests = await whole.finish()
        assert set(whole.samples.values()) == {1} == set(whole.scored.values())
        assert len(whole.requests) == requests > 20

        lost_samples = lost_scores = 0
        for after in (len(whole.requests) // 3, len(whole.requests) - 4):
            await killed.kill(after)
            samples, scores = killed.stored()
            lost_samples = killed.samples.total() - samples
            lost_scores = killed.scored.total() - scores
        again, _ = await killed.finish()

        assert again == result, "as if nothing had happened"
        assert killed.samples.keys() == whole.samples.keys() and killed.scored.keys() == whole.scored.keys()
        assert killed.samples.total() == whole.samples.total() + lost_samples, (
            "only what was in flight, again"
        )
        assert killed.scored.total() == whole.scored.total() + lost_scores
