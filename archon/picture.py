"""Pictures of a compiled pipeline: for the terminal, as Mermaid, as SVG, as JSON."""

from __future__ import annotations

from functools import reduce
from html import escape
from typing import Any

from archon.graph import Graph, Place
from archon.pipeline import Pipeline
from archon.stage import NONE, Count
from archon.verifier import Verifier

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 240, 54, 60, 24, 16


def total_calls(graph: Graph) -> Count:
    """Model calls per problem, over all stages."""
    calls: Count = reduce(Count.plus, (plan.calls for plan in graph.plan().values()), NONE)
    return calls


def as_json(graph: Graph) -> dict[str, Any]:
    """Stages with their settings, edges, and calls per problem (exact, or bounds; null is unbounded)."""
    plans = graph.plan()
    return {
        "stages": {
            path: {
                "stage": place.stage.name,
                "settings": _settings(place),
                "after": list(place.before),
                "models": list(place.stage.models),
                **({"solves_with": inner} if (inner := _inner(graph, path)) else {}),
            }
            for path, place in graph.places.items()
        },
        "calls": {
            "total": bounds(total_calls(graph)),
            "by_stage": {path: bounds(plan.calls) for path, plan in plans.items()},
        },
        "candidates": {path: bounds(plan.passes) for path, plan in plans.items()},
    }


def _inner(graph: Graph, path: str) -> dict[str, Any]:
    """The pipelines that a stage solves with; their calls are those of one solving."""
    return {field: as_json(inner) for field, inner in graph.inner.get(path, {}).items()}


def terminal(graph: Graph) -> str:
    """One stage per line, in running order, with arrows where lines cross over others. What a stage solves with
    stands under it."""
    return "\n".join([*_rows(graph), "", f"{total_calls(graph)} model calls per problem"])


def _rows(graph: Graph) -> list[str]:
    plans = graph.plan()
    rows = []
    previous: str | None = None
    for path, place in graph.places.items():
        arrow = ""
        if place.before and place.before != (previous,):
            arrow = f"   ← {', '.join(place.before)}"
        elif place.before:
            rows.append("  │")
        elif previous is not None:
            rows.append("")
        calls = plans[path].calls
        shown = f"   [{calls} call{'s' * (calls != (1, 1))}]" if calls != NONE else ""
        rows.append(f"● {path}{_label(place)}{shown}{arrow}")
        for field, inner in graph.inner.get(path, {}).items():
            count = total_calls(inner)
            rows.append(f"    {field}: {count} call{'s' * (count != (1, 1))} each time")
            rows.extend(f"    {row}" if row else "" for row in _rows(inner))
        previous = path
    return rows


def mermaid(graph: Graph) -> str:
    """A Mermaid flow chart."""
    return "\n".join(["flowchart LR", *_chart(graph, "s")])


def _chart(graph: Graph, start: str) -> list[str]:
    """Boxes and edges; what a stage solves with is a chart in a frame, tied to it."""
    ids = {path: f"{start}{i}" for i, path in enumerate(graph.places)}
    lines = []
    for path, place in graph.places.items():
        text = (path + _label(place)).replace('"', "#quot;")
        lines.append(f'  {ids[path]}["{text}"]')
    for path, place in graph.places.items():
        lines.extend(f"  {ids[before]} --> {ids[path]}" for before in place.before)
    for path, inner in graph.inner.items():
        for number, (field, one) in enumerate(inner.items()):
            frame = f"{ids[path]}_{number}"
            text = f"{path}: {field}".replace('"', "#quot;")
            lines += [f'  subgraph {frame}["{text}"]', *_chart(one, f"{frame}_"), "  end"]
            lines.append(f"  {ids[path]} -.- {frame}")
    return lines


def svg(graph: Graph) -> str:
    """A picture in columns: each stage stands one to the right of the last it comes after."""
    columns: dict[str, int] = {}
    for path, place in graph.places.items():
        columns[path] = 1 + max((columns[b] for b in place.before), default=-1)
    by_column: dict[int, list[str]] = {}
    for path, column in columns.items():
        by_column.setdefault(column, []).append(path)
    tallest = max(map(len, by_column.values()))
    spots: dict[str, tuple[float, float]] = {}
    for column, paths in by_column.items():
        top = (tallest - len(paths)) * (_HEIGHT + _GAP_Y) / 2
        for row, path in enumerate(paths):
            spots[path] = (_MARGIN + column * (_WIDTH + _GAP_X), _MARGIN + top + row * (_HEIGHT + _GAP_Y))
    width = 2 * _MARGIN + len(by_column) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + tallest * (_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        'font-family="system-ui, sans-serif" role="img">',
        "<title>pipeline</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>',
        f'<rect width="{width}" height="{height:g}" fill="#fff"/>',
    ]
    for path, place in graph.places.items():
        x, y = spots[path]
        for before in place.before:
            bx, by = spots[before]
            x1, y1, x2, y2 = bx + _WIDTH, by + _HEIGHT / 2, x - 1, y + _HEIGHT / 2
            bend = _GAP_X / 2
            parts.append(
                f'<path d="M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}" '
                'fill="none" stroke="#667" stroke-width="1.5" marker-end="url(#tip)"/>'
            )
    for path, place in graph.places.items():
        x, y = spots[path]
        fill = "#e8f0fe" if place.stage.models else "#f3f4f6"
        label = _short(_label(place).strip(" ()"), 37)
        parts.append(
            f"<g><title>{escape(path)}</title>"  # the whole name, for who points at it
            f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" stroke="#99a"/>'
            f'<text x="{x + 12:g}" y="{y + 22:g}" font-size="14" font-weight="600" fill="#223">'
            f"{escape(_short(path, 28))}</text>"
            f'<text x="{x + 12:g}" y="{y + 41:g}" font-size="11" fill="#556">{escape(label)}</text></g>'
        )
    return "\n".join([*parts, "</svg>"])


def _label(place: Place) -> str:
    """The stage's settings, short."""
    kind = "" if place.path.rsplit("/", 1)[-1].split("-")[0] == place.stage.name else f"{place.stage.name}, "
    settings = ", ".join(f"{k}={v}" for k, v in _settings(place).items())
    text = " ".join((kind + settings).strip(", ").split())
    return f"  ({_short(text, 80)})" if text else ""


def _settings(place: Place) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in place.stage.given().items():
        if isinstance(value, Verifier):
            settings[name] = value.name
        elif isinstance(value, Pipeline):
            settings[name] = " | ".join(node.name for node in value.nodes)
        elif isinstance(value, str | int | float | bool) or value is None:
            settings[name] = value
        else:
            settings[name] = str(value)
    return settings


def bounds(count: Count) -> dict[str, int | None]:
    """A count for JSON; `high` null is unbounded."""
    return {"low": count.low, "high": count.high}


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
