"""A search's figures in words, and in tables on the terminal.

What is shown may come from anywhere: it is plain text, never markup, and no letter of it moves the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from archon.benchmarks.searching.reading import Costs, Figure, plain
from archon.usage import dollars

_SHARES = ("accuracy", "coverage", "pass_at_k")
"""Objectives that are shares of the problems, and shown in percent."""
_BAR = 40


def is_share(objective: str) -> bool:
    """Whether an objective is a share of the problems, and shown in percent."""
    return objective in _SHARES


def unit(objective: str, share: bool) -> str:
    """What stands over its values."""
    return f"{objective}, %" if share else objective


def amount(value: float | None, share: bool) -> str:
    """A value: in percent, or with three decimals."""
    if value is None:
        return "?"
    return f"{100 * value:.1f}" if share else f"{value:.3f}"


def shown(figure: Mapping[str, Any], share: bool) -> str:
    """A figure with its interval."""
    value, low, high = (amount(figure[name], share) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def cell(figure: Figure, share: bool) -> str:
    """The same, and nothing where it is over no problem."""
    return shown(figure.model_dump(), share) if figure.problems else ""


def difference(value: float, low: float | None, high: float | None, share: bool) -> str:
    """A difference with its interval, signed."""

    def signed(one: float | None) -> str:
        if one is None:
            return "?"
        return f"{100 * one:+.1f}" if share else f"{one:+.3f}"

    return f"{signed(value)}{' points' * share} [{signed(low)}, {signed(high)}]"


def costs(cost: Costs) -> str:
    """What a problem costs."""
    parts = [f"{cost.tokens:,.0f} tokens", f"{cost.requests:,.1f} calls", money(cost.usd)]
    if cost.flops:
        parts.append(f"{cost.flops:.3g} FLOPs")
    return ", ".join(parts)


def money(usd: float | None) -> str:
    """Dollars, where they are known."""
    return "unpriced" if usd is None else dollars(Decimal(repr(usd)))


def bar(share: float, console: Console) -> str:
    """A share of 1 as a bar."""
    mark = "#" if console.options.ascii_only else "█"
    return mark * round(_BAR * min(1.0, max(0.0, share)))


def heading(console: Console, name: str, about: str = "") -> None:
    """Print the head of a part."""
    console.print()
    head = Text(name, "bold")
    console.print(head + Text(plain(f": {about}"), "dim") if about else head, soft_wrap=True)


def say(console: Console, text: str, style: str = "") -> None:
    """Print a line."""
    console.print(Text(plain(text), style), soft_wrap=True)


def table(*columns: tuple[str, str]) -> Table:
    """A table by the names of its columns, and `right` for those of numbers."""
    made = Table(show_edge=False, pad_edge=False, show_header=any(name for name, _ in columns))
    for name, side in columns:
        made.add_column(Text(plain(name)), justify="right" if side else "left")
    return made


def row(made: Table, *cells: str) -> None:
    """Add a row to a table."""
    made.add_row(*(Text(plain(one)) for one in cells))
