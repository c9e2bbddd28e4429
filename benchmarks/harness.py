"""The harness: a pipeline over a benchmark, graded, resumable, with live progress.

Problems run concurrently through one session. For each, the pipeline's candidates are graded by the
benchmark's grader, which the pipeline never sees. Samples,
executions and grades are remembered by the store, so running again after a `kill -9`, a Ctrl-C or with more
samples does only what is missing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import ValidationError

from archon import registry
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.recording import finite, never_begun, recorded
from archon.benchmarks.results import Record, Results, RunInfo, summarise, write_json, write_whole
from archon.calling import Caller
from archon.candidate import Candidate
from archon.config.build import fields_of
from archon.engine import EngineFigures
from archon.errors import DataError, UserError
from archon.graph import Graph
from archon.ledger import Ledger
from archon.problem import Problem
from archon.session import Session
from archon.strategies.selection import ScoreSelector, Selector, VoteSelector
from archon.tasks import together

_INTERIM_SECONDS = 30.0
_INTERIM_SHARE = 50
"""Interim results are written every half minute, and take no more than a fiftieth of the time."""


class Watcher(Protocol):
    """Told of a run's progress (archon/progress.py)."""

    def started(self, total: int) -> None:
        """So many problems will run."""
        ...

    def finished(self, ledger: Ledger, *, well: bool, badly: bool) -> None:
        """One problem is done."""
        ...


@dataclass
class Plan:
    """What to run."""

    dataset: Dataset
    graph: Graph
    pipeline: str
    """The pipeline's name or file, for the report."""
    samples: int | None = None
    limit: int | None = None
    """Only the first so many problems."""
    concurrency: int = 16
    """Problems in work at once."""
    selectors: tuple[str, ...] = ()
    """Selectors whose curves are reported; the benchmark's own where empty."""

    @property
    def problems(self) -> Sequence[Problem]:
        """The problems that will run."""
        problems = self.dataset.problems
        return problems if self.limit is None else problems[: self.limit]


