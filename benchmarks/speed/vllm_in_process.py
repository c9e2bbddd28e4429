"""Tokens per second of vLLM's engine in our own process against a server of ours with the same weights, in turns.

Both get the same questions by the same interface (`Backend.complete`), each reply of exactly so many tokens: one
problem with 64 samples, 64 problems with one, 16 with 16. No pipeline, no store: they cost both the same. Needs a
Python that has vLLM and archon (docs/vllm.md). Prints one line of JSON last.

    python -m archon.benchmarks.speed.vllm_in_process [FOLDER]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from contextlib import aclosing
from typing import Any

from archon.backends.base import Progress, Request, Sampling
from archon.backends.vllm.config import VLLM
from archon.benchmarks.speed.vllm import folder
from archon.problem import Message

SHAPES = ((1, 64), (64, 1), (16, 16))
"""Problems, and samples of each."""
TOKENS = 64
ROUNDS = 3
OPTIONS = {"max_model_len": 1024, "enforce_eager": True, "dtype": "float32", "enable_chunked_prefill": False}
PROMPT = "Way {}, round {}: what is {} + {} * {}?"
_SAMPLING = Sampling(temperature=1.0, seed=0, max_tokens=TOKENS, extra={"ignore_eos": True})


async def ask(backend: Any, text: str, samples: int) -> int:
    """Samples of one problem; how many tokens came."""
    request = Request((Message(role="user", content=text),), sampling=_SAMPLING)
    async with aclosing(backend.complete(request, range(samples), Progress())) as stream:
        return sum([completion.tokens.completion async for completion in stream])


async def wave(backend: Any, way: int, turn: int, problems: int, samples: int) -> float:
    """Tokens per second. No other wave asks these questions, so none finds them in the prefix cache."""
    texts = [PROMPT.format(way, turn, number, problems, samples) for number in range(problems)]
    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(ask(backend, text, samples) for text in texts)))
    elapsed = time.perf_counter() - started
    assert tokens == problems * samples * TOKENS, f"{tokens} tokens"
    return tokens / elapsed


async def measure(model: VLLM, rounds: int = ROUNDS) -> dict[str, Any]:
    """Both in turns, after a wave each that warms up."""
    inside = model.model_copy(update={"in_process": True, "python": None})
    ways = {"in process": inside, "server": model}
    backends = {name: way.connect() for name, way in ways.items()}
    starts = {}
    try:
        for name, backend in backends.items():
            started = time.perf_counter()
            await backend.ready()
            starts[name] = time.perf_counter() - started
            await wave(backend, len(ways), len(starts), 16, 4)
        rows = []
        for problems, samples in SHAPES:
            speeds: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(rounds):
                for way, (name, backend) in enumerate(backends.items()):
                    speeds[name].append(await wave(backend, way, turn, problems, samples))
            ratios = [a / b for a, b in zip(speeds["in process"], speeds["server"], strict=True)]
            rows.append(
                {
                    "problems": problems,
                    "samples": samples,
                    "tokens_per_second": {
                        name: round(statistics.median(found)) for name, found in speeds.items()
                    },
                    "ratio": round(statistics.median(ratios), 3),
                }
            )
    finally:
        for backend in backends.values():
            await backend.close()
    return {
        "benchmark": "vllm in process",
        "rounds": rounds,
        "tokens_each": TOKENS,
        "seconds_to_start": {name: round(seconds, 1) for name, seconds in starts.items()},
        "shapes": rows,
    }


def main() -> None:
    """Measure and print."""
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    place = sys.argv[1] if len(sys.argv) > 1 else str(folder())
    found = asyncio.run(
        measure(VLLM(model=place, python=sys.executable, options=OPTIONS, environment=environment))
    )
    print("start:", ", ".join(f"{name} {seconds} s" for name, seconds in found["seconds_to_start"].items()))
    for row in found["shapes"]:
        speeds = row["tokens_per_second"]
        print(
            f"{row['problems']} x {row['samples']}: in process {speeds['in process']:,} tokens/s, server "
            f"{speeds['server']:,}, ratio {row['ratio']:.2f}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
