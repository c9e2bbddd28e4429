"""Tokens per second of the numpy engine against torch on the CPU: the same weights, prompt and sampling, in turns.

torch decodes with a plain loop written for it: preallocated keys and values, fused projections, its own attention with
the queries of a group side by side, `multinomial`. At one batch size `transformers`' `generate` takes a turn as well,
where it is installed. One thread each; then all cores, which for torch is threads and for us processes. All must
decode the same text greedily before they are timed. Replies do not end before their length, so that all do the same
work. A ratio is the median of those of the rounds, with the least and the largest: between these the median of all
possible rounds lies with the probability that is printed (1 - 2 / 2^rounds). Prints one line of JSON last.

    python -m archon.benchmarks.speed.engine [WEIGHTS [TOKENS]]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archon.backends.nano.batch import Batch
from archon.backends.nano.folder import locate, read_shape, read_tensors
from archon.backends.nano.llama import Llama
from archon.backends.nano.reading import Prefix
from archon.backends.nano.sampling import Choice, choose
from archon.errors import MissingExtra

BATCHES = (1, 16, 64, 256)
GENERATE_AT = 16
"""The batch size at which `transformers` takes part."""
PROMPT = [1, *np.random.default_rng(0).integers(6, 101, 79).tolist(), 4]
TEMPERATURE = 0.8
LEAST_ROUNDS, MOST_ROUNDS = 3, 6
SECONDS = 40.0
"""Per batch size; then no further round begins."""
Side = Callable[[int, int, float], list[int]]
"""Decodes so many samples to so many new tokens at a temperature; returns the first sample's."""


class _Row:
    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix


def ours(folder: Path) -> Side:
    """Our own loop, without the engine's accounts of who is decoded."""
    model = Llama(folder)

    def decode(size: int, length: int, temperature: float) -> list[int]:
        draw = np.random.default_rng(0)
        prefix = model.read(PROMPT)
        batch: Batch[_Row] = Batch(model.shape, size)
        for _ in range(size):
            batch.add(_Row(prefix))
        choices = [Choice(temperature)] * size
        tokens = choose(np.tile(prefix.outcome[-1], (size, 1)), choices, draw.random(size))
        first = [int(tokens[0])]
        for _ in range(length - 1):
            tokens = choose(model.step(tokens, batch), choices, draw.random(size))
            first.append(int(tokens[0]))
        return first

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
            kept = keys[number, :size, :, :end], values[number, :size, :, :end]
            if new > 1:
                seen = functional.scaled_dot_product_attention(q, *kept, is_causal=True, enable_gqa=True)
            else:  # a group's queries as if they were positions: nothing is masked
                grouped = q.reshape(size, s.kv_heads, -1, s.head_dim)
                seen = functional.scaled_dot_product_attention(grouped, *kept).view_as(q)
            x = x + seen.transpose(1, 2).reshape(size, new, -1) @ out.T
            gate, up = (functional.rms_norm(x, (s.hidden,), between, s.eps) @ gate_up.T).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ down.T
        return functional.rms_norm(x[:, -1], (s.hidden,), last, s.eps) @ embedding.T

    def choice(logits: Any, temperature: float) -> Any:
        if not temperature:
            return logits.argmax(-1, keepdim=True)
        return torch.multinomial((logits / temperature).softmax(-1), 1)

    def decode(size: int, length: int, temperature: float) -> list[int]:
        shape = (s.layers, size, s.kv_heads, len(PROMPT) + length, s.head_dim)
        keys, values = torch.zeros(shape), torch.zeros(shape)
        tokens = choice(forward(torch.tensor([PROMPT]), 0, keys, values).expand(size, -1), temperature)
        keys[:, 1:], values[:, 1:] = keys[:, :1], values[:, :1]
        first = [int(tokens[0])]
        for at in range(len(PROMPT), len(PROMPT) + length - 1):
            tokens = choice(forward(tokens, at, keys, values), temperature)
            first.append(int(tokens[0]))
        return first

    whole: Side = torch.inference_mode()(decode)
    return whole