class Harness:
    """Runs a plan into a folder."""

    def __init__(self, plan: Plan, session: Session, folder: Path, watcher: Watcher | None = None) -> None:
        self.plan = plan
        self.session = session
        self.folder = folder
        self.watcher = watcher
        self.records: dict[str, Record] = {}
        self._interim = True
        self._interim_due = time.monotonic() + _INTERIM_SECONDS
        self._engines: dict[str, EngineFigures] = {}
        self._notes = [*plan.dataset.notes, *_comparing(plan.graph)]
        self.left_out: dict[str, str] = {}
        """Selectors that are not reported, and why."""
        self._selectors = self._reported()

    def check(self) -> None:
        """Raise UserErrors for all that can be known to be wrong before anything is spent."""
        _check_problems(self.plan.dataset.name, self.plan.problems)
        _check_verifiers(self.plan.graph, self.plan.problems)
        self.session.check(self.plan.graph)
        for name in self.plan.graph.models:
            self.session.caller(name)

    async def run(self) -> Results:
        """Run every problem and write the results; every so often, and on Ctrl-C, what is done by then.

        Raises UserErrors before anything is spent, FatalError where a model cannot be used; what was
        recorded by then is kept.
        """
        problems = self.plan.problems
        self.check()
        self._interim = not _finished(self.folder)
        if self.watcher is not None:
            self.watcher.started(len(problems))
        try:
            await self._all(problems)
        except BaseException:
            with suppress(OSError):  # a full disk, say: why the run ended matters more
                if self.records:
                    self._write_interim()
                else:
                    _leave(self.folder)
            raise
        self._engines = await self.session.engines()
        return self._write(interrupted=False)

    async def _all(self, problems: Sequence[Problem]) -> None:
        """Every problem, so many at once; the first fatal error ends all."""
        waiting = iter(problems)

        async def work() -> None:
            for problem in waiting:
                if self.session.expired:
                    self._keep(never_begun(problem))
                    continue
                self._keep(await self.one(problem))

        await together(work() for _ in range(min(self.plan.concurrency, len(problems))))

    def _keep(self, record: Record) -> None:
        self.records[record.id] = record
        if self.watcher is not None:
            bad = record.outcome in ("failed", "timed_out", "cancelled")
            self.watcher.finished(self.session.ledger, well=record.outcome == "solved", badly=bad)
        if time.monotonic() >= self._interim_due:
            self._write_interim()

    def _write_interim(self) -> None:
        """What is done by now, for `archon report` from another terminal or after a `kill -9`; but never
        in the place of a finished run, which may be about to grow."""
        if not (self._interim and self.records):
            return
        started = time.monotonic()
        self._write(interrupted=True)
        now = time.monotonic()
        self._interim_due = now + max(_INTERIM_SECONDS, _INTERIM_SHARE * (now - started))

    async def one(self, problem: Problem) -> Record:
        """Solve and grade one problem."""
        record, candidates = await recorded(self.session, self.plan.graph, self.plan.dataset.grader, problem)
        if not record.error:
            self._judge(record, problem, candidates)
        return record

    def _judge(self, record: Record, problem: Problem, candidates: Sequence[Candidate]) -> None:
        """What every selector thinks of every candidate, for its curve."""
        for name, selector in tuple(self._selectors.items()):
            try:
                if isinstance(selector, ScoreSelector):
                    record.merits[name] = [finite(selector.merit(c)) for c in candidates]
                elif isinstance(selector, VoteSelector):
                    labels: dict[Any, int] = {}
                    record.ballots[name] = [
                        None if b is None else [labels.setdefault(b.answer, len(labels)), b.weight]
                        for b in selector.ballots(problem, candidates)
                    ]
            except (LookupError, ValueError) as error:  # these candidates' scores are not for it
                self._leave_out(name, str(error))

    def _reported(self) -> dict[str, Selector]:
        """The selectors to report. Raises UserError where one that was asked for cannot be."""
        found: dict[str, Selector] = {}
        for name in self.plan.selectors or self.plan.dataset.selectors:
            selector = _selector(name, self.plan.graph)
            lacking = _lacking(selector, self.plan.graph)
            if lacking and self.plan.selectors:
                raise UserError(
                    f"the selector {name!r} cannot be reported: {lacking}. Leave it out, or change the pipeline"
                )
            if not lacking:
                found[name] = selector
        return found

    def _leave_out(self, name: str, why: str) -> None:
        """A selector that fails on one problem has no figure over all of them."""
        del self._selectors[name]
        self.left_out[name] = why
        for record in self.records.values():
            record.merits.pop(name, None)
            record.ballots.pop(name, None)
        self._notes.append(f"{name} is not reported: {why}")

    def _write(self, *, interrupted: bool) -> Results:
        records = [self.records[p.id] for p in self.plan.problems if p.id in self.records]
        info = RunInfo(
            benchmark=self.plan.dataset.name,
            pipeline=self.plan.pipeline,
            samples=self.plan.samples,
            seed=self.session.seed,
            notes=self._notes,
            models={name: _described(self.session.caller(name)) for name in self.plan.graph.models},
            early_stopping=any(stage.stops_early for stage in self.plan.graph.stages),
            interrupted=interrupted,
            engines={endpoint: figures.as_json() for endpoint, figures in self._engines.items()},
        )
        data = summarise(info, records)
        write_whole(self.folder / "problems.jsonl", "".join(record.line() + "\n" for record in records))
        write_json(self.folder / "info.json", asdict(info))
        write_json(self.folder / "results.json", data)
        return Results(self.folder, data, records)


def _described(caller: Caller) -> dict[str, Any]:
    """Which model it is, and its architecture where that is known: idealised time is computed from it."""
    shape = caller.shape
    return {**caller.backend.identity, **({} if shape is None else {"architecture": fields_of(shape)})}


def _finished(folder: Path) -> bool:
    """Whether the folder holds the results of a run that went to its end."""
    try:
        return not Results.read(folder).data.get("interrupted")
    except DataError:
        return False


def _comparing(graph: Graph) -> list[str]:
    """A note on each stage whose candidates depend on one another, and on each verifier that compares them: figures at
    k are not those that k alone would get."""
    related = [
        f"the candidates of {path} depend on one another, so figures at k below all of them are those of k of its "
        "answers, and not of a run with k; for a curve, run it again with each n"
        for path, place in graph.places.items()
        if place.stage.related
    ]
    return related + [
        f"{graph.titles[path]} compares all candidates of a problem, so curves by its scores say more at fewer than "
        "all samples than so few would"
        for path, place in graph.places.items()
        if getattr(getattr(place.stage, "verifier", None), "together", False)
    ]


