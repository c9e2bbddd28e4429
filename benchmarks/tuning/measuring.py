"""One engine at work: started, warmed up, and asked round by round; what is measured is only here.

A round is a closed loop: so many requests are in flight, and when one is done the next is sent. Seconds go from the
first request to the last reply, and a request's latency from when it is sent to its last token, as the client sees
both. Nothing is stored, so nothing is replayed: every figure is of calls that were made for it. Cost: the requests.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from archon.backends.base import Model, Starts
from archon.backends.nano.backend import Nano
from archon.backends.vllm.config import VLLM
from archon.benchmarks.tuning.load import Asked
from archon.engine import Engine, EngineFigures
from archon.errors import AllCandidatesFailed, ArchonError, FatalError, UserError
from archon.session import Session
from archon.tasks import together
from archon.usage import NOTHING, Usage

_MOST_REASONS = 3


def clock() -> float:
    """Seconds by the running loop's clock."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Round:
    """What was measured in a round."""

    seconds: float
    requests: int
    """Those that were answered."""
    tokens: int
    """Completion tokens of the engine's model."""
    prompt_tokens: int
    latencies: tuple[float, ...]
    """Seconds of each request; of one that was cut off, those until then."""
    failed: tuple[str, ...] = ()
    """Why requests failed, the first few."""
    failures: int = 0
    cut: bool = False
    """Whether it took too long, and was cut off."""
    first_token: float | None = None
    """Mean seconds to a first token, by the engine's own count; None where it does not tell."""
    first_tokens: int = 0
    preempted: int = 0
    """Times that the engine took a sequence out of its batch for want of memory."""
    cached: int = 0
    """Prompt tokens that the prefix cache had."""

    def rate(self, objective: str) -> float:
        """Tokens or requests per second."""
        return (self.tokens if objective == "throughput" else self.requests) / self.seconds

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {**asdict(self), "latencies": [round(one, 6) for one in self.latencies]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Round:
        """The inverse."""
        return cls(**{**data, "latencies": tuple(data["latencies"]), "failed": tuple(data["failed"])})


def throughput(rounds: Iterable[Round], objective: str) -> float:
    """Over several rounds: everything that was done by all the seconds. 0 where there is none."""
    known = list(rounds)
    done = sum(one.tokens if objective == "throughput" else one.requests for one in known)
    seconds = sum(one.seconds for one in known)
    return done / seconds if seconds else 0.0


def percentile(values: Iterable[float], percent: float) -> float:
    """The least value that so many percent of the values are no more than; NaN where there are none."""
    known = sorted(values)
    if not known:
        return math.nan
    return known[max(0, math.ceil(len(known) * percent / 100 - 1e-9) - 1)]


def latencies(rounds: Iterable[Round]) -> list[float]:
    """Of all requests."""
    return [one for found in rounds for one in found.latencies]


def first_token(rounds: Iterable[Round]) -> float | None:
    """Mean seconds to the first token over all that tell."""
    known = [(one.first_token, one.first_tokens) for one in rounds if one.first_token is not None]
    count = sum(n for _, n in known)
    return sum(mean * n for mean, n in known) / count if count else None


def ends_with_us(model: Model) -> bool:
    """Whether its engine, with all that it remembers, ends when we are done with it."""
    return isinstance(model, Nano) or (isinstance(model, VLLM) and model.url is None)


def prepared(model: Model, in_flight: int, mark: str) -> Model:
    """The model as it is measured: its server is nobody else's and is not kept, and the client asks with all that is
    in flight from the start. Raises UserError for an engine in our own process."""
    changes: dict[str, Any] = {}
    if isinstance(model, VLLM) and model.url is None:
        if model.in_process:
            raise UserError(
                "an engine in our own process (`in_process`) does not end before we do, so no second one can be tried. "
                "Tune it on a server, without `in_process`: the options are the same"
            )
        changes = {"keep": 0.0, "environment": {**model.environment, "ARCHON_TUNING": mark}}
    if "concurrency" not in model.given():
        changes["concurrency"] = max(1, min(in_flight, model.max_concurrency))
    return model.model_copy(update=changes)


@dataclass
class Running:
    """An engine that runs while this is open. An asynchronous context manager; entering it waits for the start.

    Raises FatalError where it does not start, UserErrors where it cannot be asked at all.
    """

    model: Model
    others: Mapping[str, Model] = field(default_factory=dict)
    start_seconds: float = 0.0

    async def __aenter__(self) -> Self:
        began = clock()
        self.session = Session(models={**self.others, "default": self.model})
        await self.session.__aenter__()
        try:
            self.model.check()
            backend = self.session.caller("default").backend
            if isinstance(backend, Starts):
                await backend.ready()
        except BaseException:
            await self.session.__aexit__(None, None, None)
            raise
        self.start_seconds = clock() - began
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.session.__aexit__(*exc)

    async def figures(self) -> EngineFigures | None:
        """What the engine tells of its work so far; None where it tells nothing."""
        backend = self.session.caller("default").backend
        return await backend.figures() if isinstance(backend, Engine) else None

    async def round(self, asked: Sequence[Asked], in_flight: int, cap: float | None = None) -> Round:
        """Ask everything. After `cap` seconds it is cut off. Raises FatalError where the engine is gone, UserErrors
        where the pipeline cannot be asked at all."""
        waiting = iter(asked)
        sent: dict[str, float] = {}
        took: list[float] = []
        reasons: list[str] = []
        usage, answered, cut = NOTHING, 0, False

        def count(known: Mapping[str, Usage]) -> None:
            nonlocal usage
            usage += known.get("default", NOTHING)

        async def loop() -> None:
            nonlocal answered
            for one in waiting:
                sent[one.problem.id] = clock()
                try:
                    outcome = await self.session.solve(one.graph, one.problem)
                    if outcome.failures:
                        reasons.append(str(outcome.failures[0].error))
                    answered += 1
                    count(outcome.by_model)
                except (FatalError, UserError):
                    raise
                except AllCandidatesFailed as error:
                    reasons.append(str(error.causes[0]) if error.causes else str(error))
                except ArchonError as error:
                    reasons.append(f"{type(error).__name__}: {error}")
                took.append(clock() - sent.pop(one.problem.id))

        before = await self.figures()
        began = clock()
        try:
            async with asyncio.timeout(cap):
                await together(loop() for _ in range(min(in_flight, len(asked))))
        except TimeoutError:
            cut = True
        seconds = clock() - began
        took += [began + seconds - start for start in sent.values()]
        after = await self.figures()
        since = None if after is None else after - (before or EngineFigures())
        return Round(
            seconds=seconds,
            requests=answered,
            tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
            latencies=tuple(took),
            failed=tuple(dict.fromkeys(reasons))[:_MOST_REASONS],
            failures=len(reasons),
            cut=cut,
            first_token=None if since is None else since.time_to_first_token,
            first_tokens=0 if since is None else since.first_tokens,
            preempted=0 if since is None else since.preempted,
            cached=usage.cached_tokens,
        )
