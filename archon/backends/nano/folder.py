"""A model's folder in Hugging Face's format: its shape from `config.json`, its weights from `model.safetensors`.

A safetensors file is eight bytes with the length of a JSON header, the header (type, shape and place of each
tensor), and the numbers: nothing in it is run. Only float32 is read, which is what our training writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from archon.backends.nano.tokens import VOCABULARY
from archon.backends.nano.writing import write_folder as write_folder
from archon.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHIPPED = Path(__file__).parent / "weights"
_MOST_HEADER = 1 << 20


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

    @property
    def parameters(self) -> int:
        """How many numbers it has; the embedding serves at both ends."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        return self.layers * layer + (self.vocabulary + 1 + self.rewards) * self.hidden


def locate(weights: str) -> Path:
    """The folder of shipped weights, or of a path. Raises DataError."""
    folder = SHIPPED / weights
    if weights in ("", ".", "..") or "/" in weights or not folder.is_dir():
        folder = Path(weights)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        shipped = sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()) if SHIPPED.is_dir() else []
        raise DataError(
            f"there are no weights {weights!r}: neither shipped ({', '.join(shipped) or 'none are'}) nor a folder "
            "with `config.json` and `model.safetensors`"
        )
    return folder.resolve()


def read_shape(folder: Path) -> Shape:
    """The shape by `config.json`. Raises DataError where it is not a model that we run."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = _shape(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{str(folder / 'config.json')!r} is no model's configuration ({error!r:.200})"
        ) from error
    rules = (
        (config.get("model_type") == "llama", f"`model_type` is {config.get('model_type')!r}, not 'llama'"),
        (
            shape.vocabulary == VOCABULARY,
            f"`vocab_size` is {shape.vocabulary}; models here have {VOCABULARY} characters",
        ),
        (
            shape.rewards or config.get("tie_word_embeddings") is True,
            "`tie_word_embeddings` is not true: a head of its own is not read",
        ),
        (
            shape.kv_heads > 0 and shape.heads % shape.kv_heads == 0,
            "heads are no multiple of key-value heads",
        ),
        (shape.head_dim % 2 == 0, "`head_dim` is odd, so that its halves cannot be turned"),
        (not config.get("attention_bias") and not config.get("mlp_bias"), "biases are not read"),
        (
            not config.get("rope_scaling")
            and (config.get("rope_parameters") or {}).get("rope_type", "default") == "default",
            "rotary positions are scaled, which is not done here",
        ),
        (
            config.get("hidden_act", "silu") == "silu",
            f"`hidden_act` is {config.get('hidden_act')!r}, not 'silu'",
        ),
    )
    for holds, rule in rules:
        if not holds:
            raise DataError(f"{str(folder)!r} is not a model that the nano engine runs: {rule}")
    return shape


def _shape(config: dict[str, Any]) -> Shape:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    rope = config.get("rope_parameters") or {}
    return Shape(
        hidden=hidden,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        feed_forward=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        positions=int(config["max_position_embeddings"]),
        theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        rewards="LlamaForSequenceClassification" in config.get("architectures", ()),
    )


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a safetensors file. Raises DataError where it is malformed."""
    import numpy as np

    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MOST_HEADER, len(data) - 8):
        raise DataError(f"{str(path)!r} is no safetensors file: its header does not fit")
    body = memoryview(data)[8 + size :]
    tensors = {}
    try:
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            shape = tuple(map(int, entry["shape"]))
            start, stop = map(int, entry["data_offsets"])
            if entry["dtype"] != "F32":
                raise DataError(f"{str(path)!r}: {name} is {entry['dtype']}; only F32 is read")
            if not 0 <= start <= stop <= len(body) or stop - start != 4 * math.prod(shape):
                raise DataError(f"{str(path)!r}: {name} does not lie where the header says")
            tensors[name] = np.frombuffer(body[start:stop], "<f4").reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{str(path)!r} is no safetensors file: its header is malformed") from error
    return tensors


def fingerprint(folder: Path) -> str:
    """What tells these weights from others: the SHA-256 of their file."""
    path = folder / "model.safetensors"
    status = path.stat()
    return _hashed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _hashed(path: Path, stamp: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
