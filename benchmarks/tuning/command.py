"""`archon tune`."""

from __future__ import annotations

import fcntl
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Find the serving options with the most throughput at a latency limit.")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The tuning's folder; running into it again goes on where it stopped.",
)
@click.option(
    "--effort",
    type=click.Choice(["light", "medium", "heavy"]),
    help="How many configurations are tried: 8, 20 or 60 (default: what the file says).",
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Try N configurations at most.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Begin no trial after M minutes; finalists and the confirmation come after.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the requests, and of what is proposed.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would be tried and asked at most, and start nothing."
)
@click.option("--pictures/--no-pictures", default=True, help="Whether to draw pictures.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def tune(**options: Any) -> int:
    """Tune a model's engine: the serving options with the most throughput that keep to a latency limit.

    FILE, in YAML or TOML, is a model with choices written where they are ({choose: [...]}, {range: [...]}), and the
    load it must serve; docs/tuning.md says it all. Each configuration gets an engine of its own, one at a time, and
    the same rounds of requests. The best few are measured again, and the winner's figures come from a confirmation:
    winner and defaults, started anew in turn. They are in DIR/tune.json, and the winner, ready for `archon run`
    and `archon bench`, in DIR/best.yaml.

    Whatever was measured is kept when this is ended, even by kill -9: run the same command again.

    \b
    # engine.yaml
    #   engine: {vllm: {model: some/model, options: {max_num_seqs: {choose: [64, 256]}}}}
    #   workload: {requests: 64, prompt_tokens: 512, max_tokens: 128, concurrency: 32}
    #   limits: {latency: 4.0}
    archon tune engine.yaml --out tuned --dry-run
    archon tune engine.yaml --out tuned --trials 20
    archon bench gsm8k --pipeline tuned/best.yaml --limit 100 --out runs/tuned
    """
    import asyncio

    from archon.benchmarks.results import write_json, write_whole
    from archon.benchmarks.tuning import pictures
    from archon.benchmarks.tuning.summary import best_yaml, lines

    made = asyncio.run(_tune(options))
    if made is None:
        return 0
    tuner, found, told = made
    folder: Path = options["out"]
    told["pictures"] = [p.name for p in pictures.draw(told, folder)] if options["pictures"] else []
    write_json(folder / "tune.json", told)
    said = lines(told)
    if told["recommended"] is None:
        (folder / "best.yaml").unlink(missing_ok=True)
    else:
        in_flight = tuner.space.default_load if found.winner is None else found.winner.in_flight
        best = found.winner if told["recommended"] == "winner" else tuner.baseline(in_flight)
        write_whole(
            folder / "best.yaml", best_yaml(tuner, best, [f"Found by archon tune {options['file']}", *said])
        )
    for line in said:
        click.echo(line)
    return 1 if told["recommended"] is None else 0


async def _tune(options: dict[str, Any]) -> Any:
    from archon import registry
    from archon.benchmarks.tuning.load import load_of
    from archon.benchmarks.tuning.measuring import prepared
    from archon.benchmarks.tuning.space import EngineSpace
    from archon.benchmarks.tuning.summary import summarise
    from archon.benchmarks.tuning.tuner import Tuner
    from archon.search.study import Study

    space = EngineSpace.read(options["file"])
    _with_options(space, options)
    load = load_of(space.settings, space.others, seed=options["seed"], extra=_extra(space))
    mark = hashlib.sha256(str(options["out"].resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    prepared(space.default, 1, mark)
    notes = await _changed_answers(space)
    if options["dry_run"]:
        for line in [*described(space), *(f"note: {one}" for one in notes)]:
            click.echo(line)
        return None
    space.default.check()
    proposes = space.settings.proposer or registry.find("proposer", "tpe")()
    with (
        _alone(options["out"]),
        Study.open(
            options["out"] / "study.sqlite",
            "tuning",
            axes=space.axes,
            objectives={space.settings.objective: "maximize"},
            facts=_facts(space, load),
            seed=options["seed"],
        ) as study,
    ):
        proposer = proposes.over(space, seed=options["seed"])
        tuner = Tuner(space, load, study, proposer, mark=mark, say=_say(options["quiet"]))
        found = await tuner.run()
        return tuner, found, summarise(tuner, found, notes)


def described(space: Any) -> list[str]:
    """What would be tried, and what it costs at most."""
    from archon.search.axes import described as in_words

    settings, axes = space.settings, space.axes
    found = [f"{axis.name}: {in_words(axis)}" for axis in axes]
    size = axes.size
    found.append("continuous" if size is None else f"{size:,} configurations")
    found.append(f"baseline: {space.plain(space.default)}, {space.default_load} in flight")
    spending, rounds, load = settings.spending, settings.rounds, settings.workload
    trials = [n for n in (spending.trials, size) if n is not None]
    limit = "any" if settings.limits.latency is None else f"{settings.limits.latency:g} s"
    found.append(f"wanted: most {settings.objective}, p{settings.limits.percentile:g} latency {limit}")
    if spending.minutes is not None:
        found.append(f"no trial begins after {spending.minutes:g} minutes")
    if trials:
        finalists = min(settings.finalists, min(trials)) if min(trials) > 1 else 0
        starts = 1 + min(trials) + finalists + 2 * settings.confirm
        requests = starts * rounds.count * load.requests
        found.append(
            f"at most {starts} starts (1 baseline, {min(trials)} trials, {finalists} finalists, 2 x {settings.confirm} "
            f"to confirm) and {requests:,} requests ({rounds.count} rounds of {load.requests} each) beside those to "
            "warm up; more where it is cut off, or a winner is refused"
        )
    return found


def _with_options(space: Any, options: dict[str, Any]) -> None:
    """What the command line says goes before what the file says."""
    from archon.benchmarks.tuning.settings import Spending

    settings = space.settings
    if options["effort"] is not None:
        settings = settings.model_copy(update={"effort": options["effort"]})
    changes = {name: options[name] for name in ("trials", "minutes") if options[name] is not None}
    if changes:
        spending = Spending.model_validate({**settings.spending.model_dump(), **changes})
        settings = settings.model_copy(update={"effort": spending})
    space.settings = settings


async def _changed_answers(space: Any) -> list[str]:
    """Notes on options that change what the model answers. Raises UserError where they are not allowed to."""
    from archon.errors import UserError

    changed = await space.changed_answers()
    allowed = space.settings.may_change_answers
    refused = [name for name in changed if name not in allowed]
    if refused:
        names = ", ".join(map(repr, refused))
        raise UserError(
            f"{names} may change what the model answers, and only speed is measured here. Leave it out, or allow it: "
            f"may_change_answers: [{', '.join(refused)}]"
        )
    return [
        f"{name} may change what the model answers: hold the winner's accuracy against the baseline's (archon bench)"
        for name in changed
    ]


def _extra(space: Any) -> dict[str, Any]:
    """What is sent with prompts, so that replies have their full length."""
    from archon.backends.openai import OpenAI
    from archon.backends.vllm.config import VLLM

    exact, model = space.settings.workload.exact, space.default
    if exact == "auto":
        exact = isinstance(model, VLLM) or (isinstance(model, OpenAI) and model.server == "vllm")
    return {"ignore_eos": True} if exact else {}


def _facts(space: Any, load: Any) -> dict[str, Any]:
    """What the figures of this tuning depend on."""
    settings = space.settings
    return {
        "engine": space.backend,
        "baseline": space.plain(space.default),
        "models": {name: space.plain(model) for name, model in load.models.items()},
        "workload": load.facts(),
        "in_flight": space.default_load,
        "limits": settings.limits.model_dump(mode="json"),
        "objective": settings.objective,
        "rounds": settings.rounds.model_dump(mode="json"),
    }


def _say(quiet: bool) -> Any:
    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    return say


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: two at once would measure each other. Raises UserError where another has it."""
    from archon.errors import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "tune.lock").open("a")
    except OSError as error:
        raise UserError(
            f"cannot write to {str(folder)!r}: {error.strerror}. Name another folder with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process tunes into {str(folder)!r}, and two engines at once would measure each other. "
                "Wait for it, or end it"
            ) from None
        yield
