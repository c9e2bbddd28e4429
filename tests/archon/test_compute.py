"""FLOPs and bytes by a model's architecture: against sizes that are published, and against counting one by one."""

from __future__ import annotations

import json
from dataclasses import replace
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
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28,
}  # fmt: skip
QWEN_MOE = {
    "model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_experts_per_tok": 4, "vocab_size": 151936,
    "tie_word_embeddings": False, "decoder_sparse_step": 1, "torch_dtype": "bfloat16",
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "tie_word_embeddings": False,
    "sliding_window": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA2_9B = {
    "model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 14336, "vocab_size": 256000,
    "sliding_window": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
STARCODER2_3B = {
    "model_type": "starcoder2", "hidden_size": 3072, "num_hidden_layers": 30, "num_attention_heads": 24,
    "num_key_value_heads": 2, "intermediate_size": 12288, "vocab_size": 49152, "torch_dtype": "bfloat16",
}  # fmt: skip
SMOLLM3_3B = {
    "model_type": "smollm3", "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 4, "intermediate_size": 11008, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
PYTHIA = {
    "model_type": "gpt_neox", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 8,
    "intermediate_size": 8192, "vocab_size": 50304, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip

SMALL = Architecture(layers=2, hidden=8, heads=2, kv_heads=1, ffn=24, vocab=50, tied=True, dtype="float32")
NEAR = SMALL.model_copy(update={"layers": 5, "window": 7, "windowed": 3})
"""Three of its five layers see seven tokens."""
COUNTS = st.integers(0, 60)
MODELS = st.sampled_from([SMALL, NEAR])


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
        (QWEN_7B, 7.62e9, 7.62e9),
        (QWEN_MOE, 14.3e9, 2.7e9),
        (MISTRAL_7B, 7.24e9, 7.24e9),
        (GEMMA2_9B, 9.24e9, 9.24e9),
        (STARCODER2_3B, 3.03e9, 3.03e9),
        (SMOLLM3_3B, 3.08e9, 3.08e9),
    ],
    ids=[
        "llama",
        "qwen2",
        "mixtral",
        "qwen3_moe",
        "gpt_neox",
        "qwen2_7b",
        "qwen2_moe",
        "mistral",
        "gemma2",
        "starcoder2",
        "smollm3",
    ],
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


def test_flops_of_a_request_as_counted_by_hand(tmp_path: Path) -> None:
    """Llama-3.1-8B and Mixtral-8x7B, a prompt of 1,000 tokens and a reply of 200."""
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024  # q and o, k and v
    pairs = 1199 * 1200 // 2
    for config, ffn in (
        (LLAMA_8B, 3 * 4096 * 14336),
        (MIXTRAL, 2 * 3 * 4096 * 14336 + 4096 * 8),
    ):
        vocab = config["vocab_size"]
        assert isinstance(vocab, int)
        by_hand = 2 * 32 * (attention + ffn) * (1000 + 199) + 4 * 32 * 4096 * pairs + 2 * 4096 * vocab * 200
        assert read(tmp_path, config).flops.of(1000, 0, 200) == by_hand


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
        each = attention + 2 * 3 * model.hidden * model.ffn
        seen = (model.layers - model.windowed) * position + model.windowed * min(position, model.window or 0)
        return model.layers * each + 2 * (2 * model.heads * head_dim) * seen

    count = sum(fed(position) for position in range(cached + 1, prompt + 1))
    for length in lengths:
        for step in range(length):
            count += 2 * model.hidden * model.vocab
            if step + 1 < length:  # the last token is not fed back
                count += fed(prompt + step + 1)
    return count


@settings(deadline=None)
@given(model=MODELS, prompt=COUNTS, kept=COUNTS, completion=COUNTS, samples=st.integers(1, 4))
def test_flops_are_the_sum_over_every_token_s_own_context(
    model: Architecture, prompt: int, kept: int, completion: int, samples: int
) -> None:
    cached = min(kept, prompt)
    each, longer = divmod(completion, samples)
    lengths = [each + 1] * longer + [each] * (samples - longer)
    found = model.flops.of(prompt, cached, completion, samples)
    assert found == one_by_one(model, prompt, cached, lengths)


@settings(deadline=None)
@given(model=MODELS, prompt=COUNTS, lengths=st.lists(COUNTS, min_size=1, max_size=4))
def test_the_samples_of_a_request_add_up_to_the_request(
    model: Architecture, prompt: int, lengths: list[int]
) -> None:
    """The prompt is counted with the first sample; the others only see it."""
    first, *others = lengths
    apart = model.flops.of(prompt, 0, first) + sum(model.flops.of(0, 0, n, context=prompt) for n in others)
    assert apart == one_by_one(model, prompt, 0, lengths)


@settings(deadline=None)
@given(model=MODELS, prompt=COUNTS, more=COUNTS, completion=COUNTS, longer=COUNTS, cached=COUNTS)
def test_a_bound_on_the_tokens_is_a_bound_on_the_flops(
    model: Architecture, prompt: int, more: int, completion: int, longer: int, cached: int
) -> None:
    used = model.flops.of(prompt, min(cached, prompt), completion)
    assert used <= model.flops.of(prompt + more, 0, completion + longer)


def test_experts_that_a_token_does_not_meet_cost_no_flops() -> None:
    whole = {"layers": 1, "hidden": 8, "heads": 2, "ffn": 16, "vocab": 10, "active_experts": 2}
    few, many = Architecture(experts=4, **whole), Architecture(experts=8, **whole)
    router = 2 * 8 * 4
    assert many.flops.per_token - few.flops.per_token == router
    assert many.parameters > few.parameters


@pytest.mark.parametrize(
    "name", ["LlamaForSequenceClassification", "Qwen2ForProcessRewardModel", "InternLM2ForRewardModel"]
)
def test_a_scoring_model_has_no_output_matrix(tmp_path: Path, name: str) -> None:
    scores = read(tmp_path, {**LLAMA_8B, "architectures": [name]})
    writes = read(tmp_path, LLAMA_8B)
    assert writes.parameters - scores.parameters == 4096 * 128256
    assert scores.flops == replace(writes.flops, per_output=0)


@pytest.mark.parametrize(
    ("change", "windowed"),
    [
        (MISTRAL_7B, 32),
        (GEMMA2_9B, 21),
        ({**MISTRAL_7B, "sliding_window": None}, 0),
        (QWEN_7B, 0),
        ({**QWEN_7B, "use_sliding_window": True, "max_window_layers": 20}, 8),
        ({**QWEN_7B, "layer_types": ["full_attention", "sliding_attention"] * 14}, 14),
    ],
)
def test_sliding_windows_are_those_of_the_layers_that_have_one(
    tmp_path: Path, change: dict[str, Any], windowed: int
) -> None:
    model = read(tmp_path, change)
    assert model.windowed == windowed
    assert model.window == (change["sliding_window"] if windowed else None)
    beyond = model.model_copy(update={"window": None, "windowed": 0})
    assert model.flops.of(4000, 0, 96) == beyond.flops.of(4000, 0, 96), "so far nothing is out of sight"
    assert (model.flops.of(200_000, 0, 2) < beyond.flops.of(200_000, 0, 2)) is (windowed > 0)


def test_of_a_model_that_sees_the_part_is_read_that_reads_text(tmp_path: Path) -> None:
    """What is said of the whole (its format, its quantisation) is said once."""
    text = {
        name: value
        for name, value in MISTRAL_7B.items()
        if name not in ("torch_dtype", "tie_word_embeddings")
    }
    whole = {"model_type": "mistral3", "torch_dtype": "float16", "text_config": {**text, "torch_dtype": None}}
    assert read(tmp_path, whole) == read(tmp_path, {**MISTRAL_7B, "torch_dtype": "float16"})
    packed = {**whole, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert read(tmp_path, packed).weights == "int4"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "'mamba' is not known"),
        ({"model_type": "qwen3_moe", "num_experts": 8, "mlp_only_layers": [0]}, "only some of its layers"),
        ({"hidden_size": None}, "unsupported operand"),
        ({"num_hidden_layers": 0}, "layers: Input should be greater"),
        ({"torch_dtype": "auto"}, "dtype: Input should be"),
        ({"num_attention_heads": 0}, "division"),
        ({"model_type": "deepseek_v3"}, "'deepseek_v3' is not known"),
        ({"layer_types": ["linear_attention"] * 32}, "linear_attention"),
        ({"layer_types": ["full_attention"]}, "32 layers"),
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


@pytest.mark.parametrize(
    ("quantised", "said", "gigabytes", "arithmetic"),
    [
        ({"quant_method": "awq", "bits": 4}, "int4", 5.4, "bfloat16"),
        ({"quant_method": "gptq", "bits": 8}, "int8", 8.7, "bfloat16"),
        ({"quant_method": "fp8"}, "float8", 8.7, "float8"),
    ],
)
def test_quantised_matrices_are_small_and_the_rest_is_not(
    tmp_path: Path, quantised: dict[str, Any], said: str, gigabytes: float, arithmetic: str
) -> None:
    """Qwen2.5-7B-Instruct-AWQ is published with 5.6 GB, scales included: embeddings and output stay as they are."""
    model, plain = read(tmp_path, {**QWEN_7B, "quantization_config": quantised}), read(tmp_path, QWEN_7B)
    assert (model.weights, model.dtype, model.arithmetic) == (said, "bfloat16", arithmetic)
    assert model.weight_bytes / 1e9 == pytest.approx(gigabytes, abs=0.1)
    assert (model.kv_bytes, model.parameters, model.flops) == (plain.kv_bytes, plain.parameters, plain.flops)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heads": 3}, {"kv_heads": 3}, {"experts": 2}, {"experts": 2, "active_experts": 3},
        {"window": 5}, {"windowed": 1}, {"window": 5, "windowed": 2},
    ],
)  # fmt: skip
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
