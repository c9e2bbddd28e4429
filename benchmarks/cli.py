"""`archon bench` and `archon report`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from archon.cli.options import configured, describe_config, pipeline_options, problem_limits, store_path


class _Bench(click.Command):
    """Its help ends with what can be named."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The benchmarks and the ready pipelines."""
        from archon import registry
        from archon.shelf import names

        with formatter.section("Benchmarks"):
            formatter.write_text(", ".join(registry.names("benchmark")) + ", or a JSONL file")
        with formatter.section("Ready pipelines"):
            formatter.write_text(", ".join(names()) + " (archon show --all), or a YAML or TOML file")


@click.command(cls=_Bench, short_help="Run a pipeline over a benchmark and grade it.")
@click.argument("benchmark", metavar="BENCHMARK")
@pipeline_options
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The benchmark's data: a file, or a folder that holds it.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Recorded generations to use as the model `default`.",
)
@click.option(
    "--level",
    metavar="N,...",
    help="Problems of these levels only, where the benchmark has levels: 3, or 1,2,3.",
)
@click.option("--split", metavar="NAME", help="Problems of this split: train, dev or test of the lab's.")
@click.option(
    "--benchmark-set",
    "benchmark_settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a setting of the benchmark, such as visible=base of humaneval_plus.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N problems.")
