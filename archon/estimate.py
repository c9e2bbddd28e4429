"""What a run will cost, before anything is spent: exact or bounded calls, tokens and money at most.

Calls come from the graph, prompts from the problems (four bytes per token is the estimate; the reservation
that holds a budget uses one), replies at most from the limit on new tokens. What is stored already costs
nothing again; the estimate does not look.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from archon.calling import Caller
from archon.graph import Graph
from archon.problem import Problem
from archon.session import Session
from archon.stage import Count

_BYTES_PER_TOKEN = 4


class Line(NamedTuple):
    """One stage's share, over all problems."""

    stage: str
    model: str
    calls: Count
    """Per problem."""
    prompt_tokens: int | None
    """In all, at most, estimated; None where the calls are unbounded."""
    completion_tokens: int | None
    """In all, at most."""
    usd: Decimal | None
    """In all, at most; None where there is no price or no bound."""
    price: str
    """Where the price comes from."""


def estimate(graph: Graph, problems: Sequence[Problem], session: Session) -> list[Line]:
    """One line per stage that calls a model."""
    lines = []
    plans = graph.plan()
    size = sum(len(m.content.encode("utf-8", "replace")) for p in problems for m in p.messages)
    prompt = size // _BYTES_PER_TOKEN
    for place in graph.places.values():
        calls = plans[place.path].calls
        for name in place.stage.models:
            caller = session.caller(name)
            lines.append(_line(place.path, place.stage, caller, calls, prompt, len(problems), session))
    return lines


def _line(
    path: str, stage: Any, caller: Caller, calls: Count, prompt: int, problems: int, session: Session
) -> Line:
    sampling = session.sampling(caller.name, getattr(stage, "sampling", None))
    limit = sampling.max_tokens or caller.backend.capabilities.max_tokens
    prompt_tokens = None if calls.high is None else prompt * calls.high
    completion = None if calls.high is None or limit is None else problems * calls.high * limit
    usd = None
    if caller.price is not None and prompt_tokens is not None and completion is not None:
        assert calls.high is not None
        usd = caller.price.cost(prompt_tokens, 0, completion, problems * calls.high)
    return Line(path, caller.name, calls, prompt_tokens, completion, usd, caller.price_source)


def table(lines: Sequence[Line], problems: int) -> str:
    """The estimate as text."""
    if not lines:
        return "No stage calls a model."
    rows = [("stage", "model", "calls per problem", "prompt tokens", "reply tokens", "dollars", "price")]
    for line in lines:
        rows.append(
            (
                line.stage,
                line.model,
                str(line.calls),
                "unbounded" if line.prompt_tokens is None else f"about {line.prompt_tokens:,}",
                "unbounded" if line.completion_tokens is None else f"at most {line.completion_tokens:,}",
                "unknown" if line.usd is None else f"at most {line.usd:.4f}",
                line.price,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    known = [line.usd for line in lines if line.usd is not None]
    whole = (
        f"${sum(known):.4f} at most"
        if len(known) == len(lines)
        else "unknown, as some of it has no price or no bound"
    )
    return f"{text}\n{problems:,} problems, in all: {whole}. Stored samples are not paid for again."
