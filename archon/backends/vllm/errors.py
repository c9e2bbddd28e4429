"""Why a vLLM server did not start or did not stay, in words, from what its keeper saw and what its log says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from archon.backends.reply import redact
from archon.errors import AuthenticationFailed, EndpointDown, FatalError, ModelNotFound

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY")
_READ = 64 * 1024
_SHOWN = 6
_CALM = re.compile(r"^(\([^)]*pid=\d+\)\s*)?(INFO|WARNING|DEBUG)\b")
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((INFO|WARNING|ERROR|DEBUG)\s+\S+\s+\S+\s+\[[^\]]*\]\s?)?")
_TELLS = re.compile(r"error|exception|failed|cannot|could not|no such|denied|killed|not found", re.IGNORECASE)
_NAMED = re.compile(r"^[\w.]*(Error|Exception|Interrupt): |^\s+(Value|Assertion) error, ")
_EMPTY = re.compile(r"root cause|Engine core initialization failed|^Traceback|^\s+File |^\s*raise |^\s*\^")


class Reason(NamedTuple):
    """A kind of failure: how the log shows it, what it means, what to do."""

    pattern: str
    what: str
    hint: str
    error: type[FatalError] = EndpointDown


_REASONS = (
    Reason(
        r"No module named '?vllm'?(?![.\w])",
        "this Python has no vLLM",
        "Install archon[vllm] there, or name another with `python:` or ARCHON_VLLM_PYTHON (docs/vllm.md)",
    ),
    Reason(
        r"GatedRepoError|401 Client Error|Access to model .* is restricted",
        "the hub wants to know who asks for this model",
        "Accept its terms on the hub, and put your token into the environment as HF_TOKEN",
        AuthenticationFailed,
    ),
    Reason(
        r"is not a valid model identifier|Repository Not Found|RepositoryNotFoundError|LocalEntryNotFoundError"
        r"|does not appear to have a file named|Invalid repository ID|couldn't connect to|Can't load the config",
        "there is no such model",
        "Name a folder with weights in Hugging Face's format, or a model on the hub that this machine can reach",
        ModelNotFound,
    ),
    Reason(
        r"Failed to infer device type|No CUDA GPUs are available|libcuda\.so|Found no NVIDIA driver"
        r"|no NVIDIA GPU|CUDA_ERROR_NO_DEVICE",
        "this build of vLLM needs a GPU, and finds none",
        "Use a machine with one, or a build for CPUs (docs/vllm.md)",
    ),
    Reason(
        r"out of memory|OutOfMemoryError|No available memory for the cache blocks|Cannot allocate memory"
        r"|[Ff]ree memory on device|memory .*is less than|KV cache .*is (?:needed|larger)",
        "the memory does not suffice",
        "Under `options:`, lower `max_model_len` or `max_num_seqs`, change `gpu_memory_utilization`, spread the "
        "model with `tensor_parallel_size`, or choose a quantised one; `replicas` share the machine",
    ),
    Reason(
        r"[Aa]ddress already in use",
        "its port is taken",
        "Write `port: auto`, or `url:` to use the server that is there",
    ),
    Reason(
        r"error: (?:unrecognized arguments|argument |ambiguous option)",
        "vLLM refuses its `options`",
        "Their names are those of vLLM's command line, without the dashes",
    ),
)


def failure(model: str, told: Mapping[str, Any]) -> FatalError:
    """The error of a server that did not start; `told` is what its keeper said last."""
    log = str(told.get("log", ""))
    lines = tail(log, complaints=True)
    where = f" Its log: {log}" if log else ""
    why = told.get("why")
    if why == "port":
        taken = next(r for r in _REASONS if "ddress" in r.pattern)
        return _error(taken, model, [str(told.get("detail", ""))], where)
    if why == "slow":
        return EndpointDown(
            f"vLLM did not start with {model!r} within `start_timeout`. The last it said: {_last(tail(log))}.{where}",
            model=model,
        )
    text = "\n".join(lines)
    for reason in _REASONS:
        if re.search(reason.pattern, text):
            shown = [line for line in lines if re.search(reason.pattern, line)]
            return _error(reason, model, shown[-1:], where)
    code = told.get("code")
    if code == -9:
        killed = next(r for r in _REASONS if "out of memory" in r.pattern)
        return _error(killed, model, ["it was killed (SIGKILL), as the kernel does then"], where)
    ending = f" (exit code {code})" if code is not None else ""
    detail = str(told.get("detail", "")) or _last(lines)
    return EndpointDown(f"vLLM did not start with {model!r}{ending}: {detail}.{where}", model=model)


def refusal(model: str, error: BaseException) -> FatalError:
    """The error of an engine in this process that did not start, by what it raised and what that came from."""
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(lines) < _SHOWN:
        lines.append(f"{type(cause).__name__}: {cause}".strip())
        cause = cause.__cause__ or cause.__context__
    for reason in _REASONS:
        shown = [line for line in lines if re.search(reason.pattern, line)]
        if shown:
            return _error(reason, model, [" ".join(shown[-1].split())], "")
    return EndpointDown(
        f"vLLM did not start with {model!r}: {' '.join(lines[-1].split())[:300]}", model=model
    )


def death(told: Mapping[str, Any]) -> str:
    """How a server that ran came to its end."""
    why = {
        "dead": "its engine died",
        "silent": "it did not answer for minutes",
        "signal": "its keeper was told to end it",
        "gone": "its keeper was killed",
    }.get(str(told.get("why")), f"it ended with code {told.get('code')}")
    said = tail(str(told.get("log", "")), complaints=True)
    named = [line for line in said if _NAMED.search(line) and not _EMPTY.search(line)]
    return why + (f" ({named[-1].strip()[:300]})" if named else "")


def tail(log: str, *, complaints: bool = False) -> list[str]:
    """The last lines of a log, without what vLLM puts before each; `complaints`: without what it says calmly."""
    try:
        with Path(log).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _READ))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = redact(text, [os.environ[name] for name in _SECRETS if os.environ.get(name)]).splitlines()
    if complaints:
        lines = [line for line in lines if not _CALM.match(line)]
    return [clean for line in lines if (clean := _PREFIX.sub("", line).rstrip())]


def _error(reason: Reason, model: str, shown: list[str], where: str) -> FatalError:
    said = f" ({shown[-1].strip()[:300]})" if shown and shown[-1].strip() else ""
    text = f"vLLM did not start with {model!r}: {reason.what}{said}. {reason.hint}.{where}"
    return reason.error(text, model=model)


def _last(lines: list[str]) -> str:
    """The last useful lines: those that speak of an error, else the very last."""
    named = [line for line in lines if _NAMED.search(line) and not _EMPTY.search(line)]
    useful = [line.strip() for line in lines if _TELLS.search(line) and not _EMPTY.search(line)]
    chosen = named[-1:] or useful[-_SHOWN:] or [line.strip() for line in lines[-_SHOWN:]] or ["nothing"]
    return " | ".join(dict.fromkeys(line.strip()[:300] for line in chosen))
