"""Reading the original Archon's JSON configurations: what counts, what never did, what is misspelt.

Source: Saad-Falcon et al. 2024, "Archon: An Architecture Search Framework for Inference-Time Techniques"
(arXiv 2409.15254), section 3.2, and the configurations that its repository ships, which are checked by nothing
there. A key that the original ignores is left out and noted; one that it ignores because it is misspelt is noted
with the key that was meant. A value that cannot be meant is an error, with its place. Cost: no calls.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import Any, Literal, NamedTuple, cast, get_args

from archon.config.source import Source, dots, shown
from archon.errors import ConfigError, DataError, Flaw
from archon.suggest import hint, nearest

Kind = Literal[
    "generator", "ranker", "fuser", "critic", "verifier", "unit_test_generator", "unit_test_evaluator"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MOST_BYTES = 10_000_000
_TOP = ("name", "custom", "layers")
_COMMON = ("type", "model", "model_type", "temperature", "max_tokens", "samples", "no_system")
_OWN: dict[Kind, tuple[str, ...]] = {
    "generator": (),
    "ranker": ("top_k",),
    "fuser": ("length_control",),
    "critic": (),
    "verifier": ("first_k",),
    "unit_test_generator": ("unit_test_cap",),
    "unit_test_evaluator": ("top_k", "first_k", "first_pass", "remove_unit_tests_from_prompt"),
}
_NEVER_READ = {
    "branches": "",
    "checkpoint": "",
    "batch_num": "",
    "top_k_generations": "",
    "fuse_generations_count": "",
    "ranker_config": "",
    "ranker_batch_size": "only PairRM went by it",
    "use_critiques": "critiques are shown to a ranker wherever there are some",
}
"""Keys that change nothing in the original, and why, where there is something to say."""
PAIR_RM = "llm-blender/PairRM"
"""The one model that the original's ranker runs by itself, whatever `model_type` says."""


class Part(NamedTuple):
    """One component of a layer."""

    kind: Kind
    model: str
    provider: str
    """The `model_type`: which interface serves the model."""
    path: str
    """Its place in the file."""
    samples: int = 1
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None
    first_k: int | None = None
    unit_test_cap: int | None = None
    length_control: bool = False
    keeps_tests: bool = False
    """Whether an evaluator is shown the question with the tests written into it."""


class Original(NamedTuple):
    """A configuration of the original."""

    name: str
    layers: tuple[tuple[Part, ...], ...]
    notes: tuple[str, ...]
    """What was left out or read otherwise than it stands there; one line each."""


class Notes:
    """Notes by what they say; each names the places that it is about."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, place: str, what: str) -> None:
        """Note something about a place."""
        self._places.setdefault(what, []).append(place)

    def lines(self) -> tuple[str, ...]:
        """One line per note."""
        return tuple(f"{_listed(places)}: {what}" for what, places in self._places.items())


def _listed(places: list[str]) -> str:
    first, *rest = dict.fromkeys(places)
    return f"{first} and {len(rest)} more" if rest else first


def read_original(path: File) -> Original:
    """Read a configuration of the original. Raises DataError or ConfigError with everything that is wrong."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{str(path)!r} has more than {_MOST_BYTES // 10**6} MB; that is no configuration"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError([Flaw(str(path), f"it is no text (byte {error.start} is not UTF-8)")]) from None
    return parsed(text, str(path))


def parsed(text: str, name: str = "") -> Original:
    """A configuration from its text. Raises ConfigError with everything that is wrong."""
    notes = Notes()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                notes.add("file", f"the key {shown(key)} is given twice in one place; the last counts")
            found[key] = value
        return found

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{name}:{error.lineno}" if name else f"line {error.lineno}"
        raise ConfigError([Flaw(place, f"not valid JSON: {error.msg} (column {error.colno})")]) from None
    except RecursionError:
        raise ConfigError([Flaw(name, "nested too deeply")]) from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError([Flaw(name, f"not valid JSON: {error}")]) from None
    reader = _Reader(Source(data, name), notes)
    layers = reader.layers()
    if reader.flaws:
        raise ConfigError(reader.flaws)
    given = data.get("name")
    return Original(given if isinstance(given, str) else "", layers, notes.lines())


Path = tuple[str | int, ...]
_Check = tuple[Callable[[Any], bool], str]
_WHOLE: _Check = (lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1, "a number from 1 up")
_TRUTH: _Check = (lambda v: isinstance(v, bool), "true or false")
_HEAT: _Check = (
    lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v >= 0 and math.isfinite(v),
    "a number from 0 up",
)


