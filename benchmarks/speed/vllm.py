"""Tokens per second on vLLM: a pipeline of ours against vLLM's own benchmark client, on one server, in turns.

The work is the same for all: as many samples of as many problems, each of exactly so many tokens, the same number
in flight. Theirs (`vllm bench serve`) asks for single samples and streams. Ours goes through everything: pipeline,
budget, ledger, adaptive concurrency and a store on disk; in three ways: as many samples per request as the server
takes (what `auto` does where nothing can stop early), single requests, and single requests that stream as theirs.
The server is given, or started with the nano model's weights (random ones of its shape where none are shipped).
Prints one line of JSON last.

    python -m archon.benchmarks.speed.vllm [http://127.0.0.1:8000/v1 MODEL FOLDER]
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from archon.backends.base import Sampling
from archon.backends.nano.folder import SHIPPED
from archon.backends.nano.tokens import VOCABULARY
from archon.backends.nano.writing import write_folder
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.server import Server
from archon.budget import Budget, Budgets
from archon.errors import UserError
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample

SAMPLES = 16
PROBLEMS = 32
TOKENS = 64
IN_FLIGHT = 64
ROUNDS = 3
PROMPT = "Way {}, round {}: what is {} + {} * {}?"
_EXACTLY = {"ignore_eos": True}
_BENCH = """
import json, sys
from vllm.benchmarks import serve
from vllm.benchmarks.datasets import SampleRequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

def samples(args, tokenizer):
    texts = [json.loads(line) for line in open(args.dataset_path)]
    return [
        SampleRequest(text, prompt_len=len(text), expected_output_len=args.custom_output_len, request_id=str(number))
        for number, text in enumerate(texts)
    ]

serve.get_samples = samples
parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""
"""Its `vllm bench serve` with our questions: the console script asks for a distribution of another name than that
of builds for CPUs, and reading a file of questions for a package (pandas) that nothing else needs."""


class Way(NamedTuple):
    """One way of ours to ask for the samples."""

    name: str
    per_request: int
    stream: bool = False


WAYS = (Way("n per request", SAMPLES), Way("single", 1), Way("single, streamed", 1, stream=True))


class Served(NamedTuple):
    """A server, and what its model is called."""

    url: str
    model: str
    folder: str
    python: str


def prompts(way: int, turn: int) -> list[str]:
    """A round's questions; no other round asks them, so that none finds them in the prefix cache."""
    return [PROMPT.format(way, turn, number, number % 7, number % 5) for number in range(PROBLEMS)]


