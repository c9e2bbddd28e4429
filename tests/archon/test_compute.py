"""FLOPs and bytes by a model's architecture: against sizes that are published, and against counting one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.scripted import Scripted
from archon.compute import Architecture, Flops, flops_of
from archon.errors import DataError

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
QWEN_HALF = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    "dtype": "bfloat16",
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "tie_word_embeddings": False,
    "num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN_30B_A3B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "torch_dtype": "bfloat16",
}  # fmt: skip
PYTHIA = {
    "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 8,
    "intermediate_size": 8192, "vocab_size": 50304, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip

SMALL = Architecture(layers=2, hidden=8, heads=2, kv_heads=1, ffn=24, vocab=50, tied=True, dtype="float32")
COUNTS = st.integers(0, 60)


def read(folder: Path, config: dict[str, Any]) -> Architecture:
    (folder / "config.json").write_text(json.dumps(config))
    return Architecture.read(folder)


@pytest.mark.parametrize(
    ("config", "parameters", "active"),
    [
        (LLAMA_8B, 8.03e9, 8.03e9),
        (QWEN_HALF, 0.494e9, 0.494e9),
        (MIXTRAL, 46.7e9, 12.9e9),
        (QWEN_30B_A3B, 30.5e9, 3.3e9),
        (PYTHIA, 1.01e9, 1.01e9),
    ],
    ids=["llama", "qwen2", "mixtral", "qwen3_moe", "gpt_neox"],
)
def test_a_config_json_gives_the_size_its_authors_publish(
    tmp_path: Path, config: dict[str, Any], parameters: float, active: float
) -> None:
    model = read(tmp_path, config)
    assert model.parameters == pytest.approx(parameters, rel=0.005)
    assert model.active_parameters == pytest.approx(active, rel=0.02)


def test_bytes_are_those_of_the_weights_and_of_grouped_keys_and_values(tmp_path: Path) -> None:
    model = read(tmp_path, LLAMA_8B)
    assert model.weight_bytes == 2 * model.parameters
    assert model.kv_bytes == 128 * 1024, "2 x 32 layers x 8 heads x 128 x 2 bytes"
    wide = model.model_copy(update={"kv_heads": None})
    assert wide.kv_bytes == 4 * model.kv_bytes


def test_flops_are_about_two_per_parameter_and_token_for_short_texts(tmp_path: Path) -> None:
    """Kaplan et al. 2020: the simple form is the exact one without attention and embeddings."""
    model = read(tmp_path, LLAMA_8B)
    exact, simple = model.flops.of(1, 0, 100), Flops(2 * model.parameters, exact=False).of(1, 0, 100)
    assert 0.9 < exact / simple < 1


def one_by_one(model: Architecture, prompt: int, cached: int, lengths: list[int]) -> int:
    """Every matrix product of an engine with a key-value cache, counted as it would be done."""
    head_dim = model.hidden // model.heads
    keys = model.kv_heads or model.heads

    def fed(position: int) -> int:
        attention = 2 * model.hidden * head_dim * (2 * model.heads + 2 * keys)
        scores_and_values = 2 * (2 * model.heads * head_dim * position)
        return model.layers * (attention + scores_and_values + 2 * 3 * model.hidden * model.ffn)

    count = sum(fed(position) for position in range(cached + 1, prompt + 1))
    for length in lengths:
        for step in range(length):
            count += 2 * model.hidden * model.vocab
            if step + 1 < length:  # the last token is not fed back
                count += fed(prompt + step + 1)
    return count


@settings(deadline=None)
@given(prompt=COUNTS, kept=COUNTS, completion=COUNTS, samples=st.integers(1, 4))
def test_flops_are_the_sum_over_every_token_s_own_context(
    prompt: int, kept: int, completion: int, samples: int
) -> None:
    cached = min(kept, prompt)
    each, longer = divmod(completion, samples)
    lengths = [each + 1] * longer + [each] * (samples - longer)
    found = SMALL.flops.of(prompt, cached, completion, samples)
    assert found == one_by_one(SMALL, prompt, cached, lengths)


@settings(deadline=None)
@given(prompt=COUNTS, lengths=st.lists(COUNTS, min_size=1, max_size=4))
def test_the_samples_of_a_request_add_up_to_the_request(prompt: int, lengths: list[int]) -> None:
    """The prompt is counted with the first sample; the others only see it."""
    first, *others = lengths
    apart = SMALL.flops.of(prompt, 0, first) + sum(SMALL.flops.of(0, 0, n, context=prompt) for n in others)
    assert apart == one_by_one(SMALL, prompt, 0, lengths)


@settings(deadline=None)
@given(prompt=COUNTS, more=COUNTS, completion=COUNTS, longer=COUNTS, cached=COUNTS)
def test_a_bound_on_the_tokens_is_a_bound_on_the_flops(
    prompt: int, more: int, completion: int, longer: int, cached: int
) -> None:
    used = SMALL.flops.of(prompt, min(cached, prompt), completion)
    assert used <= SMALL.flops.of(prompt + more, 0, completion + longer)


def test_experts_that_a_token_does_not_meet_cost_no_flops() -> None:
    whole = {"layers": 1, "hidden": 8, "heads": 2, "ffn": 16, "vocab": 10, "active_experts": 2}
    few, many = Architecture(experts=4, **whole), Architecture(experts=8, **whole)
    router = 2 * 8 * 4
    assert many.flops.per_token - few.flops.per_token == router
    assert many.parameters > few.parameters


def test_a_scoring_model_has_no_output_matrix(tmp_path: Path) -> None:
    scores = read(tmp_path, {**LLAMA_8B, "architectures": ["LlamaForSequenceClassification"]})
    writes = read(tmp_path, LLAMA_8B)
    assert writes.parameters - scores.parameters == 4096 * 128256


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "'mamba' is not known"),
        ({"model_type": "qwen3_moe", "num_experts": 8, "mlp_only_layers": [0]}, "only some of its layers"),
        ({"hidden_size": None}, "unsupported operand"),
        ({"num_hidden_layers": 0}, "validation error"),
        ({"quantization_config": {"quant_method": "exotic"}}, "'exotic' is not known"),
    ],
)
def test_what_cannot_be_counted_is_refused_and_never_guessed(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s){said}.*parameters"):
        read(tmp_path, {**LLAMA_8B, **change})


@pytest.mark.parametrize("text", ["[]", "no json", "{}"])
def test_a_file_that_is_no_config_json_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match="is no architecture"):
        Architecture.read(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        Architecture.read(tmp_path / "absent.json")


def test_quantised_weights_are_as_small_as_they_say(tmp_path: Path) -> None:
    awq = read(tmp_path, {**LLAMA_8B, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert awq.weight_bytes == awq.parameters / 2


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"kv_heads": 3}, {"experts": 2}, {"experts": 2, "active_experts": 3}]
)
def test_numbers_that_do_not_fit_together_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Architecture(**{"layers": 1, "hidden": 8, "heads": 4, "ffn": 16, "vocab": 10, **wrong})


def test_the_architecture_wins_over_the_parameters_and_neither_is_unknown(tmp_path: Path) -> None:
    assert flops_of(None, None) is None
    assert flops_of(None, 7e9) == Flops(14_000_000_000, exact=False)
    assert flops_of(SMALL, 7e9) == SMALL.flops
    model = read(tmp_path, LLAMA_8B)
    assert Scripted(architecture=tmp_path).shape() == model
    assert Scripted(architecture=model, parameters=1).flops() == model.flops
