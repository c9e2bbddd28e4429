"""What known OpenAI-compatible servers can do, as data.

`auto` recognises a server by its address; a model's `capabilities` overrides single entries. Every entry
is what the server's documentation said when it was written; a server that refuses answers with an
error, never with silence on our side.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from archon.backends.base import Capabilities
from archon.component import Value

Server = Literal[
    "auto", "openai", "vllm", "sglang", "llamacpp", "ollama", "openrouter", "together", "generic"
]


class Dialect(Value):
    """How a server's requests differ from the common form."""

    capabilities: Capabilities
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the chat API calls the limit on new tokens."""
    continuation: Literal["", "continue_final_message", "last_message"] = ""
    """How a given beginning of the reply is sent: with vLLM's flags, or as a last assistant message."""
    usage_request: bool = False
    """Whether the cost must be asked for (`usage: {include: true}`)."""
    running_usage: bool = False
    """Whether a stream can carry usage in every chunk (`continuous_usage_stats`)."""


_FULL = Capabilities(
    max_n=128, prefix=True, logprobs=True, seed=True, raw_prompt=True, truncation_params=True, aborts=True
)
_DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(
        capabilities=Capabilities(max_n=128, logprobs=True, seed=True, raw_prompt=True),
        limit_field="max_completion_tokens",
    ),
    "vllm": Dialect(capabilities=_FULL, continuation="continue_final_message", running_usage=True),
    "sglang": Dialect(capabilities=_FULL, continuation="continue_final_message"),
    "llamacpp": Dialect(
        capabilities=_FULL.model_copy(update={"max_n": 1, "tells_stop": False}), continuation="last_message"
    ),
    "ollama": Dialect(capabilities=Capabilities(seed=True, raw_prompt=True, aborts=True)),
    "openrouter": Dialect(
        capabilities=Capabilities(
            prefix=True,
            logprobs=True,
            seed=True,
            raw_prompt=True,
            truncation_params=True,
            tells_stop=False,
        ),
        continuation="last_message",
        usage_request=True,
    ),
    "together": Dialect(
        capabilities=Capabilities(logprobs=True, seed=True, raw_prompt=True, truncation_params=True)
    ),
    "generic": Dialect(capabilities=Capabilities(logprobs=True, seed=True, raw_prompt=True)),
}
_HOSTS = {
    "api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.together.ai": "together",
}


class Overrides(Value):
    """Capabilities to set otherwise than the table says."""

    max_n: Annotated[int, Field(ge=1)] | None = None
    """Samples per request."""
    prefix: bool | None = None
    """Continue a given beginning of the reply."""
    logprobs: bool | None = None
    """Return log-probabilities."""
    seed: bool | None = None
    """Take seeds."""
    raw_prompt: bool | None = None
    """Complete raw text."""
    truncation_params: bool | None = None
    """Take `top_k` and `min_p`."""
    tells_stop: bool | None = None
    """Say which stop string ended a reply (`stop_reason`, as vLLM does, or `matched_stop`, as SGLang does)."""
    aborts: bool | None = None
    """Closing the connection stops the generation."""


def dialect(server: Server, base_url: str) -> Dialect:
    """The dialect of a server, recognised by its address where `auto`."""
    if server != "auto":
        return _DIALECTS[server]
    address = urlsplit(base_url)
    if address.port == 11434:
        return _DIALECTS["ollama"]
    return _DIALECTS[_HOSTS.get(address.hostname or "", "generic")]
