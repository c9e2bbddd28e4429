"""Train the nano models anew: `python -m archon.benchmarks.lab.training --out nano`."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

try:
    import torch
except ImportError:
    raise SystemExit("training needs torch, of the `train` extra: pip install 'archon[train]'") from None

from archon.backends.nano.folder import read_tensors
from archon.backends.nano.writing import write_folder
from archon.benchmarks.lab.family import Split, Task, tasks
from archon.benchmarks.lab.training.attempts import Attempt, task_set
from archon.benchmarks.lab.training.comparing import comparing
from archon.benchmarks.lab.training.data import FAMILIES, exchanges
from archon.benchmarks.lab.training.feed import Source
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.language import Schedule, train
from archon.benchmarks.lab.training.lessons import lessons
from archon.benchmarks.lab.training.model import Language, Reward, Shape
from archon.benchmarks.lab.training.optimisers import Gently
from archon.benchmarks.lab.training.rewards import scored, train_rewards
from archon.benchmarks.lab.training.rollouts import Draw, attempted, by_outcome, labelled, opened
from archon.benchmarks.lab.training.sampler import Sampler
from archon.benchmarks.statistics.probabilities import area_under_curve, calibration, order_within

_SHAPE = Shape()
_RIVALS = 4242
"""The seed of the problems that the process reward model is to judge attempts at."""
_JUDGED = 2_000_000
"""Tokens that it is trained on. More of them, or faster, and it learns to tell questions apart, which outcomes reward
most, and loses what it begins with, the order of a question's answers (1,200 steps at 1e-3: 0.87 became 0.78)."""


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where all of it goes."
)
@click.option("--first", default=45.0, metavar="MINUTES", help="Training on tasks.")
@click.option("--second", default=12.0, metavar="MINUTES", help="Training on lessons from its own samples.")
@click.option("--rewards", default=8.0, metavar="MINUTES", help="Training each reward model.")
@click.option("--per-level", default=120, metavar="N", help="Tasks of each family and level to sample.")
@click.option(
    "--rolled", default=1, metavar="N", help="Of twelve samples of a task, those with Monte Carlo labels."
)
@click.option(
    "--rivals",
    default=1000,
    metavar="N",
    help="Problems of arithmetic of a level for the process reward model.",
)
@click.option("--tokens", type=int, metavar="N", help="Of one step: 4,096; on a GPU 65,536.")
@click.option("--start", type=click.Path(path_type=Path), metavar="DIR", help="Go on from these weights.")
def main(
    out: Path, start: Path | None, first: float, second: float, rewards: float, per_level: int, rolled: int,
    rivals: int, tokens: int | None,
) -> None:  # fmt: skip
    """Train the language model, then the reward models on its roll-outs. What is there already is not made again,
    so that a training that was broken off goes on at the last part that it began.

    \b
    python -m archon.benchmarks.lab.training --out nano
    """
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew, for 10 ms, at every shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = tokens or (4096 if device == "cpu" else 65536)
    out.mkdir(parents=True, exist_ok=True)

    def language(name: str, start: Path | None, source: Source, minutes: float) -> None:
        net = Language(_SHAPE) if start is None else _read(Language(_SHAPE), start)
        schedule = Schedule(minutes, tokens, rate=5e-3 if name == "first" else 2e-3)
        losses = train(net, source, schedule, device, keep=lambda: _save(net, out / f"{name}.so-far"))
        _note(out, name, {"losses": losses})
        _save(net, out / name)

    _once(out / "first", lambda: language("first", start, exchanges, first))

    def sample() -> Sequence[Attempt]:
        return asyncio.run(_attempts(out / "first", task_set(per_level, "train", 1), device))

    def label(split: Split) -> Callable[[], Sequence[Labelled]]:
        some = per_level if split == "train" else max(1, per_level // 6)
        return lambda: asyncio.run(_labels(out / "lm", some, split, rolled, device))

    attempts = _kept(out / "samples.jsonl", Attempt, sample)
    taught = partial(lessons, attempts)
    _once(out / "lm", lambda: language("lm", out / "first", lambda seed: taught(seed + 1), second))
    splits: tuple[Split, ...] = ("train", "dev")
    data = {split: _kept(out / f"labels-{split}.jsonl", Labelled, label(split)) for split in splits}
    more = _kept(out / "rivals.jsonl", Attempt, lambda: asyncio.run(_rivals(out / "lm", rivals, device)))
    schedule = Schedule(rewards, tokens, rate=2e-3)
    _once(out / "prm", lambda: _process(out, data, more, schedule, device))
    _once(out / "orm", lambda: _outcome(out, _ends(data), schedule, device))


@asynccontextmanager
async def _drawing(weights: Path, device: str) -> AsyncIterator[Draw]:
    """The numpy engine; on a GPU, torch."""
    if device != "cpu":
        yield Sampler(_read(Language(_SHAPE), weights), device)
        return
    async with opened(weights) as draw:
        yield draw


async def _attempts(weights: Path, drawn: Sequence[Task], device: str) -> list[Attempt]:
    async with _drawing(weights, device) as draw:
        return await attempted(draw, drawn, 8, temperature=1.0, seed=1)


async def _labels(weights: Path, per_level: int, split: Split, rolled: int, device: str) -> list[Labelled]:
    """Some attempts at each task have labels from continuations. The others have those of their own outcome: at every
    place in the training data (a single roll-out from there), and at their ends alone where we measure."""
    drawn = task_set(per_level, split, 2)
    many = 12 if split == "train" else 4
    async with _drawing(weights, device) as draw:
        attempts = await attempted(draw, drawn, many, temperature=1.0, seed=2, where=False)
        rng = random.Random(0)
        kept = {
            i + at for i in range(0, len(attempts), many) for at in rng.sample(range(many), min(rolled, many))
        }
        chosen = [attempts[i] for i in sorted(kept)]
        data = await labelled(draw, chosen, 8, temperature=0.8, seed=3)
    others = [a for i, a in enumerate(attempts) if i not in kept]
    return data + [by_outcome(a, everywhere=split == "train") for a in others]


def _ends(data: Mapping[Split, Sequence[Labelled]]) -> dict[Split, list[Labelled]]:
    """The labels of whole replies alone, read after the end token."""
    return {
        split: [
            Labelled(d.question, d.reply, {len(d.reply) + 1: d.labels[len(d.reply)]}, d.family) for d in some
        ]
        for split, some in data.items()
    }


async def _rivals(weights: Path, per_level: int, device: str) -> list[Attempt]:
    """Eight attempts at each of many problems of arithmetic that are right at times."""
    drawn: list[Task] = []
    for level, count in {3: per_level * 3 // 10, 4: per_level, 5: per_level, 6: per_level}.items():
        drawn += [
            task
            for _, task in zip(range(count), tasks(FAMILIES["arith"], level, "train", _RIVALS), strict=False)
        ]
    random.Random(_RIVALS).shuffle(drawn)
    attempts: list[Attempt] = []
    async with _drawing(weights, device) as draw:
        for at in range(0, len(drawn), 100):
            some = drawn[at : at + 100]
            attempts += await attempted(draw, some, 8, temperature=1.0, seed=_RIVALS + at, where=False)
    return attempts


def _process(
    out: Path,
    data: Mapping[Split, Sequence[Labelled]],
    more: Sequence[Attempt],
    schedule: Schedule,
    device: str,
) -> None:
    """The process reward model: mostly from questions that were answered rightly and wrongly."""
    told = [*data["train"], *(by_outcome(a, everywhere=True) for a in more)]
    net = comparing(_read(Language(_SHAPE), out / "lm"), told, device)
    _report(out, "prm-begun", net, data["dev"], device)
    few = replace(schedule, steps=round(_JUDGED / schedule.tokens))
    train_rewards(net, _contested(told), few, device, by=Gently(net, 2e-4), everywhere=True)
    _report(out, "prm", net, data["dev"], device)
    _save(net, out / "prm")


def _contested(data: Sequence[Labelled]) -> list[Labelled]:
    """The replies to questions that were answered rightly and wrongly, and of the others a fifth."""
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for one in data:
        outcomes[one.question].add(one.labels[max(one.labels)] >= 0.5)
    rng = random.Random(0)
    return [one for one in data if len(outcomes[one.question]) == 2 or rng.random() < 0.2]


def _outcome(out: Path, data: Mapping[Split, Sequence[Labelled]], schedule: Schedule, device: str) -> None:
    """The outcome reward model: from the writer's weights."""
    net = Reward(_SHAPE)
    net.model.load_state_dict({k.removeprefix("model."): v for k, v in _weights(out / "lm").items()})
    train_rewards(net, data["train"], schedule, device)
    _report(out, "orm", net, data["dev"], device)
    _save(net, out / "orm")


def _report(out: Path, name: str, net: Reward, dev: Sequence[Labelled], device: str) -> None:
    """How well it tells right from wrong, and how far its probabilities can be believed."""
    report: dict[str, Any] = {}
    said = scored(net, dev, device)
    for family in sorted({d.family for d in dev}):
        for part in ("steps", "end"):
            found = [
                (one.question, score, one.labels[place])
                for one, scores in zip(dev, said, strict=True)
                if one.family == family
                for place, score in scores.items()
                if (place >= len(one.reply)) == (part == "end")
            ]
            if found:
                questions = [question for question, _, _ in found]
                scores, labels = np.array([pair for _, *pair in found]).T
                error, table = calibration(scores, labels)
                within, pairs = order_within(scores, labels >= 0.5, questions)
                report[f"{family} {part}"] = {
                    "n": len(found), "auc": area_under_curve(scores, labels >= 0.5), "auc_within": within,
                    "pairs_within": pairs, "calibration_error": error, "bins": table,
                }  # fmt: skip
    _note(out, name, report)


def _once(path: Path, make: Callable[[], None]) -> None:
    if path.exists():
        return
    print(f"== {path.name}", flush=True)
    started = time.monotonic()
    make()
    print(f"== {path.name}: {(time.monotonic() - started) / 60:.1f} min", flush=True)


def _kept(path: Path, kind: Any, make: Callable[[], Sequence[Any]]) -> list[Any]:
    def write() -> None:
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(asdict(item)) + "\n" for item in make()))
        part.rename(path)

    _once(path, write)
    read = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        if "task" in fields:
            fields["task"] = Task(**fields["task"])
        if "labels" in fields:
            fields["labels"] = {int(place): label for place, label in fields["labels"].items()}
        read.append(kind(**fields))
    return read


def _note(out: Path, name: str, report: dict[str, Any]) -> None:
    (out / f"{name}.json").write_text(json.dumps(report, indent=1))


def _save(net: Language | Reward, folder: Path) -> None:
    tensors = {name: weight.detach().cpu().numpy() for name, weight in net.named_parameters()}
    part = folder.with_name(f"{folder.name}.part")
    write_folder(part, tensors, asdict(net.model.shape))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v.copy()) for k, v in read_tensors(folder / "model.safetensors").items()}


def _read(net: Language, folder: Path) -> Language:
    net.load_state_dict(_weights(folder))
    return net


if __name__ == "__main__":
    main()
