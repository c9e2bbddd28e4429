"""Everything that a search needs, from its file and the options: space, settings, problems, models, limits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from archon import registry
from archon.backends.base import Model, canonical
from archon.benchmarks.benchmark import Dataset, fingerprint
from archon.benchmarks.by_label import labels_of
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.budget import Budget
from archon.cli.options import parse_model, read_pipeline, with_samples
from archon.config import Config, build
from archon.config.build import Builder, fields_of
from archon.config.source import Source, read_file, read_text
from archon.errors import UnknownName, UserError
from archon.search.axes import Configuration, described
from archon.search.choosing import Parts
from archon.search.history import Direction
from archon.search.proposers.base import Proposer
from archon.search.proposers.preferring import preferring
from archon.search.racing import shuffled
from archon.search.reuse import Needs, Paid, Prices
from archon.search.search import dearest, most_contestants
from archon.search.settings import Settings, Spending, read_settings
from archon.search.space import OWN, SearchSpace, shipped
from archon.suggest import hint

_DRAWS = 200
_SHOWN = 3


class Setup:
    """Read once; nothing is asked of a model. Raises UserErrors for all that can be known to be wrong."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        source = _source(options["file"])
        self.space = SearchSpace.of(source, others=Settings.model_fields)
        self.settings = _with_options(read_settings(self.space.others), options)
        self.seed: int = options["seed"]
        self.benchmark = read_benchmark(self.settings.benchmark, options["data"])
        self.dataset = limited(self.benchmark.load(), options["limit"])
        self.given = _given(options)
        self.models = _models(self._example(), self.given)
        self.parts = self._parts()
        self.paid = Paid()
        if not self.settings.spending.given() and most_contestants(self.space) is None:
            raise UserError(
                "`effort` limits nothing, and the space has no end, so the search would have none. "
                "Write `effort: medium`, or a limit: effort: {trials: 60}"
            )
        raw = source.data
        own = {key: raw[key] for key in raw if key in OWN} if isinstance(raw, Mapping) else raw
        self._served: dict[str, Any] = {}
        """What serves the models of the command line, by name."""
        self._space_digest = hashlib.sha256(canonical(own).encode()).hexdigest()

    async def prepare(self, evaluator: LocalEvaluator) -> None:
        """What takes a session: limits on more than calls, and problems that take work."""
        session = await evaluator.session(self._example())
        self.dataset = evaluator.dataset = await self.dataset.prepared(session)
        self.space = self.space.bound_to(problems=self.dataset.problems, session=session)
        self._served = {name: session.caller(name).backend.identity for name in self.given}
        if (cost := self.settings.cost) is not None:
            for one in self._drawn():
                if self.space.refusal(one) is None:
                    dearest(self.space, cost, one)  # raises where nothing bounds it: the race needs that

    @property
    def limits(self) -> Budget:
        """What the whole search may spend anew."""
        spending = self.settings.spending
        return Budget(tokens=spending.tokens, usd=spending.usd, counts="fresh")

    @property
    def directions(self) -> dict[str, Direction]:
        """Objectives as Optuna names their directions."""
        return {
            one.name: "maximize" if one.direction == "maximise" else "minimize"
            for one in self.settings.objectives
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the values of this search depend on."""
        found = {
            "space": self._space_digest,
            "benchmark": f"{self.dataset.name} {self.dataset.fingerprint}",
            "splits": self.settings.splits.model_dump(mode="json"),
            "target": self.settings.target,
        }
        if any(given := {one.name: fields_of(one) for one in self.settings.objectives}.values()):
            found["objectives"] = canonical([*given])
        if self._served:
            found["models"] = hashlib.sha256(canonical(self._served).encode()).hexdigest()
        return found

    @property
    def asked(self) -> dict[str, str]:
        """The digest of what each problem asks, by its id."""
        return {problem.id: fingerprint(problem) for problem in self.dataset.problems}

    def proposer(self) -> Proposer:
        """As the settings say. It goes by prices, if it does; where order carries no judgement, what is paid for goes
        first."""
        one = self.settings.proposing(self.space.axes)
        objectives = 1 if self.settings.target is not None else len(self.settings.objectives)
        prices = Prices(Needs(self.space), self.paid)
        return preferring(one, self.space, prices, seed=self.seed, objectives=objectives)

    @property
    def baselines(self) -> dict[str, Config]:
        """By name. Raises UserErrors."""
        return {name: self._baseline(name, data) for name, data in self.settings.baselines.items()}

    def described(self) -> list[str]:
        """The space in words, and some of what is in it."""
        axes = self.space.axes
        found = [f"{axis.name}: {described(axis)}" + _needs(axis) for axis in axes]
        size = axes.size if all(axis.values is not None for axis in axes) else None
        found.append("continuous" if size is None else f"{size:,} configurations before limits")
        drawn = self._drawn()
        refusals = [None if self.space.limits.need_models else self.space.refusal(one) for one in drawn]
        allowed = [one for one, why in zip(drawn, refusals, strict=True) if why is None]
        found.append(f"of {_DRAWS} drawn at random, {len(allowed)} are valid and within limits")
        found += [f"  such as {self.space.stack(one)}" for one in allowed[:_SHOWN]]
        found += [f"  not: {why}" for why in dict.fromkeys(w for w in refusals if w)][:_SHOWN]
        parts = self.parts
        found.append(
            f"{self.dataset.name}: {len(parts.search)} problems to search on, {len(parts.validation)} to validate, "
            f"{len(parts.test)} to test"
        )
        spending = self.settings.spending
        given = [f"{name}: {value}" for name, value in spending.given().items()]
        found.append(f"effort: {', '.join(given)}")
        return found

    def _drawn(self) -> list[Configuration]:
        """Some configurations of the space."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        return [self.space.axes.draw(rng) for _ in range(_DRAWS)]

    def _example(self) -> Config:
        """Some configuration of the space, for its models."""
        import numpy as np

        rng = np.random.default_rng(0)
        why: Exception | None = None
        for _ in range(_DRAWS):
            try:
                return self.space.config(self.space.axes.draw(rng))
            except UserError as error:
                why = error
        raise UserError(f"none of {_DRAWS} configurations drawn at random can be built; the last: {why}")

    def _parts(self) -> Parts:
        problems = self.dataset.problems
        ids = [problem.id for problem in problems]
        labels = [canonical(labels_of(problem)) for problem in problems]
        few = len(set(labels)) > len(ids) / 10
        parts = self.settings.splits.assign(ids, None if few else labels)
        return Parts(shuffled(parts["search"], self.seed), parts["validation"], parts["test"])

    def _baseline(self, name: str, data: Any) -> Config:
        if not isinstance(data, str):
            found = build(Source({"pipeline": data}, f"baseline {name!r}"))
        else:
            pipeline, at, count = data.partition("@")
            found = read_pipeline(pipeline)
            if at:
                if not count.isdigit() or not int(count):
                    raise UserError(
                        f"baseline {name!r} is {data!r}; after @ stands a number of samples, as in {pipeline}@16"
                    )
                found = found.model_copy(update={"pipeline": with_samples(found.pipeline, int(count))})
        return found.model_copy(update={"models": {**self._example().models, **found.models}})


def _with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """What the command line says goes before what the file says."""
    changes: dict[str, Any] = {
        name: options[name] for name in ("trials", "tokens") if options[name] is not None
    }
    if options["usd"] is not None:
        try:
            changes["usd"] = Decimal(options["usd"])
        except InvalidOperation:
            raise UserError(f"--usd {options['usd']!r} is no amount of dollars, such as 2.50") from None
    if options["effort"] is not None:
        settings = settings.model_copy(update={"effort": options["effort"]})
    if changes:
        spending = Spending.model_validate({**settings.spending.model_dump(), **changes})
        settings = settings.model_copy(update={"effort": spending})
    return settings


def read_benchmark(given: Any, data: Path | None) -> Any:
    """A benchmark as the file names it. Raises UnknownName, and ConfigError for wrong settings."""
    if isinstance(given, str):
        name, fields = given, {}
    elif len(given) == 1:
        ((name, fields),) = given.items()
        fields = dict(fields or {})
    else:
        raise UserError(f"`benchmark` names one, and has {', '.join(map(repr, given))}")
    if name.endswith((".jsonl", ".jsonl.gz")):
        name, fields = "jsonl", {"data": Path(name), **fields}
    if data is not None:
        fields["data"] = data
    builder = Builder(Source(None, f"benchmark {name}"))
    built = builder.named("benchmark", name, fields, ())
    builder.check()
    return built


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Only the first so many problems."""
    from dataclasses import replace

    return dataset if limit is None else replace(dataset, problems=dataset.problems[:limit])


def _source(name: str) -> Source:
    """A file, or one that ships. Raises DataError, and UnknownName with the nearest of those that ship."""
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml", ".toml"):
        return read_file(path)
    file = shipped().get(name)
    if file is None:
        raise UnknownName(
            f"there is no search file {name!r}, and none of this name ships. {hint(name, shipped())}"
        )
    return read_text(file.read_text(encoding="utf-8"), "yaml", file.name)


def _given(options: Mapping[str, Any]) -> dict[str, Model]:
    """The models of the command line. Raises UserErrors."""
    found = dict(parse_model(text, options["base_url"]) for text in options["models"])
    if options["replay"] is not None:
        found["default"] = registry.find("backend", "replay")(path=options["replay"])
    return found


def _models(example: Config, given: Mapping[str, Model]) -> dict[str, Model]:
    """What serves names that the file does not define: what was given, or the lab's models."""
    known = [*example.models.values(), *given.values()]
    if not all(model.of_the_lab for model in known):
        return dict(given)
    find = registry.find
    lab: dict[str, Model] = {
        "default": find("backend", "nano")(),
        "reward": find("backend", "nano")(weights="prm"),
    }
    return {**lab, **given}


def _needs(axis: Any) -> str:
    if not axis.needs:
        return ""
    return " (where " + " and ".join(f"{name} is {' or '.join(map(str, v))}" for name, v in axis.needs) + ")"