class _Reader:
    """Reads one configuration, collecting what is wrong and what is to be said."""

    def __init__(self, source: Source, notes: Notes) -> None:
        self.source = source
        self.notes = notes
        self.flaws: list[Flaw] = []

    def flaw(self, path: Path, what: str, next_step: str = "") -> None:
        self.flaws.append(Flaw(self.source.where(path), what, next_step))

    def layers(self) -> tuple[tuple[Part, ...], ...]:
        """The layers; those that cannot be read are left out, and the flaws say why."""
        data = self.source.data
        if not isinstance(data, Mapping):
            self.flaw((), f"expected an object with `layers`, and found {shown(data)}")
            return ()
        self._unknown(data, (), _TOP)
        if "layers" not in data:
            self._missing(data, (), "layers", _TOP)
            return ()
        layers = data["layers"]
        if not isinstance(layers, list) or not layers:
            self.flaw(("layers",), f"expected a list of layers, and found {shown(layers)}")
            return ()
        return tuple(self._layer(layer, ("layers", i)) for i, layer in enumerate(layers))

    def _layer(self, layer: Any, path: Path) -> tuple[Part, ...]:
        """A list of components; the older `{"models": [...]}`; or one component as it is."""
        if isinstance(layer, Mapping) and "type" in layer:
            self.notes.add(dots(path), "a component without its list; read as a layer of one")
            layer = [layer]
        elif isinstance(layer, Mapping) and "models" in layer:
            self._unknown(layer, path, ("models",))
            path, layer = (*path, "models"), layer["models"]
        if not isinstance(layer, list) or not layer:
            self.flaw(path, f"expected a list of components, and found {shown(layer)}")
            return ()
        read = (self._part(part, (*path, i)) for i, part in enumerate(layer))
        return tuple(part for part in read if part is not None)

    def _part(self, data: Any, path: Path) -> Part | None:
        if not isinstance(data, Mapping):
            self.flaw(path, f"expected a component, and found {shown(data)}")
            return None
        kind = data.get("type")
        if kind not in KINDS:
            self._no_kind(data, path)
            return None
        before = len(self.flaws)
        known = (*_COMMON, *_OWN[cast(Kind, kind)])
        self._unknown(data, path, known, a=f"a {kind}")

        def value(key: str, check: _Check) -> Any:
            given = data.get(key) if key in known else None
            if given is None or check[0](given):
                return given
            self.flaw((*path, key), f"expected {check[1]}, and found {shown(given)}")
            return None

        model = self._text(data, path, "model", known)
        own = kind == "ranker" and model == PAIR_RM
        provider = "" if own else self._text(data, path, "model_type", known)
        samples = value("samples", _WHOLE)
        first_k = value("first_k", _WHOLE)
        if value("first_pass", _TRUTH) and first_k is None:
            first_k = 1
        part = Part(
            cast(Kind, kind),
            model,
            provider,
            dots(path),
            1 if samples is None else samples,
            value("temperature", _HEAT),
            value("max_tokens", _WHOLE),
            value("top_k", _WHOLE),
            first_k,
            value("unit_test_cap", _WHOLE),
            bool(value("length_control", _TRUTH)),
            value("remove_unit_tests_from_prompt", _TRUTH) is False,
        )
        if value("no_system", _TRUTH):
            self.notes.add(
                part.path, "`no_system` is left out: what a problem says to the system is part of the problem"
            )
        if part.kind not in ("generator", "fuser") and part.samples > 1:
            self.notes.add(part.path, f"a {kind} answers once, whatever `samples` says")
            part = part._replace(samples=1)
        return part if len(self.flaws) == before else None

    def _text(self, data: Mapping[str, Any], path: Path, key: str, known: tuple[str, ...]) -> str:
        """A text that must be there, and that any file can hold."""
        text = data.get(key)
        if text is None:
            self._missing(data, path, key, known)
            return ""
        if not isinstance(text, str) or not text or not text.isprintable():
            self.flaw((*path, key), f"expected a name, and found {shown(text)}")
            return ""
        return text

    def _missing(self, data: Mapping[str, Any], path: Path, key: str, known: tuple[str, ...]) -> None:
        misspelt = next((k for k in data if k not in known and nearest(k, known) == key), None)
        meant = "" if misspelt is None else f"Is {shown(misspelt)} meant to be it?"
        self.flaw((*path, key), "it is missing", meant)

    def _no_kind(self, data: Mapping[str, Any], path: Path) -> None:
        kind = data.get("type")
        if kind is None:
            self._missing(data, path, "type", _COMMON)
            return
        own = self.source.data.get("custom") is True
        self.flaw(
            (*path, "type"),
            f"there is no component {shown(kind)}",
            "A component of one's own is a stage here, and has no JSON"
            if own
            else hint(kind if isinstance(kind, str) else "", KINDS),
        )

    def _unknown(self, data: Mapping[str, Any], path: Path, known: tuple[str, ...], a: str = "") -> None:
        """Note every key that the original does not read. Its value may be anything, a secret too, and is not
        shown."""
        elsewhere = {key for keys in _OWN.values() for key in keys}
        for key in data:
            if key in known:
                continue
            name = f"`{key}`" if key.isprintable() and len(key) <= 60 else shown(key)
            if key in _NEVER_READ or key in elsewhere:
                why = _NEVER_READ.get(key, "")
                if key in elsewhere and a:
                    why = f"{a} does not go by it"
                self.notes.add(dots(path) or "file", f"{name} is left out: {why or 'it never had an effect'}")
                continue
            meant = nearest(key, known)
            also = f"; `{meant}` is meant" if meant else ""
            self.notes.add(
                dots(path) or "file", f"{name} is no key, and is left out as the original left it out{also}"
            )
