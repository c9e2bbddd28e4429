"""Idealised runtime: a lower bound by arithmetic and by memory, for weights and for attention."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.compute import Architecture
from archon.errors import ConfigError, DataError, UnknownName
from archon.roofline import Cache, Hardware, find_hardware, ideal, known_hardware, machine_time, measure
from archon.usage import Usage

MODEL = Architecture(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256)
"""An 8B model in bfloat16: 16 GB."""
NEAR = MODEL.model_copy(update={"window": 100, "windowed": 20})
"""The same, where 20 layers of 32 see a hundred tokens."""
H100 = find_hardware("h100-sxm")
EXACT = Hardware(peaks={"bfloat16": 1e12}, bandwidth=1e12, memory=1e15)
"""An operation a byte."""


def test_one_reply_waits_for_memory_and_a_long_prompt_for_arithmetic() -> None:
    found = ideal(MODEL, H100, prompt=2048, output=256)
    assert (found.prefill.bound, found.decode.bound) == ("compute", "memory")
    read = MODEL.weight_bytes - 2 * MODEL.hidden * MODEL.vocab  # the embeddings are looked up, not read
    assert found.seconds_per_token == pytest.approx(read / H100.bandwidth, rel=0.03)
    assert found.prefill.seconds == pytest.approx(found.prefill.flops / H100.peak("bfloat16"), rel=0.01)


def test_a_batch_shares_the_weights_until_arithmetic_is_what_it_waits_for() -> None:
    speeds = [ideal(MODEL, H100, prompt=1, output=64, batch=b) for b in (1, 8, 4096)]
    assert speeds[1].tokens_per_second / speeds[0].tokens_per_second == pytest.approx(8, rel=0.05)
    assert [found.decode.bound for found in speeds] == ["memory", "memory", "compute"]


def test_the_bytes_of_a_step_are_the_weights_once_and_every_sequence_s_keys_and_values() -> None:
    short, long = (ideal(MODEL, H100, prompt=p, output=2, batch=4).decode.bytes for p in (100, 1100))
    assert long - short == 4 * 1000 * MODEL.kv_bytes


@settings(deadline=None)
@given(
    model=st.sampled_from([MODEL, NEAR]),
    prompt=st.integers(1, 500),
    kept=st.integers(0, 500),
    output=st.integers(0, 500),
    batch=st.integers(1, 9),
)
def test_the_flops_are_those_that_calls_are_billed(
    model: Architecture, prompt: int, kept: int, output: int, batch: int
) -> None:
    cached = min(kept, prompt - 1)
    found = ideal(model, EXACT, prompt=prompt, cached=cached, output=output, batch=batch)
    billed = batch * model.flops.of(prompt, cached, output)
    assert found.prefill.flops + found.decode.flops == pytest.approx(billed, rel=1e-9)
    assert found.seconds >= billed / 1e12 * (1 - 1e-9), "never faster than the peak"
    assert found.seconds >= (found.prefill.bytes + found.decode.bytes) / 1e12 * (1 - 1e-9), "nor than memory"


def test_layers_with_a_window_read_and_hold_no_more_than_it() -> None:
    all_near = MODEL.model_copy(update={"window": 100, "windowed": 32})
    short, long = (ideal(all_near, H100, prompt=p, output=11, batch=4) for p in (100, 5000))
    assert short.decode.bytes == long.decode.bytes
    assert short.memory == long.memory == MODEL.weight_bytes + 4 * 100 * MODEL.kv_bytes
    some = ideal(NEAR, H100, prompt=5000, output=2).decode.bytes
    assert some - ideal(all_near, H100, prompt=5000, output=2).decode.bytes == 4901 * 12 / 32 * MODEL.kv_bytes


def test_packed_weights_are_read_as_they_are_and_multiplied_as_the_rest() -> None:
    a100 = find_hardware("a100-80gb-sxm")
    packed = MODEL.model_copy(update={"weights": "int4"})
    alone, plain = (ideal(m, a100, prompt=1, output=9).decode.bytes for m in (packed, MODEL))
    assert plain - alone == pytest.approx(8 * 1.5 * MODEL.always)
    long, usual = (ideal(m, a100, prompt=4096, output=1).seconds for m in (packed, MODEL))
    assert long == usual, "bound by arithmetic in 16 bits"
    narrow = MODEL.model_copy(update={"weights": "float8"})
    assert (
        ideal(narrow, H100, prompt=512, output=1).seconds
        < 0.6 * ideal(MODEL, H100, prompt=512, output=1).seconds
    )


def test_what_only_reads_has_no_use_for_the_output_matrix() -> None:
    reads, writes = (ideal(MODEL, H100, prompt=100, output=n).prefill for n in (0, 1))
    assert writes.flops - reads.flops == 2 * MODEL.output
    assert writes.bytes - reads.bytes == 2 * MODEL.output


def test_of_a_mixture_only_the_experts_that_are_met_are_read() -> None:
    mixture = MODEL.model_copy(update={"ffn": 1024, "experts": 64, "active_experts": 4})
    alone, many = (ideal(mixture, H100, prompt=1, output=2, batch=b).decode.bytes for b in (1, 1000))
    rest = 2 * (mixture.always + mixture.output)
    assert alone - rest == pytest.approx(2 * 4 * mixture.expert, rel=0.01)
    assert many - rest == pytest.approx(2 * 64 * mixture.expert + 1000 * 2 * mixture.kv_bytes, rel=0.01)


def test_what_does_not_fit_is_said_and_fits_on_several() -> None:
    large = MODEL.model_copy(update={"layers": 320})
    assert not ideal(large, H100, prompt=10, output=10).fits
    two = ideal(large, H100.times(4), prompt=10, output=10)
    assert two.fits
    assert two.seconds == pytest.approx(ideal(large, H100, prompt=10, output=10).seconds / 4)


def test_a_format_without_units_of_its_own_runs_on_the_next_wider() -> None:
    a100 = find_hardware("a100-80gb-sxm")
    assert a100.peak("float8") == a100.peak("bfloat16") == 312e12
    assert a100.peak("int4") == 624e12
    sixteen = Hardware(peaks={"bfloat16": 2, "float32": 1, "int8": 4}, bandwidth=1, memory=1)
    assert sixteen.peak("float16") == 2, "of the same width"


def test_a_format_that_is_too_wide_for_a_machine_is_refused() -> None:
    narrow = Hardware(peaks={"bfloat16": 2, "int8": 4}, bandwidth=1, memory=1)
    with pytest.raises(DataError, match=r"bfloat16, int8.*float32"):
        narrow.peak("float32")
    with pytest.raises(ValidationError):
        Hardware(peaks={}, bandwidth=1, memory=1)


def test_a_small_model_is_read_from_the_cache() -> None:
    hardware = Hardware(
        peaks={"bfloat16": 1e15}, bandwidth=1e9, memory=1e12, cache=Cache(size=1e6, bandwidth=1e10)
    )
    small = Architecture(layers=2, hidden=64, heads=2, ffn=128, vocab=100)
    slow = hardware.model_copy(update={"cache": None})
    near, far = (ideal(small, h, prompt=4, output=10).seconds for h in (hardware, slow))
    assert far / near == pytest.approx(10)
    assert ideal(MODEL, hardware, prompt=4, output=10) == ideal(MODEL, slow, prompt=4, output=10)


def test_recorded_calls_take_what_calls_of_their_mean_length_take() -> None:
    usage = Usage(requests=4, prompt_tokens=400, completion_tokens=80)
    one = ideal(MODEL, H100, prompt=100, output=20)
    assert machine_time(MODEL, H100, usage, sequences=4).seconds == pytest.approx(4 * one.seconds)
    several = Usage(requests=1, prompt_tokens=100, completion_tokens=80)
    expected = one.prefill.seconds + 4 * one.decode.seconds
    assert machine_time(MODEL, H100, several, sequences=4).seconds == pytest.approx(expected), (
        "one prompt for four"
    )
    together = machine_time(MODEL, H100, usage, sequences=4, batch=8).seconds
    assert 1 / 8 < together / (4 * one.seconds) < 0.25, "in a batch the weights are shared"
    assert machine_time(MODEL, H100, Usage(), sequences=0) == (0, True)


def test_replies_that_are_scored_together_are_read_one_by_one() -> None:
    """Sixteen replies of 4,000 tokens in one request are no text of 64,000, whose attention costs 16 times theirs."""
    together = Usage(requests=1, prompt_tokens=64_000, cached_tokens=16_000)
    one = ideal(MODEL, H100, prompt=4000, cached=1000, output=0)
    assert machine_time(MODEL, H100, together, sequences=16).seconds == pytest.approx(16 * one.seconds)
    apart = Usage(requests=16, prompt_tokens=64_000, cached_tokens=16_000)
    assert machine_time(MODEL, H100, apart, sequences=16) == machine_time(MODEL, H100, together, sequences=16)


def test_a_batch_that_a_machine_cannot_hold_is_said_not_to_fit() -> None:
    usage = Usage(requests=4, prompt_tokens=40_000, completion_tokens=80)
    assert machine_time(MODEL, H100, usage, sequences=4, batch=8).fits
    assert not machine_time(MODEL, H100, usage, sequences=4, batch=64).fits
    assert machine_time(MODEL, H100.times(2), usage, sequences=4, batch=64).fits


@pytest.mark.parametrize("name", sorted(known_hardware()))
def test_the_packaged_machines_are_as_their_makers_publish_them(name: str) -> None:
    """Dense, without sparsity: a format of half the width is twice as fast."""
    machine = find_hardware(name)
    published = {
        "h100-sxm": (989.4e12, 3.35e12, 80e9), "h200-sxm": (989.4e12, 4.8e12, 141e9),
        "a100-80gb-sxm": (312e12, 2.039e12, 80e9), "l40s": (362e12, 0.864e12, 48e9),
    }  # fmt: skip
    assert (machine.peaks["bfloat16"], machine.bandwidth, machine.memory) == published[name]
    assert machine.peaks["int8"] / machine.peaks["bfloat16"] == pytest.approx(2, rel=0.02)
    assert machine.peaks.get("float8", machine.peaks["int8"]) == machine.peaks["int8"]


def test_hardware_comes_from_a_table_that_users_can_add_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"h100-sxm", "h200-sxm", "a100-80gb-sxm", "l40s"} <= set(known_hardware())
    with pytest.raises(UnknownName, match="h100-sxm"):
        find_hardware("h100")
    table = tmp_path / "mine.yaml"
    table.write_text("hardware:\n  mine: {peaks: {int8: 2.0e+12}, bandwidth: 1.0e+11, memory: 8.0e+9}\n")
    assert find_hardware("mine", table).peak("int8") == 2e12
    monkeypatch.setenv("ARCHON_HARDWARE", str(table))
    assert find_hardware("mine") == find_hardware("mine", table)
    table.write_text("hardware:\n  mine: {peak: 1}\n")
    with pytest.raises(ConfigError, match="peaks"):
        find_hardware("mine")
    monkeypatch.setenv("ARCHON_HARDWARE", str(tmp_path / "absent.yaml"))
    with pytest.raises(DataError, match="ARCHON_HARDWARE"):
        find_hardware("h100-sxm")


def test_this_machine_is_measured() -> None:
    here = measure()
    assert here == find_hardware("here")
    assert here.peak("float32") > 0 and here.bandwidth > 0
    assert here.memory > 2**30
