"""What a run will cost at most, before anything is spent: calls, tokens, money, FLOPs.

Calls come from the graph, prompts from the problems (a token a byte, as for the reservation that holds a
budget), replies from the limit on new tokens. What is stored already costs nothing again, and calls that
are tried again cost more; the estimate knows of neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from archon.backends.base import Request, Sampling
from archon.calling import Caller
from archon.component import Value
from archon.graph import Graph
from archon.pipeline import Pipeline
from archon.problem import Message, Problem
from archon.session import Session
from archon.stage import Count, Stage
from archon.usage import ZERO_USD, dollars


class Line(NamedTuple):
    """One stage's share, over all problems."""

    stage: str
    model: str
    calls: Count
    """Per problem."""
    prompt_tokens: int | None
    """In all, at most; None where the calls are unbounded, or ask for more than the problem."""
    completion_tokens: int | None
    """In all, at most."""
    usd: Decimal | None
    """In all, at most; None where there is no price or no bound."""
    price: str
    """Where the price comes from."""
    flops: int | None = None
    """In all, at most; None where the model's size is unknown, or there is no bound."""


def estimate(graph: Graph, problems: Sequence[Problem], session: Session) -> list[Line]:
    """One line per stage and model that it calls, with all calls of the stage; what it solves with is its own."""
    lines = []
    plans = graph.plan()
    for place in graph.places.values():
        calls = plans[place.path].calls
        inner = (model for one in graph.inner.get(place.path, {}).values() for model in one.models)
        for name in dict.fromkeys((*place.stage.models, *inner)):
            caller = session.caller(name)
            lines.append(_line(place.path, place.stage, caller, calls, problems, session))
    return lines


def _line(
    path: str, stage: Stage, caller: Caller, calls: Count, problems: Sequence[Problem], session: Session
) -> Line:
    limit = reply_limit(stage, caller, session)
    prompt = None
    bounds: list[int] = []
    if stage.asks_the_problem:  # what is asked about candidates, or of a stage's own, is not known yet
        bounds = [asked(problem, stage, caller).prompt_bound for problem in problems]
        prompt = sum(bounds)
    prompt_tokens = None if calls.high is None or prompt is None else prompt * calls.high
    completion = None if calls.high is None or limit is None else len(problems) * calls.high * limit
    usd = flops = None
    if caller.price is not None and prompt_tokens is not None and completion is not None:
        assert calls.high is not None
        usd = caller.price.cost(prompt_tokens, 0, completion, len(problems) * calls.high)
    if caller.flops is not None and prompt_tokens is not None and completion is not None:
        assert calls.high is not None and limit is not None
        flops = calls.high * sum(caller.flops.of(bound, 0, limit) for bound in bounds)
    return Line(path, caller.name, calls, prompt_tokens, completion, usd, caller.price_source, flops)


def reply_limit(stage: Stage, caller: Caller, session: Session) -> int | None:
    """The most tokens of a reply that some part of the stage allows; None where one has no limit."""
    can = caller.backend.capabilities
    if not can.completes:
        return can.max_tokens or 0
    given: list[Any] = []
    for part in _parts(stage):
        own = getattr(part, "sampling", None)
        if isinstance(own, Sampling):
            given.append(session.sampling(caller.name, own).max_tokens)
        elif "max_tokens" in type(part).model_fields:
            given.append(dict(part)["max_tokens"])
        elif isinstance(most := getattr(part, "reply_tokens", None), int):  # the steps of a search
            given.append(most)
    standard = session.sampling(caller.name, None).max_tokens or can.max_tokens
    limits: list[int | None] = [standard if limit is None else limit for limit in given] or [standard]
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def _parts(value: Any) -> Iterable[Value]:
    """A value, and those in its fields."""
    if isinstance(value, Value):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, Pipeline):
        value = [node.stage for node in value.nodes]
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _parts(one)


def asked(problem: Problem, stage: Stage, caller: Caller) -> Request:
    """What a source asks: the problem, after the stage's own system message (as Run.sample does)."""
    system = getattr(stage, "system", None)
    if caller.config.continues_text and problem.prompt is not None:
        return Request(prompt=problem.prompt if system is None else f"{system}\n\n{problem.prompt}")
    before = () if system is None else (Message(role="system", content=system),)
    return Request(messages=(*before, *problem.messages))


def table(lines: Sequence[Line], problems: int) -> str:
    """The estimate as text."""
    if not lines:
        return "No stage calls a model."
    rows: list[tuple[str, ...]] = [
        ("stage", "model", "calls per problem", "prompt tokens", "reply tokens", "dollars", "price")
    ]
    for line in lines:
        rows.append(
            (
                line.stage,
                line.model,
                str(line.calls),
                "unbounded" if line.prompt_tokens is None else f"at most {line.prompt_tokens:,}",
                "unbounded" if line.completion_tokens is None else f"at most {line.completion_tokens:,}",
                "unknown" if line.usd is None else f"at most {dollars(line.usd)}",
                line.price,
            )
        )
    if any(line.flops is not None for line in lines):
        shown = ("unknown" if x.flops is None else f"at most {x.flops:.3g}" for x in lines)
        rows = [(*row, cell) for row, cell in zip(rows, ("FLOPs", *shown), strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    known = [line.usd for line in lines if line.usd is not None]
    whole = (
        f"{dollars(sum(known, ZERO_USD))} at most"
        if len(known) == len(lines)
        else "unknown, as some of it has no price or no bound"
    )
    note = "Stored samples are not paid for again; retries come on top."
    return f"{text}\n{problems:,} problems, in all: {whole}. {note}"
