"""Idealised runtime: a lower bound by arithmetic and by memory, for weights and for attention."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.compute import Architecture
from archon.errors import ConfigError, DataError, UnknownName
from archon.roofline import Cache, Hardware, find_hardware, ideal, known_hardware, machine_seconds, measure
from archon.usage import Usage

MODEL = Architecture(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256)
"""An 8B model in bfloat16: 16 GB."""
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
    prompt=st.integers(1, 500), kept=st.integers(0, 500), output=st.integers(1, 500), batch=st.integers(1, 9)
)
def test_the_flops_are_those_that_calls_are_billed(prompt: int, kept: int, output: int, batch: int) -> None:
    cached = min(kept, prompt - 1)
    found = ideal(MODEL, EXACT, prompt=prompt, cached=cached, output=output, batch=batch)
    billed = batch * MODEL.flops.of(prompt, cached, output)
    assert found.prefill.flops + found.decode.flops == pytest.approx(billed, rel=1e-9)
    assert found.seconds >= billed / 1e12 * (1 - 1e-9), "never faster than the peak"
    assert found.seconds >= (found.prefill.bytes + found.decode.bytes) / 1e12 * (1 - 1e-9), "nor than memory"


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
    assert Hardware(peaks={"bfloat16": 2}, bandwidth=1, memory=1).peak("float32") == 2, (
        "there is no wider one"
    )


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
    assert machine_seconds(MODEL, H100, usage, sequences=4) == pytest.approx(4 * one.seconds)
    several = Usage(requests=1, prompt_tokens=100, completion_tokens=80)
    expected = one.prefill.seconds + 4 * one.decode.seconds
    assert machine_seconds(MODEL, H100, several, sequences=4) == pytest.approx(expected), (
        "one prompt for four"
    )
    together = machine_seconds(MODEL, H100, usage, sequences=4, batch=8)
    assert 1 / 8 < together / (4 * one.seconds) < 0.25, "in a batch the weights are shared"
    assert machine_seconds(MODEL, H100, Usage(), sequences=0) == 0


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
