"""Every malformed file: exit code 2, one line per mistake with its place, no traceback, nothing executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archon.config import load
from archon.errors import ConfigError, UserError
from tests.archon.malformed.toml_files import TOML
from tests.archon.malformed.yaml_files import GRAPHS, KEYS, VALUES, YAML, Malformed
from tests.archon.test_cli_terminal import Said, archon, process

_LONGEST = 1000
"""No message needs more; what a file holds is shown in part."""


def _cases(table: Mapping[str, Malformed], ending: str) -> list[Any]:
    return [
        pytest.param(f"pipeline.{ending}", malformed, id=f"{ending}: {name}")
        for name, malformed in table.items()
    ]


EVERY = [*_cases(YAML, "yaml"), *_cases(TOML, "toml")]
PLAIN = _cases({**KEYS, **VALUES, **GRAPHS}, "yaml")


def written(name: str, malformed: Malformed) -> Path:
    path = Path(name)
    text = malformed.text
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def check(said: Said, name: str, malformed: Malformed) -> None:
    """What must be true of a malformed file, whatever is wrong with it."""
    assert said.code == 2
    assert said.err == ""
    lines = said.out.splitlines()
    assert len(lines) == malformed.errors
    for line in lines:
        assert name in line
        assert len(line) < _LONGEST
    for words in malformed.says:
        assert words in said.out
    assert "Traceback" not in said.out
    assert "hunter2" not in said.out, "a secret is printed"
    named = [int(n) for n in re.findall(rf"^{re.escape(name)}:(\d+)", said.out, re.MULTILINE)]
    if malformed.line is not None:
        assert malformed.line in named
    text = malformed.text if isinstance(malformed.text, bytes) else malformed.text.encode()
    assert max(named, default=0) <= len(text.splitlines()), "it names a line that is not there"


def test_there_are_many() -> None:
    assert len(EVERY) >= 100


@pytest.mark.parametrize(("name", "malformed"), EVERY)
def test_a_malformed_file_is_refused_line_by_line(
    name: str, malformed: Malformed, capsys: pytest.CaptureFixture[str]
) -> None:
    written(name, malformed)
    try:
        check(archon(capsys, "validate", name), name, malformed)
    finally:
        assert not Path("pwned").exists(), "what the file holds was executed"


@pytest.mark.parametrize(
    "which", ["misspelt key", "a tag that runs a command", "billion laughs", "binary file"]
)
def test_a_process_says_the_same(which: str) -> None:
    malformed = YAML[which]
    written("pipeline.yaml", malformed)
    check(process("validate", "pipeline.yaml"), "pipeline.yaml", malformed)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("words", "which"),
    [
        (("show", "pipeline.yaml"), "misspelt key"),
        (("show", "pipeline.yaml"), "mistakes everywhere"),
        (("run", "Q", "--pipeline", "pipeline.yaml"), "cycle"),
        (("run", "Q", "--pipeline", "pipeline.yaml"), "empty file"),
        (("bench", "lab/arith", "--pipeline", "pipeline.yaml", "--out", "r"), "a tag that runs a command"),
        (("bench", "lab/arith", "--pipeline", "pipeline.yaml", "--out", "r"), "tabs"),
    ],
)
def test_every_command_refuses_it_with_the_same_words(
    words: tuple[str, ...], which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    malformed = YAML[which]
    written("pipeline.yaml", malformed)
    before = set(Path().iterdir())
    said = archon(capsys, *words)
    assert (said.code, said.out) == (2, "")
    assert len(said.errors) == len(said.err.splitlines()) == malformed.errors
    for text in malformed.says:
        assert text in said.err
    assert set(Path().iterdir()) == before, "nothing is written before the pipeline is understood"


@pytest.mark.parametrize(("name", "malformed"), PLAIN)
def test_load_raises_one_kind_of_error(name: str, malformed: Malformed) -> None:
    with pytest.raises(UserError) as raised:
        load(written(name, malformed))
    if isinstance(raised.value, ConfigError):
        assert len(raised.value.flaws) == malformed.errors
        assert str(raised.value) == "\n".join(map(str, raised.value.flaws))


def test_several_files_are_all_checked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.yaml").write_text("- sample\n")
    Path("one.yaml").write_text(str(YAML["misspelt key"].text))
    Path("two.toml").write_text(str(TOML["misspelt stage"].text))
    said = archon(capsys, "validate", "one.yaml", "good.yaml", "two.toml", "absent.yaml")
    assert said.code == 2
    assert [re.split(r":\d+:", line)[0] for line in said.out.splitlines()] == [
        "one.yaml",
        "two.toml",
        "cannot read 'absent.yaml': No such file or directory",
    ]
    assert said.err == "good.yaml: valid\n"


def test_a_valid_file_is_said_to_be_and_prints_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.yaml").write_text("- sample: {n: 3}\n- majority_vote\n")
    assert archon(capsys, "validate", "good.yaml") == Said(0, "", "good.yaml: valid\n")


def test_validate_needs_something_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "validate")
    assert said.code == 2
    assert "--schema" in said.err


def test_a_folder_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "validate", ".")
    assert (said.code, said.out) == (2, "cannot read '.': Is a directory\n")


def test_a_name_that_is_no_text_is_no_traceback() -> None:
    name = b"bad\xff.yaml"
    Path(name.decode(errors="surrogateescape")).write_text("- sampel\n")
    said = process(
        "validate", name.decode(errors="surrogateescape"), PYTHONIOENCODING="utf-8:backslashreplace"
    )
    assert said.code == 2
    assert "'sampel'" in said.out


def test_a_name_over_two_lines_is_still_one_line_of_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a\nb.yaml").write_text("- sampel\n")
    said = archon(capsys, "validate", "a\nb.yaml")
    assert (said.code, len(said.out.splitlines())) == (2, 1)


@pytest.mark.parametrize("form", ["json", "terminal", "yaml"])
@pytest.mark.parametrize("deep", [49, 200])
def test_what_is_valid_can_be_shown_however_deep(
    deep: int, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep.yaml").write_text("pipeline: " + "[{pipeline: " * deep + "[sample]" + "}]" * deep)
    code = archon(capsys, "validate", "deep.yaml").code
    assert code == (0 if deep < 50 else 2)
    if code == 0:
        assert archon(capsys, "show", "deep.yaml", "--format", form).code == 0