@click.option(
    "--ids",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only the problems whose ids are in FILE, one per line, such as test.txt of a search.",
)
@click.option(
    "--selectors", metavar="NAME,...", help="Selectors whose curves are reported (default: the benchmark's)."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="The run's folder; running into it again goes on where it stopped.",
)
@click.option("--overwrite", is_flag=True, help="Replace another run in that folder.")
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
@click.option("--trace", is_flag=True, help="Write every event to RUN/trace.jsonl.")
@click.option("--pictures/--no-pictures", default=True, help="Whether to draw pictures.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def bench(benchmark: str, **options: Any) -> int:
    """Run a pipeline over a benchmark: sample, verify, choose, grade, report.

    BENCHMARK is a name (listed below) or a JSONL file of your own. Ctrl-C and even kill -9 lose nothing: run the
    same command again. A larger --samples adds to what is there. Problems that are made from a seed (lab/...) are made
    from --seed, unless --benchmark-set seed=N says otherwise.

    \b
    archon bench lab/arith --level 3 --pipeline self_consistency --samples 16 --out runs/arith
    archon bench humaneval --pipeline best_of_n --model openai:gpt-4o-mini --samples 20 --limit 20 --out runs/he
    archon bench humaneval --pipeline best_of_n --replay recordings/ --samples 100 --out runs/replayed
    archon bench my.jsonl --pipeline self_consistency --model openai:m --base-url http://localhost:8000/v1 --out runs/m
    archon bench gsm8k --pipeline my.yaml --budget usd=5 --dry-run --out runs/gsm
    archon bench humaneval_plus --benchmark-set visible=base -p best_of_n --replay recordings/ --out runs/base
    """
    import asyncio

    from rich.console import Console

    from archon.benchmarks import plots
    from archon.benchmarks import report as reports

    if options["executor"] == "local" and options["ray_address"] is not None:
        raise click.UsageError("--ray-address goes with --executor ray")
    if options["executor"] == "ray" and options["trace"]:
        raise click.UsageError("--trace writes what happens in this process: leave out --executor ray")
    config = configured(
        options["pipeline"], options["models"], options["base_url"], options["settings"], options["samples"],
        options["run_budget"], problem_limits(options), options["replay"],
    )  # fmt: skip
    results = asyncio.run(_bench(benchmark, config, options))
    if results is None:
        return 0
    folder = options["out"]
    reports.write_csv(results, folder / "curves.csv")
    console = Console(width=None if sys.stdout.isatty() else 160)
    reports.show(results, console)
    written = [folder / "results.json", folder / "problems.jsonl", folder / "curves.csv"]
    if options["pictures"]:
        written += plots.draw(results, folder)
    console.print("Written: " + ", ".join(map(str, written)), style="dim", soft_wrap=True)
    nothing = any(r.error for r in results.records) and not any(r.truth for r in results.records)
    return 1 if nothing else 0


async def _bench(benchmark: str, config: Any, options: dict[str, Any]) -> Any:
    from archon.benchmarks.harness import Harness, Plan, open_folder
    from archon.benchmarks.results import write_whole
    from archon.config import dump
    from archon.estimate import estimate, table
    from archon.progress import Live
    from archon.session import Session
    from archon.trace import FileTrace

    choices = {name: options[name] for name in ("level", "split", "seed")}
    found = find_benchmark(benchmark, options["data"], options["benchmark_settings"], choices)
    dataset = found.load()
    loaded = dataset.fingerprint
    selectors = tuple(s.strip() for s in (options["selectors"] or "").split(",") if s.strip())
    graph = config.pipeline.graph()
    name = options["pipeline"]
    folder: Path = options["out"]
    dry = options["dry_run"]
    async with Session(
        models=config.models,
        budget=config.budget,
        store=None if dry else store_path(options["store"]),
        seed=options["seed"],
        offline=options["offline"] or dry,
        prices=options["prices"],
    ) as session:
        dataset = _only(await dataset.prepared(session), options["ids"])
        plan = Plan(
            dataset,
            graph,
            Path(name).stem if name.endswith((".yaml", ".yml", ".toml")) else name,
            samples=options["samples"] or _source_n(graph),
            limit=options["limit"],
            concurrency=options["concurrency"],
            selectors=selectors,
        )
        settings = {
            "benchmark": dataset.name,
            "problems": {"count": len(dataset.problems), "sha256": dataset.fingerprint},
            "samples": plan.samples,
            "limit": len(plan.problems),
            "seed": options["seed"],
            "config": _identity(describe_config(config)),
        }
        live = Live(quiet=options["quiet"])
        harness = Harness(plan, session, folder, live)
        if options["executor"] == "ray":
            from archon.benchmarks.cluster.harness import RayHarness
            from archon.config.build import fields_of

            harness = RayHarness(
                plan,
                session,
                folder,
                live,
                address=options["ray_address"],
                config=config,
                benchmark={found.name: fields_of(found)},
                fingerprint=loaded,
                path=Path(store_path(options["store"])),
                prices=options["prices"],
            )
        harness.check()
        if dry:
            print(dump(config))
            print(table(estimate(graph, plan.problems, session), len(plan.problems)))
            return None
        open_folder(folder, settings, overwrite=options["overwrite"])
        write_whole(folder / "pipeline.yaml", dump(config))
        if options["trace"]:
            session.trace = FileTrace(folder / "trace.jsonl")
        with live:
            return await harness.run()


def _only(dataset: Any, file: Path | None) -> Any:
    """The problems whose ids a file names, in the benchmark's order. Raises DataError, UserError for unknown ids."""
    from dataclasses import replace

    from archon.errors import DataError, UserError
    from archon.suggest import hint

    if file is None:
        return dataset
    try:
        ids = dict.fromkeys(filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the ids in {str(file)!r}: {error}") from error
    known = [problem.id for problem in dataset.problems]
    for one in ids:
        if one not in known:
            near = hint(one, known) if len(known) < 20 else f"It has {len(known)}, such as {known[0]!r}"
            raise UserError(f"--ids {str(file)!r}: {dataset.name} has no problem {one!r}. {near}")
    return replace(dataset, problems=[problem for problem in dataset.problems if problem.id in ids])


def find_benchmark(
    benchmark: str, data: Path | None, settings: tuple[str, ...], choices: dict[str, Any]
) -> Any:
    """A benchmark by name, or a JSONL file as one. Raises UnknownName, and UserErrors for wrong settings."""
    from archon import registry
    from archon.config.build import Builder
    from archon.config.source import Source, read_text
    from archon.errors import ConfigError, UserError

    path = Path(benchmark)
    file = benchmark.endswith((".jsonl", ".jsonl.gz"))
    found = registry.find("benchmark", "jsonl" if file else benchmark)
    fields: dict[str, Any] = {"data": path if file else data, **_chosen(benchmark, found, choices)}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not (equals and field):
            raise UserError(f"--benchmark-set {setting!r} should look like FIELD=VALUE, such as visible=base")
        try:
            fields[field] = read_text(f"value: {text}").data["value"]
        except ConfigError:
            raise UserError(f"--benchmark-set {setting!r}: {text!r} is no value") from None
    builder = Builder(Source(None, "--benchmark-set" if settings else benchmark))
    built = builder.value(found, fields, ())
    builder.check()
    return built


def _chosen(benchmark: str, found: Any, choices: dict[str, Any]) -> dict[str, Any]:
    """The settings that options stand for. A seed is the run's, and the problems' where they are made from one."""
    from archon.errors import UserError

    given = {name: value for name, value in choices.items() if value is not None}
    for name in given.keys() - found.model_fields.keys() - {"seed"}:
        raise UserError(f"--{name} {given[name]}: the benchmark {benchmark!r} has no `{name}` to choose by")
    return {name: value for name, value in given.items() if name in found.model_fields}


def _source_n(graph: Any) -> int | None:
    ns = [getattr(p.stage, "n", None) for p in graph.places.values() if not p.stage.takes]
    known = [n for n in ns if isinstance(n, int)]
    return sum(known) if known and len(known) == len(ns) else None


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration but for how many samples, which may grow from run to run, and for what models cost, which may
    become known."""
    text = json.loads(json.dumps(config, default=str))
    _drop_n(text.get("pipeline"))
    for model in (text.get("models") or {}).values():
        for name in _COSTS:
            model.pop(name, None)
    return dict(text)


_COSTS = ("price", "parameters", "architecture")


def _drop_n(part: Any) -> None:
    if isinstance(part, list):
        part[:] = [{"sample": {}} if item == "sample" else item for item in part]
        for item in part:
            _drop_n(item)
    elif isinstance(part, dict):
        sample = part.get("sample")
        if isinstance(sample, dict):
            sample.pop("n", None)
        for value in part.values():
            _drop_n(value)


@click.command(short_help="Show a run or a search again, or compare two.")
@click.argument("runs", type=click.Path(path_type=Path), metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Compare with another run, or a search with another, problem by problem.",
)
@click.option(
    "--by",
    "label",
    metavar="LABEL",
    help="Coverage for each value of a label of the problems: level, subject, ...",
)
@click.option(
    "--beat",
    "plain",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A run of plain sampling, the line to beat: what would as many tokens have bought there?",
)
@click.option(
    "--selector",
    metavar="NAME",
    default="majority_vote",
    show_default=True,
    help="With --beat: what chooses among the plain samples.",
)
@click.option("--verifiers", is_flag=True, help="Each verifier's verdicts against the truth.")
@click.option(
    "--costs",
    metavar="C,...",
    help="With --verifiers: what a false positive costs, in right answers (default: 0,1,2,4,8).",
)
@click.option(
    "--drop-false-negatives",
    is_flag=True,
    help="With --verifiers: leave out problems of which more samples are right than accepted.",
)
@click.option(
    "--cost",
    type=click.Choice(["usd", "tokens", "flops", "seconds"]),
    help="What samples cost, in the table and the pictures; seconds are idealised ones of --hardware.",
)
@click.option(
    "--hardware", metavar="NAME", help="With --cost seconds: the machine, as `archon cost` names it."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --cost seconds: requests that it has in work at once (default: 1).",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --cost seconds: how many of it share each model (default: 1).",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print results.json, or search.json (with --compare: the comparison; with --by: each value's figures; "
    "with --verifiers: the account).",
)
@click.option("--csv", "as_csv", is_flag=True, help="Of a search: print what it tried, a row for each.")
@click.option(
    "--top", type=click.IntRange(min=1), metavar="N", help="Of a search: how many to list (default: 10)."
)
@click.option("--pictures", is_flag=True, help="Draw the pictures again.")
@click.option(
    "--study",
    metavar="WHERE",
    help="Of a search that has not ended and whose study is not in its folder: where that is, as for `archon search` "
    "(or in ARCHON_STUDY).",
)
def report(
    runs: tuple[Path, ...],
    compare: Path | None,
    label: str | None,
    plain: Path | None,
    selector: str,
    verifiers: bool,
    costs: str | None,
    drop_false_negatives: bool,
    cost: Any,
    hardware: str | None,
    batch: int | None,
    devices: int | None,
    as_json: bool,
    as_csv: bool,
    top: int | None,
    pictures: bool,
    study: str | None,
) -> None:
    """Show a run's report again, from its files alone, or a search's; or compare two, paired by problem.

    A search that has not ended is shown as it stands.

    \b
    archon report runs/first
    archon report runs/first --json | jq .coverage
    archon report runs/first --compare runs/second
    archon report runs/first --by level
    archon report runs/debate runs/refine --beat runs/plain
    archon report runs/first --verifiers --costs 0,1,4
    archon report runs/first --cost seconds --hardware h100-sxm --batch 64 --pictures
    archon report runs/found --top 20
    archon report runs/found --compare runs/other
    """
    from rich.console import Console

    from archon.benchmarks import plots
    from archon.benchmarks import report as reports
    from archon.benchmarks.results import Results
    from archon.benchmarks.searching.report import Wanted, answered

    if answered(Wanted(runs, compare, as_json, as_csv, top, pictures, study), _given()):
        return
    if plain is not None:
        if verifiers or compare is not None or label is not None or cost is not None or pictures:
            raise click.UsageError("--beat goes with --selector and --json alone")
        _beat(plain, runs, selector, as_json)
        return
    if len(runs) > 1:
        raise click.UsageError("several runs go with --beat; otherwise name one")
    (run,) = runs
    if verifiers and compare is not None:
        raise click.UsageError("--verifiers and --compare are two reports: ask for one of them")
    if label is not None and (verifiers or compare is not None or cost is not None):
        raise click.UsageError("--by goes with none of --verifiers, --compare and --cost")
    if not verifiers and (costs is not None or drop_false_negatives):
        raise click.UsageError("--costs and --drop-false-negatives go with --verifiers")
    if cost is not None and (verifiers or compare is not None):
        raise click.UsageError("--cost goes with neither --verifiers nor --compare")
    if (cost == "seconds") != (hardware is not None):
        raise click.UsageError("--cost seconds and --hardware NAME go together")
    if hardware is None and (batch is not None or devices is not None):
        raise click.UsageError("--batch and --devices go with --cost seconds")
    results = Results.read(run)
    if cost is not None:
        from archon.benchmarks.idealised import check_axis, with_seconds

        if hardware is not None:
            results = with_seconds(results, hardware, batch or 1, devices or 1)
        check_axis(results, cost)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if compare is not None:
        _compare(results, Results.read(compare), as_json, console)
        return
    if label is not None:
        _by(results, label, as_json, pictures, console)
        return
    if verifiers:
        _account(results, costs, drop_false_negatives, as_json, pictures, console)
        return
    if as_json:
        print(json.dumps(results.data, indent=1, ensure_ascii=False))
    else:
        reports.show(results, console, cost)
    if pictures:
        for path in plots.draw(results, run, cost):
            print(path, file=sys.stderr)


def _given() -> set[str]:
    """The parameters that stand on the command line."""
    context = click.get_current_context()
    source = context.get_parameter_source
    return {name for name in context.params if source(name) is ParameterSource.COMMANDLINE}


def _beat(plain: Path, runs: Sequence[Path], selector: str, as_json: bool) -> None:
    from rich.console import Console

    from archon.benchmarks.equal_cost import equal_cost
    from archon.benchmarks.report import show_equal_cost
    from archon.benchmarks.results import Results

    line = Results.read(plain)
    found = equal_cost(line, [Results.read(run) for run in runs], selector)
    if as_json:
        data = {
            "plain": str(plain),
            "selector": selector,
            "runs": [{"run": str(run), **one.as_json()} for run, one in zip(runs, found, strict=True)],
        }
        print(json.dumps(data, indent=1, allow_nan=False))
        return
    show_equal_cost(found, line, selector, Console(width=None if sys.stdout.isatty() else 160))


def _by(results: Any, label: str, as_json: bool, pictures: bool, console: Any) -> None:
    from archon.benchmarks.by_label import by_label
    from archon.benchmarks.plots import draw_by_label
    from archon.benchmarks.report import show_by_label

    found = by_label(results, label)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show_by_label(found, console)
    if pictures:
        for path in draw_by_label(found, results.folder):
            print(path, file=sys.stderr)


def _account(
    results: Any, costs: str | None, drop: bool, as_json: bool, pictures: bool, console: Any
) -> None:
    from archon.benchmarks import plots
    from archon.benchmarks.account import COSTS, account, cost_list
    from archon.benchmarks.report import show_account

    try:
        wanted = COSTS if costs is None else cost_list(costs)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--costs") from None
    accounts = account(results, costs=wanted, drop_false_negatives=drop)
    if as_json:
        print(json.dumps(accounts, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show_account(accounts, console)
    if pictures:
        title = f"{results.data['benchmark']}, {results.data['pipeline']}"
        for path in plots.draw_accounts(accounts, title, results.folder):
            print(path, file=sys.stderr)


def _compare(a: Any, b: Any, as_json: bool, console: Any) -> None:
    from archon.benchmarks.report import show_comparison
    from archon.benchmarks.statistics.paired import compare
    from archon.errors import DataError

    first = {r.id: r for r in a.records}
    second = {r.id: r for r in b.records}
    same_id = [name for name in first if name in second]
    shared = [name for name in same_id if first[name].fingerprint == second[name].fingerprint]
    if not shared:
        others = f" ({len(same_id)} have the same id, and ask something else)" if same_id else ""
        raise DataError(f"the two runs have no problem in common{others}")
    chosen = compare(
        [first[n].outcome == "solved" for n in shared], [second[n].outcome == "solved" for n in shared]
    )
    sampled = [n for n in shared if first[n].truth and second[n].truth]
    single = compare(
        [sum(first[n].truth) / len(first[n].truth) for n in sampled],
        [sum(second[n].truth) / len(second[n].truth) for n in sampled],
    )
    if as_json:
        data = {
            "a": str(a.folder),
            "b": str(b.folder),
            "chosen": chosen.as_json(),
            "single_sample": single.as_json(),
        }
        print(json.dumps(data, indent=1))
        return
    show_comparison(chosen, str(a.folder), str(b.folder), "accuracy of the pipelines' choices", console)
    show_comparison(single, str(a.folder), str(b.folder), "accuracy of a single sample (pass@1)", console)
    lost = len(first) + len(second) - 2 * len(shared)
    if lost:
        console.print(f"Note: {lost} problems are in one run only, and left out", style="yellow")
