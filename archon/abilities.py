"""What a model is asked for and what its backend can do: refused before anything is spent, in words that help."""

from __future__ import annotations

from archon.backends.base import Backend, Reader, Request, Scorer
from archon.errors import CapabilityError


def check(name: str, backend: Backend, request: Request) -> None:
    """Raise CapabilityError where the backend cannot do what a request for samples asks."""
    can, sampling = backend.capabilities, request.sampling
    lacking = [
        what
        for what, asked, able in (
            ("write replies: it scores them", True, can.completes),
            ("complete raw text (`prompt`)", request.prompt is not None, can.raw_prompt),
            ("continue a given beginning (`prefix`)", bool(request.prefix), can.prefix),
            ("return log-probabilities (`logprobs`)", sampling.logprobs is not None, can.logprobs),
            (
                "take `top_k` or `min_p`",
                sampling.top_k is not None or sampling.min_p is not None,
                can.truncation_params,
            ),
        )
        if asked and not able
    ]
    if lacking:
        raise CapabilityError(
            f"model {name!r} ({backend.endpoint}) cannot {' and cannot '.join(lacking)}. "
            "If this server can, say so in the model's `capabilities`; otherwise change the stage"
        )


def scorer(name: str, backend: Backend, *, finished: bool) -> Scorer:
    """The backend as what scores replies, finished ones or also beginnings. Raises CapabilityError."""
    scores = backend.capabilities.scores
    if scores is None or not isinstance(backend, Scorer):
        lacking = "score replies: it is no reward model"
    elif scores == "outcome" and not finished:
        lacking = "score the beginning of a reply: it scores finished ones"
    else:
        return backend
    raise CapabilityError(
        f"model {name!r} ({backend.endpoint}) cannot {lacking}. Name a model that can "
        "(`{backend: nano, weights: prm}`, or a `reward_server`)"
    )


def reader(name: str, backend: Backend) -> Reader:
    """The backend as what tells the log-probability of given text. Raises CapabilityError."""
    if backend.capabilities.likelihoods and isinstance(backend, Reader):
        return backend
    raise CapabilityError(
        f"model {name!r} ({backend.endpoint}) cannot tell how likely a given text is. Name a model that can "
        "(`{backend: vllm, ...}` on a server, or `{backend: nano}`), or do without what asks for it"
    )
