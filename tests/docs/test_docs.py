"""Every fenced block of the README and the documents runs, in order, as a reader would run them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from archon.testing import Answer, Asked, StubServer

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
NEED_DATA = {"README.md"}
"""Documents with a block that replays recorded generations."""


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    text = (ROOT / document).read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text[: found.start()].count("\n") + 1)


def reply(asked: Asked) -> Answer:
    """What a model would say: sometimes wrong, always the same."""
    if "17 * 23" in asked.text:
        return Answer("17 * 23 is 17 * 20 and 17 * 3.\n#### " + ("391" if asked.number % 4 else "381"))
    return Answer("#### 4" if asked.number % 2 else "Paris")


async def run(block: Block, place: Path, url: str) -> None:
    """Run one block in a folder. A block that begins with a file's name is that file."""
    name = re.match(r"# (\S+\.(?:yaml|toml|jsonl))\n", block.text)
    if name and block.language in ("yaml", "toml", "json"):
        text = block.text if block.language != "json" else block.text[name.end() :]
        (place / name[1]).write_text(text)
        return
    if block.language not in ("bash", "python"):
        return
    command = (
        ["bash", "-eu", "-c", block.text] if block.language == "bash" else [sys.executable, "-c", block.text]
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=place,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": url,
            "ARCHON_STORE": str(place / ".archon" / "store.sqlite"),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"line {block.line}:\n{block.text}\n{said.decode()}"


@pytest.mark.parametrize(
    "document", [pytest.param(d, marks=pytest.mark.data if d in NEED_DATA else ()) for d in DOCUMENTS]
)
async def test_every_block_runs(document: str, tmp_path: Path) -> None:
    async with StubServer(reply) as server:
        for block in blocks(document):
            await run(block, tmp_path, server.url)


def test_the_readme_s_first_block_is_the_two_commands_and_both_exist() -> None:
    first = next(blocks("README.md"))
    targets = re.findall(r"^make (\w+)", first.text, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "design").glob("*"))],
)
def test_links_and_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / document).parent.joinpath(target).exists(), f"{document} links to {target}"
    for name in re.findall(
        r"(?<![.\w])((?:archon|tests|benchmarks|verifiers|strategies)/[\w/]+\.(?:py|yaml|sql))\b", text
    ):
        assert (ROOT / name).exists(), f"{document} names {name}"


def test_files_that_the_code_refers_to_exist() -> None:
    rooms = ("archon", "benchmarks", "strategies", "verifiers")
    named: set[str] = set()
    for path in (p for room in rooms for p in (ROOT / room).rglob("*.py")):
        named |= set(re.findall(r"\b((?:docs|design)/[\w-]+\.md)", path.read_text()))
    assert len(named) >= 4
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_changelog_has_a_place_for_what_is_new_and_the_version_is_one() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    import archon

    assert project["version"] == archon.__version__
