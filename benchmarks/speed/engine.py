"""Tokens per second of the numpy engine against torch on the CPU: the same weights, prompt and sampling, in turns.

torch decodes with a loop written for it: preallocated keys and values, fused projections, its own attention with
grouped queries, `multinomial`. Where `transformers` is installed, its `generate` takes a turn as well. One thread each;
then all cores, which for torch is threads and for us processes. Replies do not end before their length, so that all do
the same work. Prints one line of JSON last.

    python -m archon.benchmarks.speed.engine [WEIGHTS [TOKENS]]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from archon.backends.nano.batch import Batch
from archon.backends.nano.folder import locate, read_shape, read_tensors
from archon.backends.nano.llama import Llama, Prefix
from archon.backends.nano.sampling import Choice, choose
from archon.errors import MissingExtra

BATCHES = (1, 16, 64, 256)
PROMPT = [1, *np.random.default_rng(0).integers(6, 101, 79).tolist(), 4]
TEMPERATURE = 0.8
ROUNDS = 3
Side = Callable[[int, int], Any]
"""Decodes so many samples to so many new tokens."""


class _Row:
    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix


def ours(folder: Path) -> Side:
    """Decode `size` samples of the prompt to `length` new tokens."""
    model = Llama(folder)

    def decode(size: int, length: int) -> None:
        draw = np.random.default_rng(0)
        prefix = model.read(PROMPT)
        batch: Batch[_Row] = Batch(model.shape, size)
        for _ in range(size):
            batch.add(_Row(prefix))
        choices = [Choice(TEMPERATURE)] * size
        logits = np.tile(prefix.outcome[-1], (size, 1))
        for _ in range(length - 1):
            logits = model.step(choose(logits, choices, draw.random(size)), batch)
        choose(logits, choices, draw.random(size))

    return decode


def torchs(folder: Path, torch: Any) -> Side:
    """The same in torch."""
    s, functional = read_shape(folder), torch.nn.functional
    w = {name: torch.from_numpy(t.copy()) for name, t in read_tensors(folder / "model.safetensors").items()}
    embedding, last = w["model.embed_tokens.weight"], w["model.norm.weight"]
    layers = []
    for number in range(s.layers):
        name = f"model.layers.{number}."
        qkv = torch.cat([w[f"{name}self_attn.{part}_proj.weight"] for part in "qkv"])
        gate_up = torch.cat([w[f"{name}mlp.{part}_proj.weight"] for part in ("gate", "up")])
        norms = w[f"{name}input_layernorm.weight"], w[f"{name}post_attention_layernorm.weight"]
        layers.append(
            (*norms, qkv, w[f"{name}self_attn.o_proj.weight"], gate_up, w[f"{name}mlp.down_proj.weight"])
        )
    angles = torch.outer(torch.arange(s.positions), s.theta ** (-torch.arange(0, s.head_dim, 2) / s.head_dim))
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()

    def forward(tokens: Any, start: int, keys: Any, values: Any) -> Any:
        size, new = tokens.shape
        end, half = start + new, s.head_dim // 2
        x = embedding[tokens]
        for number, (before, between, qkv, out, gate_up, down) in enumerate(layers):
            y = functional.rms_norm(x, (s.hidden,), before, s.eps) @ qkv.T
            y = y.view(size, new, -1, s.head_dim).transpose(1, 2)
            q, k, v = y.split((s.heads, s.kv_heads, s.kv_heads), dim=1)
            q, k = (
                z * cos[start:end] + torch.cat((-z[..., half:], z[..., :half]), -1) * sin[start:end]
                for z in (q, k)
            )
            keys[number, :size, :, start:end], values[number, :size, :, start:end] = k, v
            seen = functional.scaled_dot_product_attention(
                q,
                keys[number, :size, :, :end],
                values[number, :size, :, :end],
                is_causal=new > 1,
                enable_gqa=True,
            )
            x = x + seen.transpose(1, 2).reshape(size, new, -1) @ out.T
            gate, up = (functional.rms_norm(x, (s.hidden,), between, s.eps) @ gate_up.T).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ down.T
        return functional.rms_norm(x[:, -1], (s.hidden,), last, s.eps) @ embedding.T

    def decode(size: int, length: int) -> None:
        shape = (s.layers, size, s.kv_heads, len(PROMPT) + length, s.head_dim)
        keys, values = torch.zeros(shape), torch.zeros(shape)
        logits = forward(torch.tensor([PROMPT]), 0, keys, values).expand(size, -1)
        keys[:, 1:], values[:, 1:] = keys[:, :1], values[:, :1]
        for at in range(len(PROMPT), len(PROMPT) + length - 1):
            tokens = torch.multinomial((logits / TEMPERATURE).softmax(-1), 1)
            logits = forward(tokens, at, keys, values)
        torch.multinomial((logits / TEMPERATURE).softmax(-1), 1)

    whole: Side = torch.inference_mode()(decode)
    return whole


def transformers_s(folder: Path, torch: Any) -> Side | None:
    """The same by `generate`, where there is a `transformers`."""
    try:
        from transformers import LlamaForCausalLM
    except ImportError as error:
        print(f"LOUDLY SKIPPED: transformers is not installed ({error})", file=sys.stderr)
        return None
    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()

    def decode(size: int, length: int) -> None:
        ids = torch.tensor([PROMPT])
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=TEMPERATURE, top_k=0,
            num_return_sequences=size, max_new_tokens=length, min_new_tokens=length,
        )  # fmt: skip

    whole: Side = torch.inference_mode()(decode)
    return whole


def seconds(work: Callable[..., Any], *given: int) -> float:
    started = time.perf_counter()
    work(*given)
    return time.perf_counter() - started


def all_cores(folder: Path, size: int, length: int, cores: int) -> float:
    """Seconds until a process per core has decoded its share, once each is ready."""
    command = [
        sys.executable,
        "-m",
        "archon.benchmarks.speed.engine",
        "--share",
        str(folder),
        str(size),
        str(length),
    ]
    shares = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(cores)
    ]
    for share in shares:
        assert share.stdout is not None
        share.stdout.readline()

    def decode() -> None:
        for share in shares:
            assert share.stdin is not None
            share.stdin.close()
        for share in shares:
            share.wait()

    return seconds(decode)


def share_of_all(folder: Path, size: int, length: int) -> None:
    decode = ours(folder)
    decode(size, 4)
    print("ready", flush=True)
    sys.stdin.read()
    decode(size, length)
    os._exit(0)  # what it takes to end is not decoding


def main(weights: str = "lm", length: int = 96) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(
            f"torch is needed to compare with ({error}): pip install 'archon[train]'"
        ) from error
    folder, cores = locate(weights), len(os.sched_getaffinity(0))
    sides = {"numpy": ours(folder), "torch": torchs(folder, torch)}
    generate = transformers_s(folder, torch)
    if generate is not None:
        sides["transformers"] = generate
    figures: dict[str, Any] = {}
    for size in BATCHES:
        tokens = size * length
        took: dict[str, list[float]] = {}
        for number in range(ROUNDS + 1):
            turn: dict[str, float] = {}
            torch.set_num_threads(1)
            for name, decode in sides.items():
                turn[name] = seconds(decode, size, length)
            torch.set_num_threads(cores)
            turn["torch_all_cores"] = seconds(sides["torch"], size, length)
            if size >= cores:
                turn["numpy_all_cores"] = all_cores(folder, size // cores, length, cores)
            if number:  # the first is for warming up
                for name, value in turn.items():
                    took.setdefault(name, []).append(value)
        speeds = {name: round(tokens / statistics.median(values)) for name, values in took.items()}
        pairs = [("numpy", "torch"), ("numpy_all_cores", "torch_all_cores"), ("numpy", "transformers")]
        ratios = {
            f"{us}_to_{them}": round(
                statistics.median(t / u for u, t in zip(took[us], took[them], strict=True)), 2
            )
            for us, them in pairs
            if us in took and them in took
        }
        figures[str(size)] = {"tokens_per_second": speeds, "ratios": ratios}
        print(
            f"batch {size}: " + ", ".join(f"{k} {v:,}/s" for k, v in speeds.items()) + f"; {ratios}",
            flush=True,
        )
    print(
        json.dumps(
            {"engine": figures, "cores": cores, "prompt": len(PROMPT), "tokens": length, "rounds": ROUNDS}
        )
    )


if __name__ == "__main__":
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when numpy is loaded: begin again
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "archon.benchmarks.speed.engine", *sys.argv[1:]])
    if sys.argv[1:2] == ["--share"]:
        share_of_all(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        try:
            main(sys.argv[1] if sys.argv[1:] else "lm", int(sys.argv[2]) if sys.argv[2:] else 96)
        except MissingExtra as missing:
            sys.exit(str(missing))
