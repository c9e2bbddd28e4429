"""A random model of the nano models' kind, for tests of what does not depend on what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archon.backends.nano.tokens import VOCABULARY
from archon.backends.nano.writing import write_folder

HIDDEN, LAYERS, HEADS, KEY_HEADS, FEED = 128, 2, 4, 2, 256  # heads of 32: vLLM has no smaller ones on a CPU


def random_folder(path: Path, *, scores: bool = False, seed: int = 0) -> Path:
    """Write the folder of a random language model, or of a random reward model."""
    draw = np.random.default_rng(seed)
    head = HIDDEN // HEADS

    def matrix(rows: int, columns: int) -> NDArray[np.float64]:
        return draw.normal(0, columns**-0.5, (rows, columns))

    tensors: dict[str, NDArray[Any]] = {
        "model.embed_tokens.weight": draw.normal(0, 0.3, (VOCABULARY, HIDDEN)),
        "model.norm.weight": np.ones(HIDDEN),
    }
    if scores:
        tensors["score.weight"] = matrix(1, HIDDEN)
    for layer in range(LAYERS):
        tensors |= {
            f"model.layers.{layer}.{name}.weight": value
            for name, value in (
                ("input_layernorm", np.ones(HIDDEN)),
                ("post_attention_layernorm", np.ones(HIDDEN)),
                ("self_attn.q_proj", matrix(HEADS * head, HIDDEN)),
                ("self_attn.k_proj", matrix(KEY_HEADS * head, HIDDEN)),
                ("self_attn.v_proj", matrix(KEY_HEADS * head, HIDDEN)),
                ("self_attn.o_proj", matrix(HIDDEN, HEADS * head)),
                ("mlp.gate_proj", matrix(FEED, HIDDEN)),
                ("mlp.up_proj", matrix(FEED, HIDDEN)),
                ("mlp.down_proj", matrix(HIDDEN, FEED)),
            )
        }
    config = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": head,
        "intermediate_size": FEED,
    }
    write_folder(path, tensors, config)
    return path
