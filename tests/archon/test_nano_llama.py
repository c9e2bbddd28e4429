"""The decoder's arithmetic: what it computes is Llama, and has the same bits in any company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archon.backends.nano.batch import Batch
from archon.backends.nano.folder import read_tensors
from archon.backends.nano.llama import Llama
from archon.backends.nano.reading import Prefix
from tests.archon.nano_model import random_folder


class Row:
    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix


def plainly(folder: Path, tokens: list[int]) -> Any:
    """Hidden states by the definition: every position looks at all before it, in float64 and without any cache."""
    config = json.loads((folder / "config.json").read_text())
    w = {
        name: tensor.astype(np.float64) for name, tensor in read_tensors(folder / "model.safetensors").items()
    }
    heads, kv, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]

    def normed(x: Any, gain: str) -> Any:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w[gain]

    def turned(x: Any) -> Any:
        angles = np.arange(len(x))[:, None] / 10000 ** (np.arange(0, size, 2) / size)
        cos, sin = np.cos(np.tile(angles, 2))[:, None], np.sin(np.tile(angles, 2))[:, None]
        return x * cos + np.concatenate((-x[..., size // 2 :], x[..., : size // 2]), -1) * sin

    x = w["model.embed_tokens.weight"][tokens]
    for number in range(config["num_hidden_layers"]):
        name = f"model.layers.{number}."
        y = normed(x, name + "input_layernorm.weight")
        q, k, v = ((y @ w[f"{name}self_attn.{p}_proj.weight"].T).reshape(len(x), -1, size) for p in "qkv")
        q, k = turned(q), turned(k)
        seen = np.zeros_like(q)
        for head in range(heads):
            theirs = head // (heads // kv)
            for at in range(len(x)):
                scores = k[: at + 1, theirs] @ q[at, head] / np.sqrt(size)
                chances = np.exp(scores - scores.max())
                seen[at, head] = chances / chances.sum() @ v[: at + 1, theirs]
        x = x + seen.reshape(len(x), -1) @ w[name + "self_attn.o_proj.weight"].T
        y = normed(x, name + "post_attention_layernorm.weight")
        gate, up = (y @ w[f"{name}mlp.{which}_proj.weight"].T for which in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[name + "mlp.down_proj.weight"].T
    return normed(x, "model.norm.weight")


def text(length: int, seed: int = 0) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(5, 101, length - 1).tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("weights") / "lm")


@pytest.fixture(scope="module")
def model(folder: Path) -> Llama:
    return Llama(folder)


def test_a_read_prompt_has_the_logits_of_the_definition(folder: Path, model: Llama) -> None:
    tokens = text(90)
    embedding = read_tensors(folder / "model.safetensors")["model.embed_tokens.weight"]
    expected = plainly(folder, tokens) @ embedding.T.astype(np.float64)
    np.testing.assert_allclose(model.read(tokens).outcome, expected, atol=1e-4)


def test_a_reward_model_has_the_scores_of_the_definition(tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "prm", scores=True)
    tokens = text(70)
    head = read_tensors(folder / "model.safetensors")["score.weight"][0]
    expected = plainly(folder, tokens) @ head.astype(np.float64)
    np.testing.assert_allclose(Llama(folder).read(tokens).outcome, expected, atol=1e-4)


def test_decoding_step_by_step_has_the_logits_of_reading_at_once(model: Llama) -> None:
    tokens = text(90)
    whole = model.read(tokens).outcome
    batch: Batch[Row] = Batch(model.shape, 4)
    batch.add(Row(model.read(tokens[:20])))
    for at in range(20, 90):  # beyond one block of own positions
        logits = model.step(np.array([tokens[at]]), batch)
        np.testing.assert_allclose(logits[0], whole[at], atol=1e-4)


def test_reading_on_after_a_shared_beginning_changes_no_bit(model: Llama) -> None:
    tokens = text(130)
    whole = model.read(tokens)
    for common in (1, 37, 64, 129):
        again = model.read(tokens[common:], model.read(tokens).cut(common))
        np.testing.assert_array_equal(again.outcome, whole.outcome)
        assert again.tokens == whole.tokens
    other = model.read([*tokens[:50], 7, 7, 7])
    np.testing.assert_array_equal(model.read(tokens[50:], other.cut(50)).outcome, whole.outcome)


@pytest.mark.parametrize("scores", [False, True])
def test_texts_that_are_read_together_have_the_bits_of_each_alone(tmp_path: Path, scores: bool) -> None:
    """Of many sizes, some after a beginning that was read, and two the same."""
    model = Llama(random_folder(tmp_path / "model", scores=scores))
    past = model.read(text(75, 9))
    draw = np.random.default_rng(4)
    texts = [
        (text(int(size), int(seed)), past if seed % 3 else None)
        for seed, size in enumerate(draw.integers(1, 90, 25))
    ]
    texts += [texts[4], (text(1), None), (text(64, 2), past.cut(64))]
    for prefix, (new, before) in zip(model.read_all(texts), texts, strict=True):
        single = model.read(new, before)
        assert prefix.tokens == single.tokens
        np.testing.assert_array_equal(prefix.outcome, single.outcome)
        np.testing.assert_array_equal(prefix.keys, single.keys)
        np.testing.assert_array_equal(prefix.values, single.values)
        assert prefix.keys.base is None, "it would keep the others' in memory"


def alone(model: Llama, prompt: list[int], reply: list[int]) -> list[NDArray[np.float32]]:
    batch: Batch[Row] = Batch(model.shape, 1)
    batch.add(Row(model.read(prompt)))
    return [model.step(np.array([token]), batch)[0] for token in reply]


def test_a_sample_gets_the_same_bits_in_any_company(model: Llama) -> None:
    """Samples of several prompts enter and leave at random; each step's logits are those it would get alone."""
    draw = np.random.default_rng(3)
    prompts = [text(length, seed) for seed, length in enumerate((5, 33, 64, 100))]
    prefixes = [model.read(prompt) for prompt in prompts]
    replies: list[tuple[int, list[int]]] = [
        (int(draw.integers(4)), draw.integers(5, 101, int(draw.integers(3, 70))).tolist()) for _ in range(30)
    ]
    expected = [alone(model, prompts[of], reply) for of, reply in replies]

    class Sample(Row):
        def __init__(self, number: int) -> None:
            super().__init__(prefixes[replies[number][0]])
            self.number, self.at = number, 0

    batch: Batch[Sample] = Batch(model.shape, 20)
    waiting = list(range(len(replies)))
    compared = 0
    while waiting or batch.rows:
        while waiting and len(batch) < 20 and draw.random() < 0.7:
            batch.add(Sample(waiting.pop()))
        if not batch.rows:
            continue
        logits = model.step(np.array([replies[s.number][1][s.at] for s in batch.rows]), batch)
        for place in reversed(range(len(batch))):
            sample = batch.rows[place]
            np.testing.assert_array_equal(logits[place], expected[sample.number][sample.at])
            sample.at += 1
            compared += 1
            if sample.at == len(replies[sample.number][1]):
                batch.remove(place)
    assert compared == sum(len(reply) for _, reply in replies)


def test_rows_of_one_prompt_stay_together_as_samples_leave(model: Llama) -> None:
    prefixes = [model.read(text(4, seed)) for seed in range(3)]
    batch: Batch[Row] = Batch(model.shape, 12)
    for prefix in prefixes:
        for _ in range(4):
            batch.add(Row(prefix))
    batch.make_room()
    for place in (9, 5, 1):
        batch.remove(place)
    assert len(batch) == 9
    assert len(list(batch.runs)) <= 5
