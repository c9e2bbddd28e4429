"""Pipelines in files: a list is a chain, a mapping of named nodes with `after:` is a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archon.config.build import Builder, plain
from archon.config.lines import Path
from archon.config.source import shown
from archon.errors import ConfigError
from archon.pipeline import Node, Pipeline, fresh_name
from archon.stage import Stage


def build_pipeline(builder: Builder, data: Any, path: Path) -> Pipeline | None:
    """A pipeline from plain data; None where something is wrong (and noted in the builder)."""
    before = len(builder.flaws)
    if isinstance(data, list):
        nodes = _chain(builder, data, path)
    elif isinstance(data, Mapping):
        nodes = _named(builder, data, path)
    else:
        builder.flaw(
            path, f"expected a list of stages, or named stages with `after`, and found {shown(data)}"
        )
        return None
    if len(builder.flaws) > before:
        return None
    try:
        return Pipeline(nodes)
    except ConfigError as error:
        for flaw in error.flaws:
            at = (*path, flaw.where) if isinstance(data, Mapping) and flaw.where in data else path
            builder.flaw(at, flaw.what, flaw.hint)
        return None


def _chain(builder: Builder, data: list[Any], path: Path) -> list[Node]:
    nodes: list[Node] = []
    names: set[str] = set()
    for index, item in enumerate(data):
        part = _part(builder, item, (*path, index))
        if part is None:
            continue
        name = fresh_name(part.name if isinstance(part, Stage) else "pipeline", names)
        names.add(name)
        nodes.append(Node(name, part, (nodes[-1].name,) if nodes else ()))
    return nodes


def _named(builder: Builder, data: Mapping[str, Any], path: Path) -> list[Node]:
    nodes: list[Node] = []
    for name, item in data.items():
        here = (*path, name)
        after: Any = ()
        if isinstance(item, Mapping) and "after" in item:
            after = item["after"]
            item = {key: value for key, value in item.items() if key != "after"}
            if isinstance(after, str):
                after = [after]
            if not isinstance(after, list) or not all(isinstance(a, str) for a in after):
                builder.flaw((*here, "after"), f"expected the names of stages, and found {shown(after)}")
                continue
            if not item:
                builder.flaw(here, "expected one stage, as {name: settings}, and found nothing but 'after'")
                continue
        part = _part(builder, item, here)
        if part is not None:
            nodes.append(Node(name, part, tuple(after)))
    return nodes


def _part(builder: Builder, item: Any, path: Path) -> Stage | Pipeline | None:
    if isinstance(item, Mapping) and set(item) == {"pipeline"}:
        return build_pipeline(builder, item["pipeline"], (*path, "pipeline"))
    built = builder.component("stage", item, path)
    assert built is None or isinstance(built, Stage)
    return built


def _plain_part(part: Stage | Pipeline) -> Any:
    return {"pipeline": plain_pipeline(part)} if isinstance(part, Pipeline) else plain(part)


def plain_pipeline(pipeline: Pipeline) -> Any:
    """The inverse of `build_pipeline`: a list where that says everything, else named nodes."""
    names: set[str] = set()
    previous: str | None = None
    chain = []
    for node in pipeline.nodes:
        standard = fresh_name(node.stage.name if isinstance(node.stage, Stage) else "pipeline", names)
        if node.name != standard or node.after != (() if previous is None else (previous,)):
            break
        names.add(node.name)
        previous = node.name
        chain.append(_plain_part(node.stage))
    else:
        return chain
    named: dict[str, Any] = {}
    for node in pipeline.nodes:
        item = _plain_part(node.stage)
        if isinstance(item, str):
            item = {item: {}}  # a table, as TOML would put a bare name before every table, out of order
        if node.after:
            item = {**item, "after": list(node.after)}
        named[node.name] = item
    return named
