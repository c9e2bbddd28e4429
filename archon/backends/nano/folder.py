"""A model's folder in Hugging Face's format: its shape from `config.json`, its weights from `model.safetensors`.

A safetensors file is eight bytes with the length of a JSON header, the header (type, shape and place of each
tensor), and the numbers: nothing in it is run. Only float32 is read, which is what our training writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from archon.backends.nano.tokens import BOS, EOS, VOCABULARY, shown
from archon.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHIPPED = Path(__file__).parent / "weights"
_REWARDS = "LlamaForSequenceClassification"
_MOST_HEADER = 1 << 20
_MOST_BYTES = 1 << 30
_MOST_SIZE = 1 << 16
_MOST_POSITIONS = 8192
"""A prompt is read at once, with memory for every pair of its positions."""


class Shape(NamedTuple):
    """How large a model is."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    positions: int
    theta: float
    eps: float
    rewards: bool
    """Whether it gives one number per position instead of the next token."""


def locate(weights: str) -> Path:
    """The folder of shipped weights, or of a path. Raises DataError."""
    folder, found = SHIPPED / weights, False
    with suppress(OSError):  # no name of a file, or not for us to see
        if weights in ("", ".", "..") or "/" in weights or not folder.is_dir():
            folder = Path(weights)
        found = (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
    if not found:
        shipped = sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()) if SHIPPED.is_dir() else []
        raise DataError(
            f"there are no weights {weights!r:.200}: neither shipped ({', '.join(shipped) or 'none are'}) nor a folder "
            "with `config.json` and `model.safetensors`"
        )
    return folder.resolve()


def read_shape(folder: Path) -> Shape:
    """The shape by `config.json`. Raises DataError where it is not a model that we run."""
    config = _read_json(folder / "config.json")
    try:
        shape, rules = _shape(config), tuple(_rules(config))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{str(folder / 'config.json')!r} is no model's configuration ({error!s:.200})"
        ) from error
    rules += _vocabulary_rules(folder)
    for holds, rule in rules:
        if not holds:
            raise DataError(f"{str(folder)!r} is not a model that the nano engine runs: {rule}")
    return shape


def _shape(config: Mapping[str, Any]) -> Shape:
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    return Shape(
        hidden=hidden,
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", hidden // heads),
        feed_forward=_size(config, "intermediate_size"),
        vocabulary=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings"),
        theta=_number(config, "rope_theta", _number(_rope(config), "rope_theta", 10000.0)),
        eps=_number(config, "rms_norm_eps", 1e-6),
        rewards=_REWARDS in config.get("architectures", ()),
    )


def _rules(config: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """What a model must be to be run here, and what to say where it is not."""
    shape, rope = _shape(config), _rope(config)
    kind, made = config.get("model_type"), config.get("architectures")
    yield kind == "llama", f"`model_type` is {kind!r:.40}, not 'llama'"
    known = made in (["LlamaForCausalLM"], [_REWARDS])
    yield known, f"`architectures` is {made!r:.80}, neither ['LlamaForCausalLM'] nor [{_REWARDS!r}]"
    characters = shape.vocabulary
    yield characters == VOCABULARY, f"`vocab_size` is {characters}; models here have {VOCABULARY} characters"
    for name, token in (("bos_token_id", BOS), ("eos_token_id", EOS)):
        yield (
            config.get(name, token) in (token, [token]),
            f"`{name}` is {config.get(name)!r:.40}, not {token}",
        )
    tied = shape.rewards or config.get("tie_word_embeddings") is True
    yield tied, "`tie_word_embeddings` is not true: a head of its own is not read"
    yield shape.heads % shape.kv_heads == 0, "heads are no multiple of key-value heads"
    yield shape.head_dim % 2 == 0, "`head_dim` is odd, so that its halves cannot be turned"
    most = _MOST_POSITIONS
    yield shape.positions <= most, f"`max_position_embeddings` is {shape.positions}; at most {most} are read"
    yield not config.get("attention_bias") and not config.get("mlp_bias"), "biases are not read"
    scaled = bool(config.get("rope_scaling")) or rope.get("rope_type", "default") != "default"
    partial = {c.get("partial_rotary_factor") or 1 for c in (config, rope)} != {1}
    yield not scaled and not partial, "rotary positions are scaled or partial, which is not done here"
    yield rope.get("rope_theta", shape.theta) == shape.theta, "`rope_theta` is given twice, and differs"
    act = config.get("hidden_act", "silu")
    yield act == "silu", f"`hidden_act` is {act!r:.40}, not 'silu'"


def _vocabulary_rules(folder: Path) -> tuple[tuple[bool, str], ...]:
    """That its tokenizer, where the folder has one, has our tokens."""
    if not (folder / "tokenizer.json").exists():
        return ()
    model = _read_json(folder / "tokenizer.json").get("model")
    ours = {shown(token): token for token in range(VOCABULARY)}
    theirs = model.get("vocab") if isinstance(model, dict) else None
    return ((theirs == ours, "`tokenizer.json` has other tokens than one per character"),)


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or not 1 <= value <= _MOST_SIZE:
        raise ValueError(f"`{name}` is {value!r:.40}, not a whole number from 1 to {_MOST_SIZE}")
    return value


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 < value < 1e15:
        raise ValueError(f"`{name}` is {value!r:.40}, not a positive number")
    return float(value)


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    rope: Mapping[str, Any] = config.get("rope_parameters") or {}
    return rope


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_HEADER:
            raise ValueError(f"larger than {_MOST_HEADER} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error!s:.200})") from error
    return value


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a safetensors file. Raises DataError where it is malformed."""
    import numpy as np

    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{str(path)!r} is larger than {_MOST_BYTES >> 20} MiB, and no nano model's")
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MOST_HEADER, len(data) - 8):
        raise DataError(f"{str(path)!r} is no safetensors file: its header does not fit")
    body = memoryview(data)[8 + size :]
    tensors, end = {}, 0
    try:
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            shape, (start, stop) = entry["shape"], entry["data_offsets"]
            if entry["dtype"] != "F32":
                raise DataError(f"{str(path)!r}: {name!r:.80} is {entry['dtype']!r:.20}; only F32 is read")
            if any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
                raise ValueError(f"{name!r:.80} has no shape")
            if start != end or stop > len(body) or stop - start != 4 * math.prod(shape):
                raise DataError(f"{str(path)!r}: {name!r:.80} does not lie where the header says")
            tensors[name] = np.frombuffer(body[start:stop], "<f4").reshape(shape)
            end = stop
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no safetensors file: its header is malformed") from error
    if end != len(body):
        raise DataError(f"{str(path)!r}: {len(body) - end} bytes at its end belong to no tensor")
    return tensors


def fingerprint(folder: Path) -> str:
    """What tells this model from others: the SHA-256 of its weights, and of what `config.json` makes of them.

    Raises DataError.
    """
    path, shape = folder / "model.safetensors", read_shape(folder)
    try:
        status = path.stat()
        return _hashed(path, status.st_mtime_ns, status.st_size, shape)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error})") from error


@lru_cache(maxsize=16)
def _hashed(path: Path, stamp: int, size: int, shape: Shape) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(repr(tuple(shape)).encode())
    return digest.hexdigest()
