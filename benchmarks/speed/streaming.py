"""What streaming saves: the first passing sample against waiting for all of them.

A local server answers sample i after i x 50 ms, and the sixth (after 250 ms) is the first that is right. Two ways
in turns, over real HTTP, with a warm client and sandbox: `sample | verify | first_passing`, which returns then and
closes the other connections; and `sample | verify | best_of`, which waits for all. Prints one line of JSON last.

    python -m archon.benchmarks.speed.streaming
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

from archon.backends.openai import OpenAI
from archon.candidate import Outcome
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Case, Problem
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import Answer, Asked, StubServer
from archon.verifiers.unit_tests import UnitTests

SAMPLES = 64
STEP = 0.05
PASSING = 5
ROUNDS = 7


def program(name: str, right: bool) -> str:
    """A reply that holds a function; different ones each round, so that no verdict is remembered."""
    return f"```python\ndef double(x):\n    {name} = x\n    return {2 if right else 1} * {name}\n```"


async def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Both ways in turns, after one that warms up."""
    early = Sample(n=SAMPLES) | Verify(verifier=UnitTests()) | FirstPassing()
    late = Sample(n=SAMPLES) | Verify(verifier=UnitTests()) | BestOf()
    before = 0

    def reply(asked: Asked) -> Answer:
        number = asked.number - before
        return Answer(program(f"x{before}", number == PASSING), delay=STEP * number)

    seconds: dict[str, list[float]] = {"first_passing": [], "best_of": []}
    outcomes: dict[str, Outcome] = {}
    async with StubServer(reply) as server:
        model = OpenAI(
            model="m",
            base_url=server.url,
            concurrency=SAMPLES,
            max_tokens=100,
            price=Price(input=1, output=2),
        )
        async with Session(models=model) as session:

            async def once(name: str, pipeline: Pipeline, number: int) -> float:
                nonlocal before
                before = len(server.asked)
                problem = Problem.ask(
                    f"Write double, {name} {number}.",
                    answer="code",
                    entry_point="double",
                    tests=(Case(args=(3,), expected=6),),
                )
                started = time.perf_counter()
                outcomes[name] = await session.solve(pipeline, problem)
                taken = time.perf_counter() - started
                while server.in_flight:  # it notices closed connections a moment later
                    await asyncio.sleep(0.01)
                return taken

            await once("best_of", late, -1)
            answered, cut_off = server.answered, server.cut_off
            for number in range(rounds):
                seconds["first_passing"].append(await once("first_passing", early, number))
                seconds["best_of"].append(await once("best_of", late, number))
    first = outcomes["first_passing"]
    return {
        "benchmark": "streaming",
        "rounds": rounds,
        "passing_sample_sent_after_s": PASSING * STEP,
        "last_sample_sent_after_s": (SAMPLES - 1) * STEP,
        "first_passing_s": round(statistics.median(seconds["first_passing"]), 4),
        "all_s": round(statistics.median(seconds["best_of"]), 4),
        "ratio": round(
            statistics.median(seconds["best_of"]) / statistics.median(seconds["first_passing"]), 2
        ),
        "chosen": None if first.chosen is None else first.chosen.id,
        "stopped": first.stopped,
        "early_answered_per_round": round((server.answered - answered) / rounds - SAMPLES, 1),
        "early_connections_closed_per_round": round((server.cut_off - cut_off) / rounds, 1),
        "early_usage": first.usage.as_json(),
    }


def main() -> None:
    """Measure and print."""
    found = asyncio.run(measure())
    print(
        f"first passing sample: {found['first_passing_s']:.3f} s (it was sent after "
        f"{found['passing_sample_sent_after_s']:.2f} s); all samples: {found['all_s']:.3f} s; "
        f"ratio {found['ratio']}"
    )
    usage = found["early_usage"]
    print(
        f"per early run the server answered {found['early_answered_per_round']} and saw "
        f"{found['early_connections_closed_per_round']} connections closed; billed: {usage['requests']} requests, "
        f"{usage['estimated']} of them estimated, ${usage['usd']:.6f}"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
