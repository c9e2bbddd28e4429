"""What a configuration costs a problem at most, and what its models cannot do: decided before anything is spent.

Calls are bounded by the graph (`Graph.plan`), replies by their limit on new tokens, prompts by the problems (a token a
byte, as a budget reserves them). Only what stages ask that ask the problem alone (`sample`) is known in advance: what
others ask holds candidates, plans or beginnings of replies, so their prompts have no bound, unless the stage has a
budget of its own (`fuse: {budget: {tokens: 4000}}`), which holds when it runs, or the problem has. Calls that failed
and are made again come on top of the bound, and are within budgets all the same. Seconds depend on the server and on
what else it does: nobody can decide them in advance, so there is no limit on them here, and `budget: {problem:
{seconds: ...}}` ends a problem in time. What is expected, rather than possible, is in expected.py. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from archon import abilities
from archon.backends.base import Request, Sampling
from archon.budget import Budget
from archon.calling import Caller
from archon.component import Value
from archon.errors import UserError
from archon.estimate import asked, reply_limit
from archon.graph import Graph
from archon.problem import Message, Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.stepping.stage import Stepping
from archon.strategies.verify import Verify
from archon.usage import ZERO_USD, dollars
from archon.verifiers.reward import Reward

_Count = Annotated[int, Field(ge=0)]
_PROBE: Final = (Message(role="user", content="?"),)


class Limits(Value):
    """The most that a configuration may cost a problem. What cannot be bounded is refused where it is limited."""

    calls: _Count | None = None
    """Model calls, those left out that failed and are made again."""
    prompt_tokens: _Count | None = None
    """Tokens in."""
    completion_tokens: _Count | None = None
    """Tokens out."""
    tokens: _Count | None = None
    """Tokens in and out."""
    usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    """Dollars. A model without a price has no bound."""
    flops: Annotated[int | float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Floating-point operations. A model of unknown size has no bound."""

    @property
    def need_models(self) -> bool:
        """Whether more is limited than calls."""
        return any(getattr(self, name) is not None for name in DIMENSIONS[1:])


DIMENSIONS: Final = ("calls", "prompt_tokens", "completion_tokens", "tokens", "usd", "flops")
"""What is bounded, limited and expected, in this order."""
_WORDS: Final = {
    "calls": "calls",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "reply tokens",
    "tokens": "tokens",
    "usd": "dollars",
    "flops": "FLOPs",
}


class Bound(NamedTuple):
    """The most that something costs a problem; None where nobody can say."""

    calls: int | None = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    tokens: int | None = 0
    usd: Decimal | None = ZERO_USD
    flops: int | float | None = 0
    why: str = ""
    """Of the first that nobody can say: why."""

    def plus(self, other: Bound) -> Bound:
        """Both together."""
        sums = {d: _plus(getattr(self, d), getattr(other, d)) for d in DIMENSIONS}
        return Bound(**sums, why=self.why or other.why)

    def within(self, budget: Budget) -> Bound:
        """The same under a budget that holds when it runs."""
        if budget.counts == "fresh":  # what is replayed does not count there, and does here
            return self
        limits: dict[str, Any] = {"calls": budget.requests, **{d: getattr(budget, d) for d in DIMENSIONS[1:]}}
        known = {d: [x for x in (getattr(self, d), limits[d]) if x is not None] for d in DIMENSIONS}
        if limits["tokens"] is not None:
            known["prompt_tokens"].append(limits["tokens"])
            known["completion_tokens"].append(limits["tokens"])
        held: dict[str, Any] = {d: min(values) if values else None for d, values in known.items()}
        return self._replace(**held)


UNKNOWN: Final = Bound(None, None, None, None, None, None)


def bounds(graph: Graph, problems: Sequence[Problem], session: Session | None) -> dict[str, Bound]:
    """The bound of every stage, by its path: what it costs the dearest of the problems. Without a session, which has
    the models, only calls are bounded; without problems, no prompt is."""
    plans = graph.plan()
    hardest = largest(problems)
    found = {}
    for place in graph.places.values():
        calls = plans[place.path].calls.high
        bound = _bound(graph, place.path, place.stage, calls, hardest, session)
        found[place.path] = bound if place.stage.budget is None else bound.within(place.stage.budget)
    return found


def whole(parts: Iterable[Bound]) -> Bound:
    """All stages together."""
    total = Bound()
    for part in parts:
        total = total.plus(part)
    return total


def exceeds(bound: Bound, limits: Limits | Budget) -> str | None:
    """Why this is over the limits; None where it is not. Under `Limits`, what has no bound is; under a budget it is
    not, as the budget holds when it runs."""
    for name in DIMENSIONS:
        limit = getattr(limits, "requests" if name == "calls" and isinstance(limits, Budget) else name)
        most = getattr(bound, name)
        if limit is None or (most is not None and most <= limit):
            continue
        allowed = f"at most {_amount(name, limit)} are allowed per problem"
        if most is not None:
            return f"it may need {_amount(name, most)}, and {allowed}"
        if isinstance(limits, Limits):
            because = f" ({bound.why})" if bound.why else ""
            return f"nobody can say how many {_WORDS[name]} it needs at most{because}, and {allowed}"
    return None


