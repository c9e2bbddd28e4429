"""What the run machinery costs: completions per second through a session against a bare client loop.

Both use the `openai` package with its aiohttp transport against the same local stub, pinned to another core,
in one process, in turns. Ours goes through everything: pipeline, budget, ledger, adaptive concurrency, claims,
and a store on disk. Prints one line of JSON last.

    python -m archon.benchmarks.speed.overhead
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from archon.backends.openai import OpenAI
from archon.budget import Budget, Budgets
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample

PROMPT = "What is the answer to question {}? " + "Consider everything that is known about it. " * 12
ROUNDS = 7


class Measured(NamedTuple):
    """One way, once."""

    per_second: float
    cpu_ms: float
    """CPU time of the whole client process per completion, store thread included."""


async def bare(url: str, concurrency: int, count: int, *, typed: bool = True) -> Measured:
    """As many loops over the plain client as there may be calls in flight.

    `typed` is the client's usual way (`chat.completions.create`); without it the loop posts JSON and reads
    JSON through the same client, as our backend does: what is left to compare is the run machinery alone.
    """
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with AsyncOpenAI(
        api_key="none", base_url=url, max_retries=0, http_client=DefaultAioHttpClient(limits=limits)
    ) as client:
        waiting = iter(range(count))

        async def loop() -> None:
            for number in waiting:
                messages = [{"role": "user", "content": PROMPT.format(number % 32)}]
                if typed:
                    reply = await client.chat.completions.create(
                        model="stub",
                        messages=messages,  # type: ignore[arg-type]
                        temperature=0.8,
                        max_tokens=256,
                    )
                    assert reply.choices[0].message.content
                    continue
                body = {"model": "stub", "messages": messages, "temperature": 0.8, "max_tokens": 256}
                raw = await client.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=json.dumps(body).encode(),
                    options={"headers": {"Content-Type": "application/json"}},
                )
                assert json.loads(raw.content)["choices"][0]["message"]["content"]

        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(loop() for _ in range(concurrency)))
        return Measured(count / (time.perf_counter() - started), 1e3 * (time.process_time() - cpu) / count)


async def ours(url: str, concurrency: int, count: int) -> Measured:
    """The same completions as problems of 64 samples, through a session with everything on."""
    n = 64
    model = OpenAI(
        model="stub",
        base_url=url,
        max_tokens=256,
        concurrency=concurrency,
        max_concurrency=concurrency,
        price={"input": 0.15, "output": 0.6},
    )
    graph = Pipeline([Sample(n=n, temperature=0.8)]).graph()
    budget = Budgets(run=Budget(usd=1000, tokens=10**9), problem=Budget(usd=10, requests=n))
    with tempfile.TemporaryDirectory() as folder:
        async with Session(models=model, budget=budget, store=Path(folder) / "store.sqlite") as session:
            waiting = iter(range(count // n))

            async def loop() -> None:
                for number in waiting:
                    outcome = await session.solve(graph, Problem.ask(PROMPT.format(number), id=str(number)))
                    assert len(outcome.candidates) == n, outcome.failures[:1]

            session.caller("default")
            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(loop() for _ in range(max(2, 2 * concurrency // n))))
            elapsed, used = time.perf_counter() - started, time.process_time() - cpu
            assert session.ledger.fresh.requests == count // n * n
            return Measured(count / elapsed, 1e3 * used / count)


def _figures(turns: list[tuple[Measured, Measured, Measured]]) -> dict[str, float]:
    """Medians, and medians of ratios turn by turn."""
    figures: dict[str, float] = {}
    for place, name in enumerate(("bare", "untyped", "ours")):
        figures[f"{name}_per_second"] = statistics.median(t[place].per_second for t in turns)
        figures[f"{name}_cpu_ms"] = statistics.median(t[place].cpu_ms for t in turns)
    figures["ratio"] = statistics.median(t[2].per_second / t[0].per_second for t in turns)
    figures["ratio_lowest"] = min(t[2].per_second / t[0].per_second for t in turns)
    figures["ratio_untyped"] = statistics.median(t[2].per_second / t[1].per_second for t in turns)
    return figures


def main() -> None:
    """Measure at 64 and 512 calls in flight."""
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [sys.executable, "-m", "archon.benchmarks.speed.stub"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    os.sched_setaffinity(0, {cores[0]})
    figures: dict[str, dict[str, float]] = {}
    try:
        for concurrency, count in ((64, 2048), (512, 4096)):
            turns = []
            for number in range(ROUNDS + 1):
                gc.collect()
                turn = (
                    asyncio.run(bare(url, concurrency, count)),
                    asyncio.run(bare(url, concurrency, count, typed=False)),
                    asyncio.run(ours(url, concurrency, count)),
                )
                if number:  # the first is for warming up
                    turns.append(turn)
            figures[str(concurrency)] = f = _figures(turns)
            print(
                f"{concurrency} in flight: bare {f['bare_per_second']:,.0f}/s ({f['bare_cpu_ms']:.2f} ms CPU), "
                f"bare without types {f['untyped_per_second']:,.0f}/s ({f['untyped_cpu_ms']:.2f} ms), "
                f"ours {f['ours_per_second']:,.0f}/s ({f['ours_cpu_ms']:.2f} ms); "
                f"ratio {f['ratio']:.2f}, to the untyped loop {f['ratio_untyped']:.2f}"
            )
    finally:
        server.terminate()
        server.wait()
    print(json.dumps({"overhead": figures, "rounds": ROUNDS}))


if __name__ == "__main__":
    main()