async def ours(served: Served, way: Way, asked: list[str]) -> float:
    """Completion tokens per second through a session with everything on."""
    model = VLLM(
        model=served.model,
        url=served.url,
        stream=way.stream,
        max_tokens=TOKENS,
        concurrency=IN_FLIGHT // way.per_request,
        max_concurrency=IN_FLIGHT // way.per_request,
        sampling=Sampling(temperature=1.0, extra=_EXACTLY),
        price=Price(input=0, output=0),
    )
    graph = Pipeline([Sample(n=SAMPLES, per_request=way.per_request)]).graph()
    budget = Budgets(run=Budget(usd=1000, tokens=10**9), problem=Budget(usd=10, requests=SAMPLES))
    with tempfile.TemporaryDirectory() as folder:
        async with Session(models=model, budget=budget, store=Path(folder) / "store.sqlite") as session:
            await session.solve(Pipeline([Sample(max_tokens=1)]), Problem.ask("warm up", id="warm-up"))
            warm = session.ledger.fresh.completion_tokens
            waiting = iter(enumerate(asked))

            async def loop() -> None:
                for number, text in waiting:
                    outcome = await session.solve(graph, Problem.ask(text, id=str(number)))
                    assert len(outcome.candidates) == SAMPLES, outcome.failures[:1]

            started = time.perf_counter()
            await asyncio.gather(*(loop() for _ in range(2 * IN_FLIGHT // SAMPLES)))
            elapsed = time.perf_counter() - started
            done = session.ledger.fresh.completion_tokens - warm
            assert done == SAMPLES * len(asked) * TOKENS, f"{done} tokens"
            return done / elapsed


def theirs(served: Served, asked: list[str]) -> float:
    """Completion tokens per second of vLLM's client, by its own clock."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder) / "asked.jsonl", Path(folder) / "result.json"
        data.write_text("".join(json.dumps(text) + "\n" for text in asked for _ in range(SAMPLES)))
        options = {
            "backend": "openai-chat",
            "endpoint": "/v1/chat/completions",
            "base-url": served.url.removesuffix("/v1"),
            "model": served.model,
            "tokenizer": served.folder,
            "dataset-name": "custom",
            "dataset-path": str(data),
            "custom-output-len": TOKENS,
            "num-prompts": SAMPLES * len(asked),
            "max-concurrency": IN_FLIGHT,
            "temperature": 1.0,
            "result-dir": folder,
            "result-filename": result.name,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        flags = ["--ignore-eos", "--disable-tqdm", "--save-result", "--save-detailed"]
        done = subprocess.run(
            [served.python, "-c", _BENCH, *words, *flags],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            capture_output=True,
            text=True,
        )
        if not result.exists():
            raise UserError(f"vLLM's benchmark client failed: {done.stderr.strip()[-2000:]}")
        found: dict[str, Any] = json.loads(result.read_text())
        tokens = SAMPLES * len(asked) * TOKENS
        wrong = next((error for error in found["errors"] if error), "")
        assert found["total_output_tokens"] == tokens, f"{found['total_output_tokens']} tokens. {wrong}"
        return float(found["output_throughput"])


async def measure(served: Served, rounds: int = ROUNDS) -> dict[str, Any]:
    """All ways in turns, after a turn of ours that warms up."""
    await ours(served, WAYS[0], prompts(len(WAYS) + 1, 0))
    speeds: dict[str, list[float]] = {"vllm bench serve": [], **{way.name: [] for way in WAYS}}
    for turn in range(rounds):
        speeds["vllm bench serve"].append(await asyncio.to_thread(theirs, served, prompts(len(WAYS), turn)))
        for number, way in enumerate(WAYS):
            speeds[way.name].append(await ours(served, way, prompts(number, turn)))
    baseline = speeds["vllm bench serve"]
    return {
        "benchmark": "vllm",
        "rounds": rounds,
        "samples": SAMPLES * PROBLEMS,
        "tokens_each": TOKENS,
        "in_flight": IN_FLIGHT,
        "tokens_per_second": {name: round(statistics.median(found)) for name, found in speeds.items()},
        "ratio": {
            way.name: round(
                statistics.median(a / b for a, b in zip(speeds[way.name], baseline, strict=True)), 3
            )
            for way in WAYS
        },
    }


def folder() -> Path:
    """The nano model's weights; random ones of their shape where none are shipped."""
    shipped = SHIPPED / "lm"
    return shipped if (shipped / "config.json").is_file() else random_weights(Path(tempfile.mkdtemp()))


def random_weights(path: Path) -> Path:
    """Write a model of the nano model's shape that knows nothing: speed is all the same."""
    import numpy as np

    draw = np.random.default_rng(0)
    hidden, layers, heads, kv_heads, feed = 192, 4, 6, 2, 512
    head = hidden // heads
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv_heads * head, hidden),
        "self_attn.v_proj": (kv_heads * head, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (feed, hidden),
        "mlp.up_proj": (feed, hidden),
        "mlp.down_proj": (hidden, feed),
    }
    tensors = {"model.embed_tokens.weight": draw.normal(0, 0.3, (VOCABULARY, hidden))}
    tensors["model.norm.weight"] = np.ones(hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        tensors |= {f"{at}.{name}.weight": draw.normal(0, 0.07, shape) for name, shape in shapes.items()}
        tensors |= {f"{at}.{name}_layernorm.weight": np.ones(hidden) for name in ("input", "post_attention")}
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "intermediate_size": feed,
    }
    write_folder(path, tensors, sizes)
    return path


async def run(words: list[str]) -> dict[str, Any]:
    """Measure on the server that is given, or on one of our own."""
    config = VLLM(
        model=words[1] if words else str(folder()),
        options={"max_model_len": 1024, "enforce_eager": True, "dtype": "float32"},
        environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    if words:
        return await measure(Served(words[0], words[1], words[2], config.interpreter()))
    server = Server(config.orders(0), 0.0, lambda text: print(text, file=sys.stderr))
    await server.start()
    try:
        return await measure(Served(server.url, config.served, config.served, config.interpreter()))
    finally:
        await server.close()


def main() -> None:
    """Measure and print."""
    found = asyncio.run(run(sys.argv[1:]))
    for name, speed in found["tokens_per_second"].items():
        ratio = found["ratio"].get(name)
        print(f"{name}: {speed:,} tokens/s" + ("" if ratio is None else f", ratio {ratio:.2f}"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
