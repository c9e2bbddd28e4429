"""`archon search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click


class _Search(click.Command):
    """Its help ends with what can be named."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The search files that ship, and who proposes."""
        from archon import registry
        from archon.search.space import shipped

        with formatter.section("Search files"):
            formatter.write_text(", ".join(shipped()) + ", or a YAML or TOML file")
        with formatter.section("Proposers"):
            formatter.write_text(", ".join(registry.names("proposer")))


@click.command(cls=_Search, short_help="Find the best stack under a budget.")
@click.argument("file", metavar="FILE")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The search's folder; running into it again goes on where it stopped.",
)
@click.option(
    "--effort",
    type=click.Choice(["light", "medium", "heavy"]),
    help="How many configurations are tried: 20, 60 or 200 (default: what the file says).",
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Try N configurations at most.")
@click.option(
    "--tokens", type=click.IntRange(min=1), metavar="N", help="Spend N fresh tokens at most; a hard limit."
)
@click.option("--usd", metavar="X", help="Spend X dollars at most; a hard limit.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where samples are kept, and found (default: store.sqlite in DIR).",
)
@click.option(
    "--study",
    metavar="WHERE",
    help="A file or a PostgreSQL URL for the trials (default: study.sqlite in DIR).",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]BACKEND:MODEL",
    help="A model, by the name that stages use (default: `default`), such as openai:gpt-4o-mini; before the file's.",
)
@click.option("--base-url", metavar="URL", help="Where the openai models of --model are served.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Recorded generations to use as the model `default`.",
)
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The benchmark's data.")
@click.option("--limit", type=click.IntRange(min=4), metavar="N", help="Only the first N problems.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Problems in work at once.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of samples, of the splits' order, and of what is proposed.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where problems are solved: in this process, or on the workers of a Ray cluster (the extra `ray`).",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="With --executor ray: the cluster (default: RAY_ADDRESS; else Ray is started here, and ended with us).",
)
@click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="A price table of yours.")
@click.option("--offline", is_flag=True, help="Make no model call: end where something is not stored.")
@click.option(
    "--dry-run", is_flag=True, help="Show the space and what it would cost at most, and spend nothing."
)
@click.option("--pictures/--no-pictures", default=True, help="Whether to draw pictures.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def search(**options: Any) -> int:
    """Search for the pipeline that does best on a benchmark, within limits on what a problem may cost.

    FILE, or the name of one that ships (below), is a pipeline in YAML or TOML with choices written where they are
    ({choose: [...]}, {range: [...]}, optional:), and what to search on (benchmark:, objectives:, limits:,
    baselines:); docs/search.md says it all. What exceeds the limits is never proposed. Samples are shared by all that
    need them, those that surely lose get no more problems, and the winner's figure comes from problems that nothing
    was chosen by. It is in DIR/search.json, and the winner, ready for `archon run`, in DIR/best.yaml.

    Ctrl-C and even kill -9 lose nothing: run the same command again. Several at once, with the same DIR, share the
    work.

    \b
    archon search lab_arith --out found --dry-run
    archon search lab_arith --out found --effort light
    archon search stacks.yaml --out found --tokens 2000000 --usd 5
    archon run --pipeline found/best.yaml "Compute 3 + 4 * 2 step by step."
    """
    import asyncio

    from archon.benchmarks.results import write_json, write_whole
    from archon.benchmarks.searching import pictures
    from archon.benchmarks.searching.reading import plain
    from archon.benchmarks.searching.summary import lines

    if options["ray_address"] is not None and options["executor"] != "ray":
        raise click.UsageError("--ray-address goes with --executor ray")
    searched = asyncio.run(_search(options))
    if searched is None:
        return 0
    one, found, told = searched
    folder: Path = options["out"]
    told["pictures"] = [p.name for p in pictures.draw(told, folder)] if options["pictures"] else []
    write_json(folder / "search.json", told)
    write_json(folder / "splits.json", one.parts.as_json())
    write_whole(folder / "test.txt", "".join(f"{problem}\n" for problem in one.parts.test))
    if found.winner is not None and found.winner.configuration is not None:
        write_whole(folder / "best.yaml", one.space.dump(found.winner.configuration))
    for line in lines(told):
        click.echo(plain(line))
    return 0 if found.winner is not None else 1


async def _search(options: dict[str, Any]) -> Any:
    from archon.benchmarks.searching.elsewhere import note
    from archon.benchmarks.searching.progress import Lines
    from archon.benchmarks.searching.reading import plain
    from archon.benchmarks.searching.setting_up import Setup
    from archon.benchmarks.searching.summary import summarise
    from archon.search.search import Search
    from archon.search.spending import StudyPurse
    from archon.search.study import Study

    setup = Setup(options)
    folder: Path = options["out"]
    if options["dry_run"]:
        for line in setup.described():
            click.echo(plain(line))
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        from archon.errors import UserError

        raise UserError(
            f"cannot write to {str(folder)!r}: {error.strerror}. Name another folder with --out"
        ) from error
    evaluator = _evaluator(setup, options)
    async with evaluator:
        await setup.prepare(evaluator)
        with Study.open(
            options["study"] or folder / "study.sqlite",
            "search",
            axes=setup.space.axes,
            objectives=setup.directions,
            facts=setup.facts,
            seed=options["seed"],
        ) as study:
            note(folder, options["study"], {**study.facts, "seed": study.seed})
            by: Literal["call", "task"] = "call" if options["executor"] == "local" else "task"
            purse = StudyPurse(study.claims, setup.limits, by)
            one = Search(
                setup.space,
                setup.settings,
                study,
                setup.proposer(),
                evaluator,
                setup.parts,
                setup.baselines,
                watcher=Lines(evaluator, quiet=options["quiet"]),
                paid=setup.paid,
            )
            with evaluator.spending_from(purse):
                found = await one.run()
            return one, found, summarise(one, found, purse.fresh, setup.asked)


def _evaluator(setup: Any, options: dict[str, Any]) -> Any:
    """What solves and grades problems: this process, or the workers of a cluster. Raises MissingExtra."""
    given = {
        "store": options["store"] or options["out"] / "store.sqlite",
        "limits": setup.limits,
        **{name: options[name] for name in ("seed", "concurrency", "offline", "prices")},
    }
    cost = setup.settings.cost
    timed = cost is not None and cost.name == "latency"
    if options["executor"] == "local":
        from archon.benchmarks.searching.evaluator import LocalEvaluator

        return LocalEvaluator(setup.dataset, setup.models, replays=not timed, **given)
    if timed:
        from archon.errors import UserError

        raise UserError(
            "`objectives` names latency, which is measured in one process: leave out --executor ray"
        )
    from archon.benchmarks.searching.ray_evaluator import RayEvaluator
    from archon.config.build import fields_of

    return RayEvaluator(
        setup.dataset,
        setup.models,
        benchmark={setup.benchmark.name: fields_of(setup.benchmark)},
        limit=options["limit"],
        address=options["ray_address"],
        **given,
    )