def _check_problems(name: str, problems: Sequence[Problem]) -> None:
    if not problems:
        raise DataError(f"the benchmark {name!r} has no problems to run")
    for problem, count in Counter(p.id for p in problems).items():
        if count > 1:
            raise DataError(
                f"the benchmark {name!r} has {count} problems with the id {problem!r}. Give each its own"
            )


def open_folder(folder: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Make the run's folder, or check that it holds the same run, which may have grown.

    Raises UserError where it holds another run, or the results of a larger one.
    """
    file = folder / "run.json"
    wanted = json.loads(json.dumps(settings, default=str))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists() and not overwrite:
            known = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(known, dict):
                raise ValueError("it describes no run")
            changed = sorted(_differences(known, wanted))
            if changed:
                name, before, now = changed[0]
                raise UserError(
                    f"{str(folder)!r} holds another run: {name} was {before} and is {now}. "
                    "Name another folder with --out, or replace that run with --overwrite (the store keeps its samples)"
                )
            _check_growth(folder, wanted)
        if overwrite:
            for name in (*_RESULTS, *(p.name for p in folder.glob("accuracy_by_*.png"))):
                (folder / name).unlink(missing_ok=True)
        write_json(file, wanted)
    except OSError as error:
        raise UserError(
            f"cannot write the run to {str(folder)!r}: {error.strerror}. Name another folder with --out"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{str(file)!r} is damaged ({error}). Name another folder with --out, or use --overwrite"
        ) from error


_RESULTS = ("results.json", "problems.jsonl", "info.json", "curves.csv", "trace.jsonl")
_MAY_GROW = {"samples": "samples", "limit": "problems"}
"""By its name among a run's settings, what `results.json` calls it."""


def _check_growth(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Results give way to larger ones only."""
    try:
        known = Results.read(folder).data
    except DataError:
        return
    for name, figure in _MAY_GROW.items():
        before, now = known.get(figure), wanted.get(name)
        if isinstance(before, int) and isinstance(now, int) and now < before:
            raise UserError(
                f"{str(folder)!r} holds the results of {before} {figure}, and {now} would replace them. "
                f"Name another folder with --out, ask for {before} or more, or use --overwrite "
                "(the store keeps its samples)"
            )


def _leave(folder: Path) -> None:
    """Give back the folder of a run that came to nothing, so that the mended one may have it."""
    if not (folder / "results.json").exists():
        for name in ("run.json", "pipeline.yaml"):
            (folder / name).unlink(missing_ok=True)


def _differences(known: Any, wanted: Any, path: str = "") -> list[tuple[str, str, str]]:
    if isinstance(known, dict) and isinstance(wanted, dict):
        found = []
        for key in {*known, *wanted}:
            if not path and key in _MAY_GROW:
                continue
            found += _differences(known.get(key), wanted.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if known == wanted else [(path, json.dumps(known)[:80], json.dumps(wanted)[:80])]


def _selector(name: str, graph: Graph) -> Selector:
    """A selector as the pipeline has it, else with its defaults. Raises UserError where it can have no curve."""
    stage = registry.find("stage", name)
    if not (isinstance(stage, type) and issubclass(stage, ScoreSelector | VoteSelector)):
        raise UserError(
            f"{name!r} does not choose one of the candidates by score or vote, "
            "so it has no curve of selected accuracy"
        )
    own = {place.stage for place in graph.places.values() if type(place.stage) is stage}
    if len(own) == 1:
        return cast(Selector, own.pop())
    try:
        return stage()
    except ValidationError as error:
        needed = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise UserError(
            f"the selector {name!r} cannot be reported: it needs settings ({needed}). Put it into the pipeline"
        ) from None


def _lacking(selector: Selector, graph: Graph) -> str:
    """What a selector needs that this pipeline does not give; nothing where it has all."""
    given = {fact for place in graph.places.values() for fact in place.stage.provides}
    missing = sorted(selector.requires - given)
    if missing:
        return f"it needs {' and '.join(missing)}, and no stage gives any"
    return graph.whose_score(selector, graph.places)


def _check_verifiers(graph: Graph, problems: Sequence[Problem]) -> None:
    """A verifier that can say nothing about any problem is a mistake, better found before spending."""
    from archon.verifier import Verifier

    for place in graph.places.values():
        for value in place.stage.given().values():
            if isinstance(value, Verifier) and not any(value.applies(p) for p in problems):
                raise UserError(
                    f"stage {place.path!r}: the verifier {value.name!r} can say nothing about these problems "
                    "(unit_tests needs visible tests). Choose another verifier, or a pipeline without one"
                )