def lacking(graph: Graph, session: Session) -> str | None:
    """What the session's models cannot do of what the stages ask of them, as far as that can be known before; None
    where nothing is: models that are not there, that lack their key, that write no replies or score none, that take no
    log-probabilities or sampling parameters."""
    try:
        session.check(graph)
        for stage in graph.stages:
            _check(stage, session)
    except UserError as error:
        return str(error)
    return None


def _check(stage: Stage, session: Session) -> None:
    verifier = stage.verifier if isinstance(stage, Verify) else None
    if isinstance(verifier, Reward):
        abilities.scorer(verifier.model, session.caller(verifier.model).backend, finished=True)
    if isinstance(stage, Stepping):
        if stage.reward is not None:
            abilities.scorer(stage.reward, session.caller(stage.reward).backend, finished=False)
        _probe(stage.model, Sampling(), session, prefix="a beginning")
    sampling, model = getattr(stage, "sampling", None), getattr(stage, "model", None)
    if isinstance(sampling, Sampling) and isinstance(model, str):
        _probe(model, sampling, session)


def _probe(model: str, sampling: Sampling, session: Session, prefix: str = "") -> None:
    asking = Request(messages=_PROBE, prefix=prefix, sampling=session.sampling(model, sampling))
    abilities.check(model, session.caller(model).backend, asking)


# --- bounds ----------------------------------------------------------------------------------------


def largest(problems: Sequence[Problem]) -> list[Problem]:
    """The problems than which none is longer both as a chat and as raw text: the dearest is among them, whoever is
    asked. Of equally long ones the first."""
    sizes: dict[tuple[int, int], Problem] = {}
    for problem in problems:
        raw = 0 if problem.prompt is None else Request(prompt=problem.prompt).prompt_bound
        sizes.setdefault((Request(messages=problem.messages).prompt_bound, raw), problem)
    return [
        problem
        for size, problem in sizes.items()
        if not any(other != size and other[0] >= size[0] and other[1] >= size[1] for other in sizes)
    ]


def _bound(
    graph: Graph,
    path: str,
    stage: Stage,
    calls: int | None,
    problems: Sequence[Problem],
    session: Session | None,
) -> Bound:
    if calls == 0:
        return Bound()
    if calls is None:
        return UNKNOWN._replace(why=f"{path!r} makes any number of calls")
    if session is None:
        return UNKNOWN._replace(calls=calls, why="its models are not known")
    inner = (one for held in graph.inner.get(path, {}).values() for one in held.stages)
    models = dict.fromkeys((*stage.models, *(model for one in inner for model in one.models)))
    each = [_call(path, stage, session.caller(name), problems, session) for name in models]
    dearest = {d: calls * most if (most := _most(each, d)) is not None else None for d in DIMENSIONS[1:]}
    return Bound(calls=calls, **dearest, why=next((b.why for b in each if b.why), ""))


def _most(each: Iterable[Bound], dimension: str) -> Any:
    """The dearest in a dimension; None where one has no bound."""
    values = [getattr(bound, dimension) for bound in each]
    return None if None in values else max(values, default=0)


def _plus(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other


def _call(path: str, stage: Stage, caller: Caller, problems: Sequence[Problem], session: Session) -> Bound:
    """One call at most: of the dearest problem."""
    reply = reply_limit(stage, caller, session)
    if reply is None:
        return UNKNOWN._replace(
            calls=1, why=f"the replies of model {caller.name!r} in {path!r} have no limit"
        )
    if not stage.asks_the_problem or not problems:
        why = "no problems are given" if stage.asks_the_problem else f"what {path!r} asks is not known before"
        return UNKNOWN._replace(calls=1, completion_tokens=reply, why=why)
    prompts = [asked(problem, stage, caller).prompt_bound for problem in problems]
    prompt = max(prompts)
    usd = None if caller.price is None else caller.price.cost(prompt, 0, reply)
    flops = None if caller.flops is None else caller.flops.of(prompt, 0, reply)
    lacks = [what for what, known in (("no price", usd), ("no known size", flops)) if known is None]
    why = f"model {caller.name!r} has {' and '.join(lacks)}" if lacks else ""
    return Bound(1, prompt, reply, prompt + reply, usd, flops, why)


def _amount(name: str, value: Any) -> str:
    if name == "usd":
        return f"{dollars(Decimal(value))}".replace("$", "", 1) + " dollars"
    if name == "flops":
        return f"{value:.3g} FLOPs"
    return f"{value:,} {_WORDS[name]}"
