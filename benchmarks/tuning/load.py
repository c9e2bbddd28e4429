"""The requests of a round: prompts of a length, or problems of a benchmark; the same for every configuration.

No two rounds of a start share a request, so that a prefix cache which one round filled does not help the next. An
engine that outlives a trial (one that runs already, behind a URL) would remember the requests of the configuration
before: there every request begins with a tag of its measurement. Prompts are plain words at random, counted out by how
many tokens the first engine that answers says two of them have. Cost: two requests, once.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from archon.backends.base import Model
from archon.benchmarks.searching.setting_up import read_benchmark
from archon.benchmarks.tuning.settings import Settings, Span, Workload
from archon.cli.options import read_pipeline
from archon.config import Config
from archon.errors import UserError
from archon.graph import Graph
from archon.pipeline import Pipeline
from archon.problem import Message, Problem
from archon.search.racing import shuffled
from archon.session import Session
from archon.strategies.sample import Sample

WARM_UP: Final = -1
"""The round of the requests that do not count."""
_PROBES: Final = (8, 40)
"""Words of the prompts that are counted."""
_GUESS: Final = (8.0, 1.33)
"""Where a server does not say how many tokens a prompt has: those of the chat's frame, and of a word."""
_WORDS: Final = (
    "able across after animal answer apple autumn bank basket before bird blue boat bread bridge bring brown build "
    "calm carry castle chair change child circle clear close cloud coast cold colour copper corner count country "
    "cover cross dance dark deep desert dinner door draw dream drive early earth engine evening every farm field "
    "find fire fish floor flower follow forest friend garden gather gentle glass gold grass green ground group hand "
    "harbour harvest heavy hill history hold honey horse house island journey kitchen ladder lake large leaf learn "
    "letter light little long lunch machine market marble measure meadow metal middle mirror month morning mountain "
    "music narrow near needle night north number ocean office open orange order other paper part path people pepper "
    "picture place plain plant point pocket quick quiet rain reach ready record river road roof root round salt sand "
    "school season second shadow shape sharp sheep shore short silver simple sister small smooth snow soft song south "
    "space spring square station steel stone storm story strange stream street strong sugar summer table tall thread "
    "through tower town travel tree valley village voice wagon walk wall water weather west wheel wide wind window "
    "winter wood wool word work yellow young"
).split()


class Asked(NamedTuple):
    """One request."""

    problem: Problem
    graph: Graph


class Load:
    """What is asked, round by round."""

    models: Mapping[str, Model]
    """What else is asked, by name."""

    @abstractmethod
    def round(self, number: int, tag: str = "", count: int | None = None) -> list[Asked]:
        """The requests of a round. `tag` begins each of them; `count` of them where it is not the usual number."""
        raise NotImplementedError

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the figures depend on."""
        raise NotImplementedError

    async def measure(self, session: Session) -> tuple[float, ...]:
        """What has to be asked of an engine before there are requests."""
        return ()

    def counted(self, measured: Sequence[float]) -> None:
        """Take in what `measure` found, here or in an earlier process."""

    @property
    def ready(self) -> bool:
        """Whether there are requests already."""
        return True

    @abstractmethod
    def config(self, model: Model) -> Config:
        """A configuration with this model, for `archon run`."""
        raise NotImplementedError


def load_of(settings: Settings, others: Mapping[str, Model], *, seed: int, extra: Mapping[str, Any]) -> Load:
    """The load that a file describes. `extra` is sent with prompts. Raises UserErrors."""
    if settings.workload.benchmark is None:
        return Prompts(settings.workload, others, seed=seed, extra=extra)
    return Problems(settings, others, seed=seed)


class Prompts(Load):
    """Prompts at random, of given lengths."""

    def __init__(
        self, workload: Workload, others: Mapping[str, Model], *, seed: int, extra: Mapping[str, Any]
    ) -> None:
        self.models = dict(others)
        self._workload = workload
        self._seed = seed
        self._extra = dict(extra)
        self._measured: tuple[float, float] | None = None
        self._graphs: dict[int, Graph] = {}

    @property
    def ready(self) -> bool:
        """Once it is known how many words so many tokens are."""
        return self._measured is not None

    async def measure(self, session: Session) -> tuple[float, float]:
        """Tokens of a chat's frame, and of a word; a guess where the server does not count."""
        counts = []
        for words in _PROBES:
            problem = self._problem(
                np.random.default_rng([self._seed, 2, words]), words, f"probe-{words}", ""
            )
            outcome = await session.solve(self._graph(1), problem)
            usage = outcome.by_model.get("default")
            counts.append(0 if usage is None or usage.estimated else usage.prompt_tokens)
        slope = (counts[1] - counts[0]) / (_PROBES[1] - _PROBES[0])
        return (max(0.0, counts[0] - slope * _PROBES[0]), slope) if slope > 0 else _GUESS

    def counted(self, measured: Sequence[float]) -> None:
        """Take in the tokens of a frame and of a word."""
        frame, word = measured
        self._measured = frame, word

    def round(self, number: int, tag: str = "", count: int | None = None) -> list[Asked]:
        """Prompts at random, by seed and round."""
        assert self._measured is not None, "`counted` comes first"
        frame, word = self._measured
        found = []
        for place in range(self._workload.requests if count is None else count):
            rng = np.random.default_rng([self._seed, 0 if number == WARM_UP else 1, abs(number), place])
            tokens, limit = _drawn(self._workload.prompt_tokens, rng), _drawn(self._workload.max_tokens, rng)
            words = max(1, round((tokens - frame) / word))
            found.append(Asked(self._problem(rng, words, f"{number}-{place}-{tag}", tag), self._graph(limit)))
        return found

    def facts(self) -> dict[str, Any]:
        """The workload as it is written."""
        asked = self._workload.model_dump(mode="json", exclude={"concurrency", "benchmark", "pipeline"})
        return {**asked, "extra": self._extra}

    def config(self, model: Model) -> Config:
        """With a pipeline that asks for as many samples."""
        longest = self._workload.max_tokens
        limit = longest if isinstance(longest, int) else longest[1]
        return Config(
            models={"default": model},
            pipeline=Pipeline([Sample(n=self._workload.samples, max_tokens=limit)]),
        )

    def _problem(self, rng: np.random.Generator, words: int, name: str, tag: str) -> Problem:
        text = " ".join(_WORDS[int(i)] for i in rng.integers(len(_WORDS), size=words))
        return Problem.ask(f"{tag} {text}" if tag else text, id=name)

    def _graph(self, limit: int) -> Graph:
        if limit not in self._graphs:
            stage = Sample(n=self._workload.samples, max_tokens=limit, extra=self._extra)
            self._graphs[limit] = Pipeline([stage]).graph()
        return self._graphs[limit]


