"""The demonstration runs the main job for real; here on random models of the same kind, and on few problems."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from archon.backends.nano.backend import Nano
from archon.benchmarks import demo
from archon.benchmarks.demo import PARTS, demonstrate
from archon.benchmarks.results import Results
from archon.errors import ExecutionError
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
        "by level",
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


@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "run it again to go on"),
        (ExecutionError("programs cannot be isolated here"), "error: programs cannot be isolated here", ""),
    ],
)
def test_it_ends_without_a_traceback(
    ends: BaseException,
    code: int | str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def demonstrate(*_: object) -> None:
        raise ends

    monkeypatch.setattr(demo, "demonstrate", demonstrate)
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == code
    assert says in capsys.readouterr().err


def test_every_pipeline_of_a_part_is_over_the_same_samples() -> None:
    """So that they differ by what they choose alone, and cost what is drawn once."""
    from archon.shelf import ready
    from archon.strategies.sample import Sample

    for part in PARTS:
        heads = {repr(ready(name).pipeline.nodes[0].stage) for name in part.pipelines}
        assert heads == {repr(Sample(n=16))}
