"""The demonstration runs the main job for real; here on random models of the same kind, and on few problems."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from archon.backends.nano.backend import Nano
from archon.benchmarks.demo import PARTS, demonstrate
from archon.benchmarks.results import Results
from tests.archon.nano_model import random_folder


async def test_it_samples_judges_grades_and_draws_and_then_all_is_stored(tmp_path: Path) -> None:
    language = Nano(weights=str(random_folder(tmp_path / "lm")), max_tokens=12, workers=1)
    reward = Nano(weights=str(random_folder(tmp_path / "prm", scores=True)), workers=1)
    said = io.StringIO()
    await demonstrate(
        tmp_path / "demo",
        {"default": language, "reward": reward},
        Console(file=said, width=150),
        problems=1,
        samples=2,
    )
    text = said.getvalue()
    for expected in (
        "coverage (pass@k)",
        "unit_tests against the truth",
        "(one sample)",
        "FLOPs",
        "Pictures: ",
    ):
        assert expected in text
    assert "Spent this time: 0 requests" in text
    for part in PARTS:
        for pipeline in part.pipelines:
            assert pipeline in text
            run = Results.read(tmp_path / "demo" / part.benchmark.name.removeprefix("lab/") / pipeline)
            assert run.data["problems"] == len(part.levels)
            assert run.data["usage"]["completion_tokens"] > 0
    pictures = text.partition("Pictures: ")[2].strip().split(", ")
    assert len(pictures) >= 5
    assert all(Path(picture).stat().st_size > 10_000 for picture in pictures)


def test_every_pipeline_of_a_part_is_over_the_same_samples() -> None:
    """So that they differ by what they choose alone, and cost what is drawn once."""
    from archon.shelf import ready
    from archon.strategies.sample import Sample

    for part in PARTS:
        heads = {repr(ready(name).pipeline.nodes[0].stage) for name in part.pipelines}
        assert heads == {repr(Sample(n=16))}
