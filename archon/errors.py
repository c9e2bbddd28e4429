"""Everything that can go wrong, as one tree.

ArchonError
├── UserError                    a mistake the caller can mend: printed without a traceback, exit code 2
│   ├── ConfigError              a pipeline or a configuration file is not valid (carries every problem found)
│   ├── UnknownName              no stage, verifier, backend, benchmark or command of that name
│   ├── MissingExtra             an optional dependency is needed and not installed
│   ├── DataError                a data file is absent, empty or malformed
│   ├── CapabilityError          a model is asked for what its server cannot do
│   └── UnpricedModel            a budget in money or FLOPs meets a model without a price or a size
├── BackendError                 a model call failed (carries model, status, request id)
│   ├── RetryableError
│   │   ├── RateLimited          429: the server asks to slow down
│   │   ├── Overloaded           500, 502, 503, 504, 529: the server cannot serve now
│   │   ├── CallTimedOut         no reply within the time limit
│   │   └── ConnectionDropped    refused, reset, or closed in mid-reply
│   └── PermanentError
│       ├── FatalError           wrong for every call of this model: the run stops at once
│       │   ├── AuthenticationFailed   401, 403: key missing, wrong or not allowed
│       │   ├── QuotaExhausted   429 that waiting does not mend: credit or quota used up
│       │   ├── ModelNotFound    404: no such model or path
│       │   ├── BadReply         the server does not speak this protocol (HTML, not JSON, no choices)
│       │   └── EndpointDown     never answered, or failed many times in a row
│       ├── RequestRejected      400, 422: this request, and only this one, is refused
│       │   └── ContextOverflow  prompt and reply do not fit the model's context
│       └── NotRecorded          a replay is asked for a sample beyond what was recorded
├── BudgetExhausted              the next call could exceed a hard budget (a signal, rarely an error: D6)
├── AllCandidatesFailed          nothing to choose from: every attempt failed (carries the causes)
├── StageFailed                  a stage raised (carries the stage's name; the cause is chained)
├── StoreError
│   ├── StoreFull                the disk is full: nothing recorded is lost, the run stops
│   ├── StoreUnusable            not a database of ours, damaged, or not writable
│   └── StoreVersion             written by a newer version
└── ExecutionError               the machinery that runs candidate code broke (never the candidate's fault)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from archon.candidate import Outcome


_MOST_REASONS = 3


class ArchonError(Exception):
    """Root of every error raised on purpose."""


# --- mistakes of the user --------------------------------------------------------------------------


class UserError(ArchonError):
    """A mistake the caller can mend; the message says what, where and what to do."""


class Flaw(NamedTuple):
    """One thing wrong with a configuration: where it is, what is wrong, what to do about it."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.hint}" if self.hint else text


class ConfigError(UserError):
    """A pipeline or a configuration is not valid; `flaws` holds everything found, in order."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        self.flaws = tuple(flaws)
        super().__init__("\n".join(map(str, self.flaws)))


class UnknownName(UserError):
    """A name is not in its registry."""


class MissingExtra(UserError):
    """An optional dependency is needed; the message names the extra to install."""


class DataError(UserError):
    """A data file is absent, empty or malformed."""


class CapabilityError(UserError):
    """A model is asked for what its server cannot do; raised before anything is spent."""


class UnpricedModel(UserError):
    """A budget counts money or FLOPs, and the model's price or size is unknown."""


# --- model calls -----------------------------------------------------------------------------------


class BackendError(ArchonError):
    """A model call failed.

    `status` is the HTTP status where there was one, `request_id` the server's name for the request,
    `retry_after` the seconds the server asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after


class RetryableError(BackendError):
    """Worth trying again."""


class RateLimited(RetryableError):
    """429: the server asks to slow down."""


class Overloaded(RetryableError):
    """500, 502, 503, 504, 529: the server cannot serve now."""


class CallTimedOut(RetryableError):
    """No reply within the time limit."""


class ConnectionDropped(RetryableError):
    """Refused, reset, or closed in mid-reply."""


class PermanentError(BackendError):
    """Trying again would fail again."""


class FatalError(PermanentError):
    """Wrong for every call of this model, so the run stops instead of failing sample by sample."""


class AuthenticationFailed(FatalError):
    """401, 403: the key is missing, wrong or not allowed."""


class QuotaExhausted(FatalError):
    """Credit or quota is used up: the server says 429, and waiting will not mend it."""


class ModelNotFound(FatalError):
    """404: no such model, or no such path."""


class BadReply(FatalError):
    """The server does not speak this protocol."""


class BadScore(PermanentError):
    """The score of a reply is no finite number; those of other replies may be."""


class EndpointDown(FatalError):
    """The endpoint never answered, or failed many times in a row."""


class RequestRejected(PermanentError):
    """400, 422: this request, and only this one, is refused."""


class ContextOverflow(RequestRejected):
    """Prompt and reply do not fit the model's context."""


class NotRecorded(PermanentError):
    """A replay is asked for a sample beyond what was recorded."""


# --- running ---------------------------------------------------------------------------------------


class BudgetExhausted(ArchonError):
    """The next call could exceed a hard budget.

    `scope` names the budget (run, problem, or a stage), `dimension` what ran out.
    """

    def __init__(self, scope: str, dimension: str, message: str) -> None:
        super().__init__(message)
        self.scope = scope
        self.dimension = dimension


class AllCandidatesFailed(ArchonError):
    """Every attempt failed, so there is nothing to choose from.

    `causes` holds the errors, `outcome` what was spent all the same.
    """

    def __init__(self, problem: str, causes: Sequence[Exception], outcome: Outcome | None = None) -> None:
        self.problem = problem
        self.causes = tuple(causes)
        self.outcome = outcome
        reasons = list(dict.fromkeys(f"{type(c).__name__}: {c}" for c in causes))
        listed = "; ".join(reasons[:_MOST_REASONS])
        if len(reasons) > _MOST_REASONS:
            listed += f"; and {len(reasons) - _MOST_REASONS} other reasons"
        super().__init__(f"every candidate for problem {problem!r} failed ({len(causes)} failures): {listed}")


class StageFailed(ArchonError):
    """A stage raised; the cause is chained."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"stage {stage!r} failed: {type(cause).__name__}: {cause}")
        self.stage = stage


class StoreError(ArchonError):
    """The store cannot do what it is asked."""


class StoreFull(StoreError):
    """The disk is full. What was recorded before stays recorded."""


class StoreUnusable(StoreError):
    """Not a database of ours, damaged, or not writable."""


class StoreVersion(StoreError):
    """Written by a newer version."""


class ExecutionError(ArchonError):
    """The machinery that runs candidate code broke; never the candidate's fault."""
