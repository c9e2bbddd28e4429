"""Train the nano models anew: `python -m archon.benchmarks.lab.training --out nano`."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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
from archon.benchmarks.lab.family import Split, Task
from archon.benchmarks.lab.training.attempts import Attempt, task_set
from archon.benchmarks.lab.training.data import exchanges
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.language import Schedule, train
from archon.benchmarks.lab.training.lessons import lessons
from archon.benchmarks.lab.training.model import Language, Reward, Shape
from archon.benchmarks.lab.training.rewards import area_under_curve, calibration, scored, train_rewards
from archon.benchmarks.lab.training.rollouts import attempted, by_outcome, labelled, opened

_SHAPE = Shape()


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where all of it goes."
)
@click.option("--first", default=45.0, metavar="MINUTES", help="Training on tasks.")
@click.option("--second", default=12.0, metavar="MINUTES", help="Training on lessons from its own samples.")
@click.option("--rewards", default=8.0, metavar="MINUTES", help="Training each reward model.")
@click.option("--per-level", default=120, metavar="N", help="Tasks of each family and level to sample.")
@click.option("--start", type=click.Path(path_type=Path), metavar="DIR", help="Go on from these weights.")
def main(out: Path, start: Path | None, first: float, second: float, rewards: float, per_level: int) -> None:
    """Train the language model, then the reward models on its roll-outs. What is there already is not made again,
    so that a training that was broken off goes on at the last part that it began.

    \b
    python -m archon.benchmarks.lab.training --out nano
    """
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)

    def language(name: str, start: Path | None, source: Any, minutes: float) -> None:
        net = Language(_SHAPE) if start is None else _read(Language(_SHAPE), start)
        steps = int(minutes * 6000 / 60)
        losses = train(net, source(), Schedule(steps, minutes=minutes, rate=5e-3 if name == "first" else 2e-3), device,
                       keep=lambda: _save(net, out / f"{name}.so-far"))  # fmt: skip
        _note(out, name, {"losses": losses})
        _save(net, out / name)

    _once(out / "first", lambda: language("first", start, lambda: exchanges(0), first))

    def sample() -> Sequence[Attempt]:
        drawn = task_set(per_level, "train", 1)
        return asyncio.run(_attempts(out / "first", drawn))

    def label(split: Split) -> Callable[[], Sequence[Labelled]]:
        some = per_level if split == "train" else max(1, per_level // 6)
        return lambda: asyncio.run(_labels(out / "lm", some, split))

    attempts = _kept(out / "samples.jsonl", Attempt, sample)
    _once(out / "lm", lambda: language("lm", out / "first", lambda: lessons(attempts, 1), second))
    splits: tuple[Split, ...] = ("train", "dev")
    data = {split: _kept(out / f"labels-{split}.jsonl", Labelled, label(split)) for split in splits}
    _once(out / "prm", lambda: _reward(out, "prm", data, rewards, device))
    _once(out / "orm", lambda: _reward(out, "orm", _ends(data), rewards, device))


async def _attempts(weights: Path, drawn: Sequence[Task]) -> list[Attempt]:
    async with opened(weights) as backend:
        return await attempted(backend, drawn, 8, temperature=1.0, seed=1)


async def _labels(weights: Path, per_level: int, split: Split) -> list[Labelled]:
    """One attempt at each task has labels from continuations. The others have those of their own outcome: at every
    place in the training data (a single roll-out from there), and at their ends alone where we measure."""
    drawn = task_set(per_level, split, 2)
    many = 12 if split == "train" else 4
    async with opened(weights) as backend:
        attempts = await attempted(backend, drawn, many, temperature=1.0, seed=2)
        rng = random.Random(0)
        kept = {i + rng.randrange(many) for i in range(0, len(attempts), many)}
        chosen = [attempts[i] for i in sorted(kept)]
        data = await labelled(backend, chosen, 8, temperature=0.8, seed=3)
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


def _reward(
    out: Path, name: str, data: Mapping[Split, Sequence[Labelled]], minutes: float, device: str
) -> None:
    net = Reward(_SHAPE)
    net.model.load_state_dict({k.removeprefix("model."): v for k, v in _weights(out / "lm").items()})
    train_rewards(net, data["train"], Schedule(int(minutes * 100), minutes=minutes, rate=2e-3), device)
    report: dict[str, Any] = {}
    said = scored(net, data["dev"], device)
    for family in sorted({d.family for d in data["dev"]}):
        for part in ("steps", "end"):
            pairs = [
                (score, one.labels[place])
                for one, scores in zip(data["dev"], said, strict=True)
                if one.family == family
                for place, score in scores.items()
                if (place >= len(one.reply)) == (part == "end")
            ]
            if pairs:
                scores, labels = np.array(pairs).T
                error, table = calibration(scores, labels)
                report[f"{family} {part}"] = {
                    "n": len(pairs), "auc": area_under_curve(scores, labels >= 0.5), "calibration_error": error,
                    "bins": table,
                }  # fmt: skip
    _note(out, name, report)
    _save(net, out / name)


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
    write_folder(part, tensors, asdict(_SHAPE))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v.copy()) for k, v in read_tensors(folder / "model.safetensors").items()}


def _read(net: Language, folder: Path) -> Language:
    net.load_state_dict(_weights(folder))
    return net


if __name__ == "__main__":
    main()