def transformers_s(folder: Path, torch: Any) -> Side | None:
    """The same by `generate`, where there is a `transformers`."""
    try:
        from transformers import LlamaForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        print(f"LOUDLY SKIPPED: transformers is not installed ({error})", file=sys.stderr)
        return None
    disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None

    def decode(size: int, length: int, temperature: float) -> list[int]:
        ids = torch.tensor([PROMPT] * (1 if temperature else size))
        how = {"temperature": temperature, "top_k": 0, "num_return_sequences": size} if temperature else {}
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=bool(temperature),
            max_new_tokens=length,
            **how,
        )
        first: list[int] = made[0, len(PROMPT) :].tolist()
        return first

    whole: Side = torch.inference_mode()(decode)
    return whole


def seconds(work: Callable[..., Any], *given: float) -> float:
    started = time.perf_counter()
    work(*given)
    return time.perf_counter() - started


class Shares:
    """A process per core, each with a share of the samples."""

    def __init__(self, folder: Path, cores: int) -> None:
        command = [sys.executable, "-m", "archon.benchmarks.speed.engine", "--share", str(folder)]
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(cores)
        ]

    def decode(self, size: int, length: int, temperature: float) -> None:
        """Wait until each has decoded its share."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{size // len(self._processes)} {length} {temperature}\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()


def share_of_all(folder: Path) -> None:
    decode = ours(folder)
    for line in sys.stdin:
        size, length, temperature = line.split()
        decode(int(size), int(length), float(temperature))
        print("done", flush=True)


def rounds(turns: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """The seconds that each took, in turns, after a round for warming up."""
    took: dict[str, list[float]] = {name: [] for name in turns}
    started = time.monotonic()
    for number in range(MOST_ROUNDS + 1):
        if number > LEAST_ROUNDS and time.monotonic() - started > SECONDS:
            break
        for name, turn in turns.items():
            value = turn()
            if number:
                took[name].append(value)
    return took


def compared(took: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float, float]]:
    """Ratios of tokens per second: median, least, largest."""
    pairs = [("numpy", "torch"), ("numpy_all_cores", "torch_all_cores"), ("numpy", "transformers")]
    ratios = {
        f"{us}/{them}": [t / u for u, t in zip(took[us], took[them], strict=True)]
        for us, them in pairs
        if us in took and them in took
    }
    return {
        name: (round(statistics.median(r), 2), round(min(r), 2), round(max(r), 2))
        for name, r in ratios.items()
    }


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
    greedy = {name: decode(2, 32, 0.0) for name, decode in sides.items()}
    if len({tuple(tokens) for tokens in greedy.values()}) > 1:
        sys.exit(f"they do not decode the same text: {greedy}")
    shares = Shares(folder, cores)

    def turn(decode: Callable[..., Any], threads: int, size: int) -> Callable[[], float]:
        def timed() -> float:
            torch.set_num_threads(threads)
            return seconds(decode, size, length, TEMPERATURE)

        return timed

    figures: dict[str, Any] = {}
    for size in BATCHES:
        turns = {
            name: turn(decode, 1, size)
            for name, decode in sides.items()
            if name != "transformers" or size == GENERATE_AT
        }
        if size >= cores > 1:
            turns["numpy_all_cores"] = turn(shares.decode, 1, size)
            turns["torch_all_cores"] = turn(sides["torch"], cores, size)
        took = rounds(turns)
        speeds = {name: round(size * length / statistics.median(values)) for name, values in took.items()}
        ratios, count = compared(took), len(took["numpy"])
        figures[str(size)] = {"tokens_per_second": speeds, "ratios": ratios, "rounds": count}
        print(f"batch {size}: " + ", ".join(f"{name} {value:,}/s" for name, value in speeds.items()))
        for name, (middle, least, most) in ratios.items():
            sure = f"{1 - 2 / 2**count:.0%} of {count} rounds"
            print(f"    {name} {middle:.2f} [{least:.2f}, {most:.2f}; {sure}]", flush=True)
    shares.close()
    versions = {"numpy": np.__version__, "torch": torch.__version__}
    about = {"cores": cores, "prompt": len(PROMPT), "tokens": length, "versions": versions}
    print(json.dumps({"engine": figures, **about}))


if __name__ == "__main__":
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when numpy is loaded: begin again
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "archon.benchmarks.speed.engine", *sys.argv[1:]])
    if sys.argv[1:2] == ["--share"]:
        share_of_all(Path(sys.argv[2]))
    else:
        try:
            main(sys.argv[1] if sys.argv[1:] else "lm", int(sys.argv[2]) if sys.argv[2:] else 96)
        except MissingExtra as missing:
            sys.exit(str(missing))
