"""What several commands share: which pipeline, which models, which budget, which store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from archon.backends.base import Model
    from archon.budget import Budget
    from archon.config import Config
    from archon.graph import Graph
    from archon.pipeline import Pipeline

F = TypeVar("F", bound=Callable[..., Any])


def pipeline_options(command: F) -> F:
    """`--pipeline`, `--model`, `--set`, budgets, store, seed."""
    for option in reversed(
        (
            click.option("--pipeline", "-p", required=True, metavar="NAME|FILE", help="A ready pipeline's name, or a YAML or TOML file."),
            click.option("--model", "-m", "models", multiple=True, metavar="[NAME=]BACKEND:MODEL",
                         help="A model, such as openai:gpt-4o-mini, vllm:PATH_OR_NAME or nano:WEIGHTS; for the stages' model NAME "
                              "(default: `default`). Without any, the nano model that ships with archon."),
            click.option("--base-url", metavar="URL", help="The server of models given by --model openai:..."),
            click.option("--set", "settings", multiple=True, metavar="STAGE.FIELD=VALUE", help="Change a stage's setting, such as sample.temperature=0.8."),
            click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Samples per problem: the `n` of the pipeline's source."),
            click.option("--budget", "run_budget", multiple=True, metavar="WHAT=AMOUNT",
                         help="A hard limit for the whole run: usd, tokens, requests, flops, seconds, ... "),
            click.option("--problem-budget", multiple=True, metavar="WHAT=AMOUNT", help="A hard limit for each problem."),
            click.option("--budget-tokens", type=click.IntRange(min=1), metavar="N",
                         help="The same for tokens, of all models and prompts: --problem-budget tokens=N."),
            click.option("--seed", type=int, help="Seed of the run; another seed is another, independent run."),
            click.option("--store", type=click.Path(path_type=Path), metavar="FILE",
                         help="Where samples are kept (default: ARCHON_STORE, else .archon/store.sqlite)."),
            click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="A price table of yours (or ARCHON_PRICES)."),
            click.option("--offline", is_flag=True, help="Make no model call: replay what is stored."),
            click.option("--concurrency", type=click.IntRange(min=1), default=16, show_default=True, help="Problems in work at once."),
            click.option("--dry-run", is_flag=True, help="Print the effective configuration and a cost estimate, and stop."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def problem_limits(options: dict[str, Any]) -> tuple[str, ...]:
    """What `--problem-budget` and `--budget-tokens` say."""
    tokens = options["budget_tokens"]
    return (*options["problem_budget"], *(() if tokens is None else (f"tokens={tokens}",)))


def store_path(given: Path | None) -> Path:
    """The store to use."""
    return given or Path(os.environ.get("ARCHON_STORE") or ".archon/store.sqlite")


def read_pipeline(name: str) -> Config:
    """A ready pipeline, or a configuration file."""
    from archon.config import load
    from archon.shelf import names, ready

    path = Path(name)
    if name in names() and not path.is_file():
        return ready(name)
    if path.suffix in (".yaml", ".yml", ".toml") or path.is_file():
        return load(path)
    return ready(name)  # raises, with the nearest name


def configured(
    pipeline: str,
    models: tuple[str, ...],
    base_url: str | None,
    settings: tuple[str, ...],
    samples: int | None,
    run_budget: tuple[str, ...],
    problem_budget: tuple[str, ...],
    replay: Path | None = None,
) -> Config:
    """The configuration that the options amount to. Raises UserErrors."""
    from archon.config import Config

    config = read_pipeline(pipeline)
    graph_of = config.pipeline
    for setting in settings:
        graph_of = with_setting(graph_of, setting)
    if samples is not None:
        graph_of = with_samples(graph_of, samples)
    if base_url is not None and not any("openai:" in text for text in models):
        from archon.errors import UserError

        raise UserError(
            f"--base-url {base_url} goes with a model given by --model openai:NAME, and none is given. "
            "In a file, write `base_url:` beside the model"
        )
    named: dict[str, Any] = dict(config.models)
    for text in models:
        name, model = parse_model(text, base_url)
        named[name] = model
    if replay is not None:
        from archon.backends.replay import Replay

        named["default"] = Replay(path=replay)
    budget = config.budget.model_copy(
        update={
            "run": with_limits(config.budget.run, run_budget, "--budget"),
            "problem": with_limits(config.budget.problem, problem_budget, "--problem-budget"),
        }
    )
    graph = graph_of.graph()
    shipped = _shipped(graph, named)
    result = Config(models={**named, **shipped}, budget=budget, pipeline=graph_of)
    _check_models(graph, result.models)
    for name in shipped:
        print(_SHIPPED[name][1], file=sys.stderr)
    return result


_SHIPPED = {
    "default": (
        "lm",
        "no model given: using the nano model that ships with archon; it only knows the lab's problems",
    ),
    "reward": (
        "prm",
        "no reward model given: using the nano one that ships with archon; it only knows the lab's problems",
    ),
}
"""What serves the names that ready pipelines use, and what is said of it."""


def _shipped(graph: Graph, named: Mapping[str, Model]) -> dict[str, Model]:
    """The nano models for stages that lack a model, where nobody gave a model that is not of the lab."""
    from archon import registry

    if not all(model.of_the_lab for model in named.values()):
        return {}
    lacking = [name for name in _SHIPPED if name in graph.models and name not in named]
    return {name: registry.find("backend", "nano")(weights=_SHIPPED[name][0]) for name in lacking}


def _check_models(graph: Graph, models: Mapping[str, Model]) -> None:
    from archon.errors import UserError
    from archon.suggest import hint

    for name, stages in graph.models.items():
        if name not in models:
            known = f" {hint(name, models)}" if models else ""
            raise UserError(
                f"stage {stages[0]!r} uses the model {name!r}, and none is given.{known} "
                f"Give one: --model {'' if name == 'default' else name + '='}openai:NAME, --replay FOLDER, or `models:` in the file"
            )


def parse_model(text: str, base_url: str | None) -> tuple[str, Model]:
    """`[NAME=]BACKEND:MODEL` as the stages' name for it and the model."""
    from archon import registry
    from archon.errors import UserError

    name, _, rest = text.partition("=") if "=" in text.split(":", 1)[0] else ("default", "", text)
    backend, colon, label = rest.partition(":")
    known = backend in registry.names("backend")
    short = registry.find("backend", backend).short if known else "model"
    if colon and label and not short:
        raise UserError(f"--model {text!r}: {backend} is one model, and nothing stands after its colon")
    if not colon or (short and not label):
        raise UserError(
            f"--model {text!r} should look like BACKEND:MODEL, such as openai:gpt-4o-mini (backends: {', '.join(registry.names('backend'))})"
        )
    from archon.config.build import Builder
    from archon.config.source import Source

    fields: dict[str, Any] = {short: label} if short else {}
    if base_url is not None and backend == "openai":
        fields["base_url"] = base_url
    builder = Builder(Source(None, f"--model {text}"))
    built: Any = builder.named("backend", backend, fields, ())
    builder.check()
    return name or "default", built


