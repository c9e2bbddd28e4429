"""Models behind any OpenAI-compatible server, by the `openai` package's async client.

Chat and raw completions; n, stop, seed, log-probabilities, and the continuation of a given beginning
where the server has it. What a server can do is a table (servers.py) that the model's configuration can
override. Retries, throttling and prices are the caller's business (archon/calling.py), so the client's
own retries are off.

The typed methods of the client cost more time than the network (design/overhead.md), so requests go
through its `post`, with its authentication, transport and error mapping, and replies are read as plain
JSON (reply.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from archon.backends import reply
from archon.backends.base import Capabilities, Completion, Model, Progress, Request
from archon.backends.servers import Dialect, Overrides, Server, dialect
from archon.errors import BackendError, BadReply, CallTimedOut, ConnectionDropped, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

_OPENAI = "https://api.openai.com/v1"
_SECRET = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_IDLE = 4.0
"""Seconds that an idle connection is kept: uvicorn, and so vLLM, closes it after five, and a request that meets a
closing one is lost (design/vllm.md)."""


class OpenAI(Model):
    """A model served by an OpenAI-compatible API.

    The key is read from the environment variable `api_key_env`; it is never part of a configuration, a
    store, a log or an error. Local servers need none.
    """

    name: ClassVar[str] = "openai"

    model: str = Field(min_length=1)
    """The model's name, as the server spells it."""
    base_url: str | None = None
    """The server's address up to `/v1`; OPENAI_BASE_URL or OpenAI's own where not given."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    api: Literal["chat", "completions"] = "chat"
    """Chats, or raw text to continue (base models)."""
    server: Server = "auto"
    """What kind of server it is, for what it can do; by its address where `auto`."""
    capabilities: Overrides = Overrides()
    """What this server can do otherwise than the table says."""
    stream: bool = False
    """Receive tokens as they are generated: single samples per request, more work per token, but a
    cancelled call is billed by what was received instead of by an estimate."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers; `${NAME}` as a value is read from the environment, which is where secrets belong."""
    transport: Literal["aiohttp", "httpx"] = "aiohttp"
    """The client's HTTP transport; aiohttp costs less per request and scales further."""

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("expected an address that starts with http:// or https://")
        if value is not None and "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("a password does not belong in an address; use `api_key_env` or `headers`")
        return value

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if name.lower() == "authorization":
                raise ValueError("the key does not belong in a configuration; name it by `api_key_env`")
            if _SECRET.search(name) and not _VARIABLE.fullmatch(text):
                raise ValueError(
                    f"the header {name!r} looks like a secret, which does not belong in a configuration; "
                    f"put it into the environment and write {name}: ${{NAME}}"
                )
        return value

    @property
    def address(self) -> str:
        """The server's address, without a password that OPENAI_BASE_URL may hold."""
        address = (self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
        return re.sub(r"://[^/@]*@", "://", address)

    @property
    def continues_text(self) -> bool:
        """Whether it completes raw text."""
        return self.api == "completions"

    @property
    def label(self) -> str:
        """Prices go by the model's name."""
        return self.model

    def check(self) -> None:
        """Raise UserError where a key is needed and absent."""
        if self.address == _OPENAI and not os.environ.get(self.api_key_env):
            raise UserError(
                f"model {self.model!r} needs a key, and the environment variable {self.api_key_env} is not set. "
                f"Set it (export {self.api_key_env}=...), or give `base_url:` for a server of your own"
            )

    def connect(self) -> OpenAIBackend:
        """Open a client."""
        return OpenAIBackend(self)


class OpenAIBackend:
    """A client of one server."""

    def __init__(self, config: OpenAI) -> None:
        self._config = config
        self._dialect: Dialect = dialect(config.server, config.address)
        overridden = {k: v for k, v in config.capabilities.given().items() if v is not None}
        if config.stream:
            overridden["max_n"] = 1
        self._capabilities = self._dialect.capabilities.model_copy(update=overridden)
        self._key = key = os.environ.get(config.api_key_env, "")
        self._headers = {name: _from_environment(value) for name, value in config.headers.items()}
        self._secrets = [s for s in (key, *(v for k, v in self._headers.items() if _SECRET.search(k))) if s]
        self._client = self._open()
        self._bodies: dict[int, tuple[Request, bytes]] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server, model and API; two servers never share samples."""
        config = self._config
        return {"backend": "openai", "base_url": config.address, "model": config.model, "api": config.api}

    @property
    def endpoint(self) -> str:
        """The server's address: its models share one concurrency limit."""
        return self._config.address

    @property
    def capabilities(self) -> Capabilities:
        """By the table and the overrides."""
        return self._capabilities

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """One request for all of the indices; cancelling closes its connection."""
        path = "/completions" if self._config.api == "completions" else "/chat/completions"
        body = self._body(request, indices)
        with self._errors(progress):
            progress.sent = True
            if self._config.stream:
                parts = reply.Parts(self._config.api, self._secrets)
                async with await self._client.post(
                    path,
                    cast_to=object,
                    content=body,
                    options=_JSON,
                    stream=True,
                    stream_cls=_stream_class(),
                ) as stream:
                    async for chunk in stream:
                        parts.add(chunk, progress)
                completions = [parts.completion(request, indices[0])]
            else:
                import httpx2

                response = await self._client.post(path, cast_to=httpx2.Response, content=body, options=_JSON)
                completions = reply.completions(response, request, indices, self._config.api, self._secrets)
        for completion in completions:
            yield completion

    async def fetch(self, path: str) -> bytes | None:
        """What the server has beside its API (`/metrics`, `/version`): empty where it has nothing there, None
        where it cannot be reached."""
        import httpx2
        import openai

        root = self._config.address.removesuffix("/v1")
        try:
            response = await self._client.get(root + path, cast_to=httpx2.Response)
        except openai.APIConnectionError:
            return None
        except openai.APIError:
            return b""
        return response.content

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    def _open(self) -> openai.AsyncOpenAI:
        import httpx2
        from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

        config = self._config
        client = DefaultAioHttpClient if config.transport == "aiohttp" else DefaultAsyncHttpxClient
        limits = httpx2.Limits(
            max_connections=config.max_concurrency,
            max_keepalive_connections=config.max_concurrency,
            keepalive_expiry=_IDLE,
        )
        return AsyncOpenAI(
            api_key=self._key or "none",
            base_url=config.address,
            max_retries=0,
            default_headers=self._headers,
            http_client=client(limits=limits, timeout=httpx2.Timeout(config.timeout + 5, connect=20)),
        )

    def _body(self, request: Request, indices: Sequence[int]) -> bytes:
        """The request's JSON; kept while only the sample index changes and no seed makes it differ."""
        if request.sampling.seed is not None and self._capabilities.seed:
            return self._encode(request, indices)
        kept = self._bodies.get(len(indices))
        if kept is None or kept[0] is not request:
            kept = self._bodies[len(indices)] = (request, self._encode(request, indices))
        return kept[1]

    def _encode(self, request: Request, indices: Sequence[int]) -> bytes:
        sampling = request.sampling
        raw = self._config.api == "completions"
        body: dict[str, Any] = {"model": self._config.model}
        if raw:
            text = request.prompt
            if text is None:
                text = "\n\n".join(m.content for m in request.messages)
            body["prompt"] = text + request.prefix
        else:
            body["messages"] = request.turns
            if request.prefix and self._dialect.continuation == "continue_final_message":
                body["continue_final_message"] = True
                body["add_generation_prompt"] = False
        for name in ("temperature", "top_p", "top_k", "min_p"):
            value = getattr(sampling, name)
            if value is not None:
                body[name] = value
        if sampling.max_tokens is not None:
            body["max_tokens" if raw else self._dialect.limit_field] = sampling.max_tokens
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if len(indices) > 1:
            body["n"] = len(indices)
        if sampling.logprobs is not None:
            body["logprobs"] = sampling.logprobs if raw else True
            if not raw:
                body["top_logprobs"] = sampling.logprobs
        seed = request.seed_of(indices[0]) if self._capabilities.seed else None
        if seed is not None:
            body["seed"] = seed
        if self._dialect.usage_request:
            body["usage"] = {"include": True}
        if self._config.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
            if self._dialect.running_usage:
                body["stream_options"]["continuous_usage_stats"] = True
        body.update(sampling.extra)
        return json.dumps(body).encode()

    @contextmanager
    def _errors(self, progress: Progress) -> Iterator[None]:
        """The client's errors as ours. Where no connection came about, nothing was sent."""
        import httpx2
        import openai

        try:
            yield
        except openai.APIConnectionError as error:  # APITimeoutError among them
            cause = _cause(error)
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
                progress.sent = False
            elif isinstance(cause, httpx2.TimeoutException):
                raise CallTimedOut("the server did not answer in time", model=self._config.model) from error
            raise self._dropped(f"{type(cause).__name__}: {cause}") from None
        except openai.APIStatusError as error:
            ours = reply.status_error(error.response, self._secrets)
            ours.model = self._config.model
            raise ours from None
        except openai.APIError as error:
            raise self._dropped(str(error)) from None
        except RecursionError:  # the client reads a stream's chunks itself
            raise BadReply(
                "the server sent JSON that is nested too deeply to read", model=self._config.model
            ) from None
        except BackendError as error:
            error.model = self._config.model
            raise

    def _dropped(self, text: str) -> ConnectionDropped:
        return ConnectionDropped(reply.redact(text, self._secrets), model=self._config.model)


def _cause(error: BaseException) -> BaseException:
    """What the transport met. The one over aiohttp calls every failure of a connection ConnectTimeout, one
    that came after the request had left too; aiohttp's own error behind it tells."""
    cause = error.__cause__ or error
    behind = cause.__cause__
    module = "" if behind is None else type(behind).__module__
    if behind is None or not module.startswith("aiohttp"):
        return cause
    import aiohttp
    import httpx2

    if isinstance(behind, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return httpx2.ConnectError(str(behind))
    return cause if isinstance(behind, TimeoutError) else behind


def _from_environment(value: str) -> str:
    variable = _VARIABLE.fullmatch(value)
    if variable is None:
        return value
    if variable[1] not in os.environ:
        raise UserError(
            f"a header's value is ${{{variable[1]}}}, and that environment variable is not set. "
            f"Set it: export {variable[1]}=..."
        )
    return os.environ[variable[1]]


_JSON: Any = {"headers": {"Content-Type": "application/json"}}


def _stream_class() -> Any:
    from openai import AsyncStream

    return AsyncStream[object]
