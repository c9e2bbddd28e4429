"""The nano engine against its roofline: what share of this processor's idealised speed it reaches, by batch.

Peak and bandwidth are measured by numpy in the same process, on one BLAS thread, just before each batch; both sides
are timed in CPU seconds, so that other work on the machine disturbs the ratio little. A share of 1 would be an engine
that does nothing but matrix products at full speed. Prints one line of JSON last.

    python -m archon.benchmarks.speed.roofline --model archon/backends/nano/weights/lm
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import json
import time
from pathlib import Path
from typing import Any

import click

from archon.backends.nano.engine import Ask, Engine
from archon.backends.nano.folder import locate
from archon.backends.nano.llama import Llama
from archon.backends.nano.sampling import Choice
from archon.compute import Architecture
from archon.roofline import machine_time, measure
from archon.usage import Usage

PROMPT = 100
"""Tokens of the prompt, which all samples of a batch share."""
ROUNDS = 3


def compare(folder: Path, batch: int, output: int) -> dict[str, Any]:
    """One batch: tokens per CPU second as they are and as they could be; the best of several rounds."""
    model, engine = Architecture.read(folder), Engine(Llama(folder), capacity=batch)
    measure.cache_clear()
    here = measure(cores=1)
    best = 0.0
    ideal = 0.0
    for number in range(ROUNDS):
        ask = Ask(
            number,
            tuple(6 + (number + place) % 90 for place in range(PROMPT)),
            tuple((sample, sample) for sample in range(batch)),
            Choice(),
            output,
        )
        seconds, tokens = _decode(engine, ask)
        usage = Usage(requests=1, prompt_tokens=PROMPT, completion_tokens=tokens)
        if tokens / seconds > best:
            best = tokens / seconds
            ideal = tokens / machine_time(model, here, usage, sequences=batch, batch=batch).seconds
    return {
        "batch": batch,
        "tokens_per_second": round(best),
        "ideal_tokens_per_second": round(ideal),
        "share": round(best / ideal, 3),
        "gflops_per_second": round(here.peak("float32") / 1e9, 1),
        "gbytes_per_second": round(here.bandwidth / 1e9, 1),
    }


def _decode(engine: Engine, ask: Ask) -> tuple[float, int]:
    """CPU seconds, and tokens generated."""
    start, tokens = time.process_time(), 0
    engine.add(ask)
    while not engine.idle:
        tokens += sum(len(done.tokens) for done in engine.step())
    return time.process_time() - start, tokens


@click.command()
@click.option(
    "--model", default="lm", show_default=True, metavar="NAME|DIR", help="Weights, as `nano` names them."
)
@click.option(
    "--batch", "batches", default="1,16,64,256", show_default=True, metavar="N,...", help="Samples at once."
)
@click.option("--output", default=100, show_default=True, metavar="TOKENS", help="Longest reply.")
def main(model: str, batches: str, output: int) -> None:
    """Compare the nano engine with its roofline."""
    folder = locate(model)
    found = [compare(folder, int(batch), output) for batch in batches.split(",")]
    for one in found:
        print(
            f"batch {one['batch']}: {one['tokens_per_second']:,} tokens per CPU second, "
            f"{one['ideal_tokens_per_second']:,} at the roofline: {100 * one['share']:.0f}%"
        )
    print(json.dumps({"parameters": Architecture.read(folder).parameters, "batches": found}))


if __name__ == "__main__":
    main()
