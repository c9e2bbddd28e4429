"""The backend contract: a typed request in, completions out as they finish (DESIGN, contracts).

A backend has one method, `complete`. It takes a `Request` and the indices of the samples wanted, and
yields a `Completion` for each as it finishes; closing the iterator aborts what is outstanding, all the
way to the engine. It raises errors of the tree in archon/errors.py and never returns error text as an
answer. Retries, concurrency limits, budgets, the store and prices are not its business: the caller
does them once for all backends (archon/calling.py).

`archon.testing.BackendCases` is the conformance suite.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from archon.candidate import Finish, Scale, TokenLogprob
from archon.component import Component, Value
from archon.compute import Architecture, Flops, flops_of
from archon.prices import Price
from archon.problem import Message

_SEEDS = 2**31
"""So many seeds every server takes."""


class Sampling(Value):
    """How to sample: every field changes the output, so every field is part of the pool's key."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the server's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling: the smallest set of tokens with this much probability."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Only the k likeliest tokens (not part of OpenAI's own API)."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens at least this likely relative to the likeliest (not part of OpenAI's own API)."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens; the model's own limit where not given. It is what a budget reserves."""
    stop: tuple[str, ...] = ()
    """Stop strings; the reply ends before the first of them."""
    seed: int | None = None
    """Base seed: sample i is drawn with a seed derived from it and i."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Return log-probabilities of the tokens, with this many alternatives each."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Server-specific fields, sent as they are (`extra_body`)."""

    @cached_property
    def content(self) -> dict[str, Any]:
        """What is given, as JSON."""
        return self.model_dump(exclude_defaults=True, mode="json")

    @cached_property
    def first_seed(self) -> int | None:
        """The seed of sample 0."""
        if self.seed is None:
            return None
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % _SEEDS


_DEFAULT = Sampling()


@dataclass(frozen=True)
class Request:
    """What to complete: a chat, or raw text; optionally with the beginning of the reply given.

    `problem` is for accounting and for replays; it is not sent and not part of the key.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    """Raw text to continue instead of `messages`."""
    prefix: str = ""
    """The beginning of the reply, which the model continues."""
    sampling: Sampling = _DEFAULT
    problem: str = ""

    @cached_property
    def content(self) -> dict[str, Any]:
        """Everything that affects the output, as JSON."""
        return {
            "messages": [[m.role, m.content] for m in self.messages] if self.prompt is None else None,
            "prompt": self.prompt,
            "prefix": self.prefix,
            "sampling": self.sampling.content,
        }

    def key(self, identity: Mapping[str, Any]) -> str:
        """The key of this request's pool under a backend's identity (D5)."""
        text = f"[{canonical(identity)}, {self.encoded}]"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def encoded(self) -> str:
        """The one text of everything that affects the output."""
        return canonical(self.content)

    @property
    def turns(self) -> list[dict[str, str]]:
        """The chat as servers and templates take it: raw text as one question, and what is given of the reply last."""
        if self.prompt is not None:
            turns = [{"role": "user", "content": self.prompt}]
        else:
            turns = [{"role": m.role, "content": m.content} for m in self.messages]
        if self.prefix:
            turns.append({"role": "assistant", "content": self.prefix})
        return turns

    @cached_property
    def prompt_bound(self) -> int:
        """An upper bound of the prompt's tokens: its bytes, and room for the chat template."""
        if self.prompt is not None:
            return len(self.prompt.encode("utf-8", "surrogatepass")) + 16
        text = sum(len(m.content.encode("utf-8", "surrogatepass")) + 32 for m in self.messages)
        return text + len(self.prefix.encode("utf-8", "surrogatepass")) + 32

    def seed_of(self, index: int) -> int | None:
        """The seed of sample `index`: distinct per index, the same in every run."""
        start = self.sampling.first_seed
        return None if start is None else (start + index) % _SEEDS

    def joinable(self, indices: Sequence[int]) -> int:
        """How many of the first of these samples one request can draw: it has one seed, and counts up from it."""
        first = self.seed_of(indices[0]) if indices else None
        if first is None:
            return len(indices)
        most = min(len(indices), _SEEDS - first)
        return next((n for n in range(1, most) if indices[n] != indices[0] + n), most)


canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
"""The one text of a JSON value: keys are hashes of it."""


class Tokens(NamedTuple):
    """Tokens of one completion as the server reports them.

    `estimated` says that the server did not report them and they are our estimate. `usd` is the cost
    where the provider reports one.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    usd: float | None = None
    estimated: bool = False


class Completion(NamedTuple):
    """One finished sample."""

    index: int  # type: ignore[assignment]
    """Which sample of the request this is."""
    text: str
    finish: Finish = "stop"
    stop: str | None = None
    """The stop string that ended it, where the server tells."""
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    tokens: Tokens = Tokens()
    requests: int = 1
    """HTTP requests this completion accounts for: 1, or 0 for the others of a request with n > 1."""
    recorded: bool = False
    """Whether it was generated, and paid for, at another time: its usage is recorded, and nothing is spent now."""


@dataclass(frozen=True)
class ScoreRequest:
    """What to score: replies to one chat, each cut into steps.

    `problem` is for accounting; it is not sent and not part of the key.
    """

    messages: tuple[Message, ...]
    """The chat that is replied to."""
    replies: tuple[tuple[str, ...], ...]
    """Each reply's steps, which joined are the reply: a step holds what ends it (a newline). At least one
    step per reply, which may be empty."""
    finished: bool = True
    """Whether the replies are whole; otherwise beginnings, which may go on."""
    problem: str = ""

    def content(self, reply: int) -> dict[str, Any]:
        """Everything that affects the scores of one reply, as JSON."""
        return {
            "messages": [[m.role, m.content] for m in self.messages],
            "steps": list(self.replies[reply]),
            "finished": self.finished,
        }

    @cached_property
    def prompt_bound(self) -> int:
        """An upper bound of the tokens read: every reply with the chat before it, and room for templates."""
        return sum(self._bounds)

    @property
    def _opening(self) -> int:
        """A bound of the tokens before a reply."""
        return sum(len(m.content.encode("utf-8", "surrogatepass")) + 32 for m in self.messages) + 32

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        opening = self._opening
        return tuple(
            opening + sum(len(step.encode("utf-8", "surrogatepass")) + 32 for step in steps)
            for steps in self.replies
        )

    def shares(self, tokens: int) -> list[int]:
        """What each reply has of so many tokens read, by its length and rounded up; its own bound of the bound."""
        return [-(-tokens * bound // self.prompt_bound) for bound in self._bounds]


@dataclass(frozen=True)
class LikelihoodRequest(ScoreRequest):
    """Given text whose probability is asked for: replies, each cut into steps, of which the first may be a beginning.

    A step's log-probability (natural) is the sum of its tokens', each after everything before it: the model's own
    distribution, at temperature 1 and without `top_p` and the like, whatever its samples are drawn with. Where a reply
    is `finished`, the token that ends it counts to its last step. A token that reaches into several steps counts to
    the last of them. An empty step has the log-probability 0.
    """

    prompt: str | None = None
    """Raw text that the replies continue, instead of `messages`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Server-specific fields of the prompt (`chat_template_kwargs`), as samples are asked for with."""

    def content(self, reply: int) -> dict[str, Any]:
        """Everything that affects the log-probabilities of one reply, as JSON."""
        content = {**super().content(reply), "likelihood": True, "extra": dict(self.extra)}
        return content if self.prompt is None else {**content, "messages": None, "prompt": self.prompt}

    @property
    def _opening(self) -> int:
        if self.prompt is None:
            return super()._opening
        return len(self.prompt.encode("utf-8", "surrogatepass")) + 32


class Scored(NamedTuple):
    """The scores of one reply, on the scale that the backend's capabilities name; or its log-probabilities."""

    steps: tuple[float, ...]
    """One per step, each of the reply up to that step's end, where the backend scores `steps`; else one, of
    the whole. The last is the whole reply's. Of a `LikelihoodRequest` one per step, of that step. Finite."""
    tokens: Tokens = Tokens()
    requests: int = 1
    """HTTP requests this reply accounts for: 1, or 0 for the others of a request with several replies."""
    counts: tuple[int, ...] = ()
    """Of log-probabilities: how many tokens each is the sum of."""


class Progress:
    """What a call in flight has received so far, kept by the backend as it knows.

    When the call is cancelled or fails, this is what it is billed by. A backend that streams tokens
    counts them here; one that does not leaves `tokens` at None, and the bill is estimated.
    """

    __slots__ = ("completion_tokens", "prompt_tokens", "sent")

    def __init__(self) -> None:
        self.sent = False
        """Whether the request has left: before that, nothing can have been billed."""
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None


Scores = Literal["steps", "prefix", "outcome"]
"""What a reward model scores: every step's end in one pass over the reply; the end of whatever beginning of a
reply it is given, so that each step is a call; or finished replies only."""


class Capabilities(Value):
    """What a server can do. Asking for more is a clear error before anything is spent."""

    max_n: Annotated[int, Field(ge=1)] = 1
    """Samples per request; more are asked for in several requests."""
    prefix: bool = False
    """Continue a given beginning of the reply."""
    logprobs: bool = False
    """Return log-probabilities."""
    seed: bool = False
    """Sample reproducibly by seed (best effort on most servers)."""
    raw_prompt: bool = False
    """Complete raw text as well as chats."""
    truncation_params: bool = False
    """Take `top_k` and `min_p`."""
    tells_stop: bool = True
    """Say which stop string ended a reply; else that is not to be told from the end of sequence."""
    recorded: bool = False
    """Samples were generated at another time and are here at once."""
    aborts: bool = False
    """Closing the connection stops the generation, and with it the bill."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The most tokens a reply can have, where that is known; of a reward model, those it writes to judge."""
    completes: bool = True
    """Write replies; a reward model only scores them."""
    scores: Scores | None = None
    """What of a reply it scores."""
    score_scale: Scale = "score"
    """What its scores are: a probability, its logit, or an uncalibrated score."""
    max_replies: Annotated[int, Field(ge=1)] = 1
    """Replies scored, or given texts read, per request."""
    likelihoods: bool = False
    """Tell the log-probability of given text."""


class Backend(Protocol):
    """A place where models run. Opened and closed by the session; safe for concurrent calls."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this backend's samples from another's: kind, endpoint, model. Never a secret."""
        ...

    @property
    def endpoint(self) -> str:
        """What shares one concurrency limit."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Yield one completion per index, as they finish. Closing the iterator aborts the rest."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """What a backend has beside the methods of `Backend` where its capabilities name what it `scores`."""

    async def score(self, request: ScoreRequest, progress: Progress) -> Sequence[Scored]:
        """One per reply, in order. Cancelling aborts; errors are those of `complete`."""
        ...


@runtime_checkable
class Reader(Protocol):
    """What a backend has beside the methods of `Backend` where its capabilities say `likelihoods`."""

    async def likelihoods(self, request: LikelihoodRequest, progress: Progress) -> Sequence[Scored]:
        """One per reply, in order. Cancelling aborts; errors are those of `complete`."""
        ...


@runtime_checkable
class Starts(Protocol):
    """What a backend has beside the methods of `Backend` where what it asks may have to be started first."""

    async def ready(self) -> None:
        """Wait until it can be asked: before every attempt, outside its time limit. Raises FatalError."""
        ...


class Model(Component):
    """A model that stages can name: where it runs, what it costs, how hard to push it.

    Subclasses are registered as backends: `coder: {backend: openai, model: gpt-4o-mini}`.
    """

    kind: ClassVar[str] = "backend"
    short: ClassVar[str] = "model"
    """The field that `--model BACKEND:...` fills; empty where there is nothing to say after the colon."""
    of_the_lab: ClassVar[bool] = False
    """Whether it serves the lab's problems as the models that ship do, so that they may stand in beside it."""

    price: Price | None = None
    """Dollars per million tokens; looked up in the price tables where not given."""
    parameters: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Parameters (active ones), for FLOPs: 2 per parameter and token (Kaplan et al. 2020, 2.1)."""
    architecture: Architecture | Path | None = None
    """Its layers and widths, or the path of its `config.json`: exact FLOPs, attention included."""
    max_tokens: Annotated[int, Field(ge=1)] | None = 4096
    """Limit on new tokens where a stage gives none."""
    sampling: Sampling = Sampling()
    """Sampling parameters for every request of this model; a stage's own win."""
    concurrency: Annotated[int, Field(ge=1)] = 32
    """Calls in flight at the start; adapts to the server unless `max_concurrency` says otherwise."""
    max_concurrency: Annotated[int, Field(ge=1)] = 512
    """Calls in flight at most, per endpoint."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds a call may take."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Further attempts after a retryable error."""
    samples_per_request: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Samples asked for in one request. Several share one prompt's price; single ones can be cancelled
    one by one. `auto`: single requests where a later stage may stop early, as many as the server takes
    otherwise."""

    @property
    def continues_text(self) -> bool:
        """Whether it completes raw text instead of answering chats."""
        return False

    @property
    def label(self) -> str:
        """The name prices are looked up by."""
        return self.name

    def shape(self) -> Architecture | None:
        """Its architecture, where that is known. Raises DataError."""
        given = self.architecture
        return Architecture.read(given) if isinstance(given, Path) else given

    def flops(self) -> Flops | None:
        """What its tokens cost in FLOPs; None where its size is unknown. Raises DataError."""
        return flops_of(self.shape(), self.parameters)

    def check(self) -> None:
        """Raise UserError where it lacks what its calls need (a key). Nothing is sent, nothing opened."""

    @abstractmethod
    def connect(self) -> Backend:
        """Open the backend. Nothing is sent yet."""
        raise NotImplementedError
