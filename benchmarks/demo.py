"""The demonstration: the main job on the lab's problems, with the nano models that ship. `make demo` runs it.

Nothing is scripted: the samples are drawn here, by a small language model; a reward model and the visible tests judge
them; the sandbox grades programs. It needs no key, no GPU, no data and no network.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from archon.backends.base import Model
from archon.backends.nano.backend import Nano
from archon.benchmarks.lab.bench import Lab, LabArith, LabListFn
from archon.benchmarks.results import Results
from archon.errors import ArchonError

if TYPE_CHECKING:
    from rich.console import Console

    from archon.session import Session

FOLDER = Path("runs/demo")


class Part(NamedTuple):
    """A benchmark, and the pipelines that are put to it, all over the same samples."""

    title: str
    benchmark: type[Lab]
    levels: tuple[int, ...]
    samples: int
    pipelines: tuple[str, ...]
    """The first one's report is shown in full."""


PARTS = (
    Part(
        "Arithmetic, step by step: answers vote, and a process reward model scores them",
        LabArith, (3, 4, 5, 6), 64, ("reward_best_of_n", "reward_weighted_vote", "self_consistency"),
    ),
    Part(
        "Functions from three examples: the examples are the tests that can be seen, 24 more are hidden",
        LabListFn, (1, 2, 3, 4), 32, ("best_of_n", "first_passing"),
    ),
)  # fmt: skip


async def demonstrate(
    folder: Path,
    models: Mapping[str, Model],
    console: Console,
    *,
    problems: int = 10,
    samples: int | None = None,
) -> None:
    """Run every part into a folder and show what came of it: so many problems of each level."""
    from archon.benchmarks import plots
    from archon.benchmarks import report as reports
    from archon.benchmarks.account import account
    from archon.benchmarks.by_label import by_label
    from archon.budget import Budget, Budgets
    from archon.session import Session

    folder.mkdir(parents=True, exist_ok=True)
    pictures: list[Path] = []
    done: list[Results] = []
    budget = Budgets(run=Budget(tokens=20_000_000))
    async with Session(models=models, budget=budget, store=folder / "store.sqlite", seed=0) as session:
        for part in PARTS:
            console.rule(part.title)
            count = samples or part.samples
            runs = [await _run(part, part.pipelines[0], problems, count, folder, session)]
            reports.show(runs[0], console)
            console.print()
            reports.show_by_label(by_label(runs[0], "level"), console)
            pictures += plots.draw(runs[0], runs[0].folder)
            pictures += plots.draw_by_label(by_label(runs[0], "level"), runs[0].folder)
            for pipeline in part.pipelines[1:]:
                runs.append(await _run(part, pipeline, problems, count, folder, session))
            done += runs
        console.rule("What the visible tests said, against the truth")
        accounts = account(runs[0])
        reports.show_account(accounts, console)
        title = f"{runs[0].data['benchmark']}, {runs[0].data['pipeline']}"
        pictures += plots.draw_accounts(accounts, title, runs[0].folder)
        console.rule("What each pipeline chose, and what it cost")
        _show_choices(done, console)
        console.rule("Again, from the store: no sample is drawn twice, no program run twice")
        again = await _run(
            PARTS[0], PARTS[0].pipelines[0], problems, samples or PARTS[0].samples, folder, session
        )
        console.print(f"Spent this time: {again.data['fresh']['requests']} requests")
    console.print("\nPictures: " + ", ".join(map(str, pictures)), soft_wrap=True)


async def _run(
    part: Part, pipeline: str, problems: int, samples: int, folder: Path, session: Session
) -> Results:
    from archon.benchmarks.harness import Harness, Plan
    from archon.cli.options import with_samples
    from archon.progress import Live
    from archon.shelf import ready

    dataset = part.benchmark(level=part.levels, problems=problems).load()
    graph = with_samples(ready(pipeline).pipeline, samples).graph()
    place = folder / dataset.name.removeprefix("lab/") / pipeline
    place.mkdir(parents=True, exist_ok=True)
    with Live() as live:
        return await Harness(Plan(dataset, graph, pipeline, samples=samples), session, place, live).run()


def _show_choices(runs: list[Results], console: Console) -> None:
    """One line per pipeline; before those of a benchmark, what one sample alone would do."""
    from rich.table import Table

    from archon.usage import Usage, describe

    table = Table(show_edge=False, pad_edge=False)
    for column in ("benchmark", "pipeline", "right, % [95%]", "cost", "of it spent now"):
        table.add_column(column)
    shown: set[str] = set()
    for run in runs:
        data = run.data
        if data["benchmark"] not in shown and "1" in data["coverage"]:
            shown.add(data["benchmark"])
            table.add_row(data["benchmark"], "(one sample)", _percent(data["coverage"]["1"]), "", "")
        table.add_row(
            data["benchmark"],
            data["pipeline"],
            _percent(data["pipeline_accuracy"]),
            describe(Usage.from_json(data["usage"])),
            describe(Usage.from_json(data["fresh"])),
        )
    console.print(table)


def _percent(point: Mapping[str, float | None]) -> str:
    value, low, high = point["value"], point["low"], point["high"]
    if value is None or low is None or high is None:
        return ""
    return f"{100 * value:.1f} \\[{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Run the demonstration and show its report."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 150)
    console.rule("Archon, a demonstration")
    console.print(
        "A model of about a million parameters answers, trained for these problems and shipped with the package: "
        "small enough to run here, real enough to err. Everything below is sampled, judged and graded here; what "
        f"{FOLDER} has of it from before is not done again.\n"
    )
    started = time.monotonic()
    models = {"default": Nano(), "reward": Nano(weights="prm")}
    try:
        asyncio.run(demonstrate(FOLDER, models, console))
    except KeyboardInterrupt:
        print("interrupted; what was recorded is kept: run it again to go on", file=sys.stderr)
        sys.exit(130)
    except ArchonError as error:
        sys.exit(f"error: {error}")
    console.print(f"Took {time.monotonic() - started:.0f} seconds.")
    console.print("Next: the README's tour, and `archon bench --help`.")


if __name__ == "__main__":
    main()