class Problems(Load):
    """Problems of a benchmark, through a pipeline."""

    def __init__(self, settings: Settings, others: Mapping[str, Model], *, seed: int) -> None:
        workload = settings.workload
        self._workload = workload
        self._seed = seed
        self._config = (
            Config(pipeline=Pipeline([Sample()]))
            if workload.pipeline is None
            else read_pipeline(workload.pipeline)
        )
        self._graph = self._config.pipeline.graph()
        self.models = {
            **{name: one for name, one in self._config.models.items() if name != "default"},
            **others,
        }
        missing = [name for name in self._graph.models if name not in self.models and name != "default"]
        if missing:
            raise UserError(
                f"the pipeline names model {missing[0]!r}, which is not defined. Define it under `models:`; "
                "the engine that is tuned is `default`"
            )
        if "default" not in self._graph.models:
            raise UserError(
                f"the pipeline does not ask `default`, the engine that is tuned, but {', '.join(self._graph.models)}. "
                "Name its model `default`"
            )
        self._dataset = read_benchmark(workload.benchmark, None).load()
        if self._dataset.prepare is not None:
            raise UserError(
                f"problems of {self._dataset.name!r} take work before they can be asked, which would be timed. "
                "Take another benchmark, or prompts"
            )
        problems = {problem.id: problem for problem in self._dataset.problems}
        self._problems = [problems[id] for id in shuffled(problems, seed)]
        self._warm = min(len(self._problems) // 4, max(1, workload.warm_up or workload.concurrency))
        self._rounds = (len(self._problems) - self._warm) // workload.requests
        if self._rounds < settings.rounds.count:
            raise UserError(
                f"{settings.rounds.count} rounds of {workload.requests} requests and {self._warm} to warm up are more "
                f"than the {len(self._problems)} problems of {self._dataset.name!r}, and a problem that is asked twice "
                "may be in a cache. Take fewer requests or rounds"
            )

    def round(self, number: int, tag: str = "", count: int | None = None) -> list[Asked]:
        """Problems in an order of the seed's. Rounds repeat, but not those of one start."""
        if number == WARM_UP:
            some = self._problems[: self._warm]
            chosen = [some[i % len(some)] for i in range(self._warm if count is None else count)]
        else:
            start = self._warm + (number % self._rounds) * self._workload.requests
            chosen = self._problems[start : start + self._workload.requests]
        return [
            Asked(_tagged(problem, tag, f"{number}-{place}"), self._graph)
            for place, problem in enumerate(chosen)
        ]

    def facts(self) -> dict[str, Any]:
        """Which problems, and what solves them."""
        digest = hashlib.sha256(repr(self._config.pipeline).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return {
            "benchmark": f"{self._dataset.name} {self._dataset.fingerprint}",
            "pipeline": digest,
            "requests": self._workload.requests,
            "warm_up": self._workload.warm_up,
        }

    def config(self, model: Model) -> Config:
        """With the pipeline, and what it asks beside the engine."""
        return self._config.model_copy(update={"models": {"default": model, **self.models}})


def _drawn(span: Span, rng: np.random.Generator) -> int:
    return span if isinstance(span, int) else int(rng.integers(span[0], span[1] + 1))


def _tagged(problem: Problem, tag: str, place: str) -> Problem:
    """A problem whose first message begins with a tag, under a name of its own."""
    changes: dict[str, Any] = {"id": f"{problem.id}#{place}"}
    if tag and problem.messages:
        first, *rest = problem.messages
        changes["messages"] = (Message(role=first.role, content=f"[{tag}] {first.content}"), *rest)
    return problem.model_copy(update=changes)