def with_samples(pipeline: Pipeline, samples: int) -> Pipeline:
    """The pipeline with this `n` on its only source. Raises UserError where that is ambiguous."""
    from archon.errors import UserError
    from archon.pipeline import Node, Pipeline
    from archon.stage import Stage

    sources = [
        n
        for n in pipeline.nodes
        if isinstance(n.stage, Stage) and not n.stage.takes and "n" in type(n.stage).model_fields
    ]
    if len(sources) != 1:
        names = ", ".join(n.name for n in sources) or "none"
        raise UserError(
            f"--samples sets the `n` of a pipeline's only source, and this one's are: {names}. "
            "Say which with --set STAGE.n=N"
        )
    nodes = [
        Node(n.name, _changed(n.stage, "n", samples, "--samples"), n.after)
        if n.name == sources[0].name
        else n
        for n in pipeline.nodes
    ]
    return Pipeline(nodes)


def with_setting(pipeline: Pipeline, setting: str) -> Pipeline:
    """The pipeline with one field of one stage changed. Raises UserError."""
    from archon.config.source import read_text
    from archon.errors import ConfigError, UserError
    from archon.pipeline import Node, Pipeline
    from archon.suggest import hint

    path, equals, text = setting.partition("=")
    stage, dot, field = path.rpartition(".")
    if not (equals and dot and stage and field):
        raise UserError(
            f"--set {setting!r} should look like STAGE.FIELD=VALUE, such as sample.temperature=0.8"
        )
    try:
        value = read_text(f"value: {text}").data["value"]
    except ConfigError:
        raise UserError(f"--set {setting!r}: {text!r} is no value") from None
    names = [n.name for n in pipeline.nodes]
    head, slash, rest = stage.partition("/")
    if head not in names:
        raise UserError(f"--set {setting!r}: there is no stage {head!r}. {hint(head, names)}")
    nodes = []
    for node in pipeline.nodes:
        if node.name == head:
            if slash and isinstance(node.stage, Pipeline):
                node = node._replace(stage=with_setting(node.stage, f"{rest}.{field}={text}"))
            elif slash:
                raise UserError(
                    f"--set {setting!r}: {head!r} is a stage, with no {rest!r} in it. Say --set {head}.{field}=..."
                )
            else:
                node = Node(node.name, _changed(node.stage, field, value, f"--set {setting}"), node.after)
        nodes.append(node)
    return Pipeline(nodes)


def _changed(stage: Any, field: str, value: Any, option: str) -> Any:
    from archon.config.build import Builder, fields_of
    from archon.config.source import Source
    from archon.errors import UserError

    if not hasattr(type(stage), "model_fields"):
        raise UserError(
            f"{option}: that is a pipeline, not a stage; name the stage inside it: PIPELINE/STAGE.FIELD"
        )
    builder = Builder(Source(None, option))
    built = builder.value(type(stage), {**fields_of(stage), field: value}, ())
    builder.check()
    return built


def with_limits(budget: Budget, limits: tuple[str, ...], option: str) -> Budget:
    """A budget with these limits. Raises UserError."""
    if not limits:
        return budget
    from decimal import Decimal

    from archon.budget import Budget
    from archon.config.build import Builder, fields_of
    from archon.config.source import Source
    from archon.errors import UserError

    fields = fields_of(budget)
    for limit in limits:
        name, equals, amount = limit.partition("=")
        if not equals:
            raise UserError(f"{option} {limit!r} should look like WHAT=AMOUNT, such as usd=0.50")
        try:
            number = Decimal(amount.strip())
            fields[name] = int(number) if number == number.to_integral_value() else number
        except (ArithmeticError, ValueError):
            raise UserError(f"{option} {limit!r}: {amount!r} is no number") from None
    builder = Builder(Source(None, option))
    built = builder.value(Budget, fields, ())
    builder.check()
    assert built is not None
    return built


def describe_config(config: Config) -> dict[str, Any]:
    """The effective configuration as plain data, for the run's folder and for --dry-run."""
    from archon.config import plain

    return plain(config)
