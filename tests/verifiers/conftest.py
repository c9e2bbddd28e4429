"""One sandbox for all the tests of a file, and a folder that shows what it leaves behind."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import opened


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which every scratch folder of this file's sandboxes is made."""
    folder = tmp_path_factory.mktemp("scratch")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(scratch: Path) -> AsyncIterator[Sandbox]:
    """A sandbox with one worker, so that every program of a file meets the zygote of the one before."""
    async with opened() as sandbox:
        yield sandbox
