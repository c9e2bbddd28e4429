"""The comparison of the nano engine with its roofline: that it compares, not how it comes out."""

from __future__ import annotations

from pathlib import Path

from archon.benchmarks.speed.roofline import compare
from tests.archon.nano_model import random_folder


def test_an_engine_is_compared_with_what_its_machine_could_do(tmp_path: Path) -> None:
    found = compare(random_folder(tmp_path / "lm"), batch=4, output=10)
    assert found["batch"] == 4
    assert found["tokens_per_second"] > 0 and found["ideal_tokens_per_second"] > 0
    assert found["share"] > 0
