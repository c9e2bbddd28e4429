"""What this installation can use: backends, engines and extras, each with what is missing and how to get it.

Nothing is sent and no model is loaded: a backend's own `check` is asked, an engine's files are looked for, an extra's
packages by their metadata. Secrets are never read further than whether they are there. docs/doctor.md has the schema.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from archon import registry
from archon.backends.base import Model
from archon.errors import ArchonError

_PLACEHOLDERS = {"base_url": "http://localhost", "path": ".", "url": "http://localhost"}
"""Stand in for settings that a backend cannot do without, so that it can be asked what else it lacks."""
_GET = {
    "openai": "export OPENAI_API_KEY=..., or give `base_url:` (or OPENAI_BASE_URL) for a server of your own",
    "nano": "python -m archon.benchmarks.lab.training --out FOLDER, with the extra `train`; or install a release",
    "vllm": "pip install 'archon[vllm]' with a GPU; docs/vllm.md for a CPU; or `url:` of a server that runs",
}
_SHIPPED = ("lm", "prm", "orm")
_VLLM_HERE = Path(".venv-vllm/bin/python")
KEYS = ("OPENAI_API_KEY", "VLLM_API_KEY")
"""Environment variables that hold keys."""


class Part(NamedTuple):
    """Something that can be used here, or not."""

    name: str
    usable: bool
    missing: str = ""
    """Why not; empty where it can be used."""
    get: str = ""
    """How to get it: a command where there is one; empty where it can be used."""
    about: str = ""
    """What was found: a version, a place; the settings that it needs."""


def backends() -> list[Part]:
    """Every registered backend, and whether a model of it could be called now."""
    return [_backend(name) for name in registry.names("backend")]


def _backend(name: str) -> Part:
    needs = ""
    try:
        kind: type[Model] = registry.find("backend", name)
        required = [key for key, info in kind.model_fields.items() if info.is_required()]
        needs = f"needs {', '.join(f'`{key}`' for key in required)}" if required else ""
        kind.model_validate({key: _PLACEHOLDERS.get(key, "model") for key in required}).check()
    except ValidationError:  # its settings are of other kinds than ours
        return Part(name, True, about=needs)
    except ArchonError as error:
        return Part(name, False, str(error), _GET.get(name, ""))
    except Exception as error:  # of whoever wrote it: the others are examined all the same
        return Part(name, False, _masked(f"it is broken: {type(error).__name__}: {error}"))
    return Part(name, True, about=needs)


def _masked(text: str) -> str:
    """What others say, in one line, without our keys."""
    for secret in filter(None, map(os.environ.get, KEYS)):
        text = text.replace(secret, "***")
    return " ".join(text.split())


def engines() -> list[Part]:
    """What runs models on this machine: the nano weights, a Python with vLLM, torch."""
    return [_nano(), _vllm(), _torch()]


def _nano() -> Part:
    from archon.backends.nano.folder import SHIPPED

    absent = [w for w in _SHIPPED if not (SHIPPED / w / "model.safetensors").is_file()]
    if absent:
        return Part("nano", False, f"the weights {', '.join(absent)} do not ship", _GET["nano"])
    return Part("nano", True, about=str(SHIPPED))


def _vllm() -> Part:
    from archon.backends.vllm.config import VLLM

    try:
        return Part("vllm", True, about=VLLM(model="model").interpreter())
    except ArchonError as error:
        get = _GET["vllm"]
        if "ARCHON_VLLM_PYTHON" not in os.environ and _VLLM_HERE.exists():
            get = f"export ARCHON_VLLM_PYTHON={_VLLM_HERE.absolute()}"
        return Part("vllm", False, str(error), get)


def _torch() -> Part:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:  # or just a folder of that name
        return Part("torch", False, "torch is not installed; only training needs it", _install("train"))
    return Part("torch", True, about=metadata.version("torch") if _installed("torch") else spec.origin)


def extras() -> list[Part]:
    """Every extra of this package: usable where all its packages are installed."""
    wanted: dict[str, list[str]] = {
        extra: [] for extra in metadata.metadata("archon").get_all("Provides-Extra") or ()
    }
    for requirement in metadata.requires("archon") or ():
        extra, name = re.search(r"extra == ['\"]([\w-]+)", requirement), re.match(r"[\w.-]+", requirement)
        if extra and name:
            wanted[extra[1]].append(name[0])
    return [_extra(extra, names) for extra, names in sorted(wanted.items())]


def _extra(extra: str, names: list[str]) -> Part:
    absent = [name for name in names if not _installed(name)]
    if absent:
        return Part(extra, False, f"not installed: {', '.join(absent)}", _install(extra))
    return Part(extra, True, about=", ".join(names))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _install(extra: str) -> str:
    return f"pip install 'archon[{extra}]'"


def surroundings() -> dict[str, Any]:
    """All of it, as JSON."""
    return {
        "backends": [part._asdict() for part in backends()],
        "engines": [part._asdict() for part in engines()],
        "extras": [part._asdict() for part in extras()],
        "keys": {name: bool(os.environ.get(name)) for name in KEYS},
    }
