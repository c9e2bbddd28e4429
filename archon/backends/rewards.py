"""Reward models on a server: what a configuration says of one.

How known models are asked and read is data (reward_models.py); the client is reward_client.py, whose docstring
says what a server of your own gets and answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from archon.backends.base import Backend, Model, Scores
from archon.backends.openai import OpenAI
from archon.backends.reward_client import JSONRewards, VLLMRewards
from archon.backends.reward_models import RewardModel, described, known
from archon.backends.vllm.config import VLLM
from archon.candidate import Scale
from archon.suggest import hint


class RewardServer(Model):
    """A reward model on a server.

    By its name, or by `reads`, it is known how it is asked; another one is described there.
    """

    name: ClassVar[str] = "reward_server"

    model: str = Field(min_length=1)
    """The model's name, as the server spells it."""
    base_url: str | None = None
    """The server's address; with `api: json` the whole address that is posted to. Without one a vLLM is started."""
    api: Literal["vllm", "json"] = "vllm"
    """How it is spoken to: as vLLM (and, for judgements of one word, any OpenAI-compatible server), or by the
    JSON of archon/backends/reward_client.py."""
    reads: str | RewardModel | None = None
    """A shipped description's name (`qwen2.5-math-prm`), or a description; by the model's name where not given."""
    scores: Scores = "steps"
    """With `api: json`: what of a reply it scores."""
    scale: Scale | None = None
    """What the scores are; by the description, or `score` with `api: json`, where not given."""
    vllm: Mapping[str, Any] = Field(default_factory=dict)
    """Of a vLLM that is started: fields of the backend `vllm`, such as `python`, `replicas`, `options`. What
    the description needs is set."""
    replies_per_request: Annotated[int, Field(ge=1)] = 16
    """Replies scored by one request, where the server takes several."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key, where it wants one; VLLM_API_KEY where a vLLM is
    started and none is named."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers; `${NAME}` as a value is read from the environment."""
    transport: Literal["aiohttp", "httpx"] = "aiohttp"
    """The client's HTTP transport."""

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        OpenAI._is_url(value)
        return value

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        OpenAI._no_secrets(value)
        return value

    @model_validator(mode="after")
    def _described(self) -> Self:
        if self.api == "json":
            if self.base_url is None:
                raise ValueError("`api: json` needs the address of a server: `base_url`")
            if self.reads is not None:
                raise ValueError("`reads` is for `api: vllm`; with `api: json` give `scores` and `scale`")
            return self
        if self.base_url is not None and self.vllm:
            raise ValueError("`vllm` is for a server that is started, and `base_url` names one that runs")
        if self.vllm.get("in_process"):
            raise ValueError("reward models run on a server: leave out `in_process` under `vllm`")
        if isinstance(self.reads, str) and self.reads not in known():
            raise ValueError(f"there is no description {self.reads!r}. {hint(self.reads, known())}")
        if self.reads is None and described(self.model) is None:
            raise ValueError(
                f"the reward model {self.model!r} is not known. Say by `reads:` how it is asked: "
                f"one of {', '.join(known())}, or a description such as {{way: classify, process: false}}"
            )
        if self.base_url is None:
            _ = self.started  # its mistakes are told now
        return self

    @cached_property
    def reading(self) -> RewardModel:
        """How it is asked and read."""
        found = known()[self.reads] if isinstance(self.reads, str) else self.reads or described(self.model)
        assert found is not None
        return found if self.scale is None else found.model_copy(update={"scale": self.scale})

    @property
    def label(self) -> str:
        """Prices go by the model's name."""
        return self.model

    def client(self, address: str) -> OpenAI:
        """How the server at this address is asked."""
        fields = ("model", "headers", "transport", "timeout", "max_concurrency")
        key = self.api_key_env if self.base_url is not None else self.started.api_key_env
        return OpenAI(base_url=address, api_key_env=key, **{name: getattr(self, name) for name in fields})

    @cached_property
    def started(self) -> VLLM:
        """The vLLM that is started, where there is no address."""
        options = {**self.reading.options, **self.vllm.get("options", {})}
        names = ["timeout", "max_concurrency", *({"api_key_env"} & set(self.given()))]
        shared = {name: getattr(self, name) for name in names}
        return VLLM(**{"model": self.model, **shared, **self.vllm, "options": options})

    def check(self) -> None:
        """Raise UserError where a vLLM is to be started and cannot be."""
        if self.base_url is None:
            self.started.check()

    def connect(self) -> Backend:
        """Open a client, or be ready to start a server."""
        if self.base_url is None:
            from archon.backends.vllm.rewards import StartedRewards

            return StartedRewards(self, self.started)
        kind = JSONRewards if self.api == "json" else VLLMRewards
        return kind(self, self.base_url, self.model)
