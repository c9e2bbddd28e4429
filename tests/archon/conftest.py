"""A real vLLM for the tests that are marked `vllm`: one server for all of them, and one test at a time.

A server's figures are those of all its requests, and two that start at once want more than two cores and their
memory. So these tests take turns, in however many processes they run; `--dist loadgroup` keeps them in one.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archon.backends.nano.folder import SHIPPED
from archon.backends.vllm.config import VLLM
from tests.archon import nano_model

_ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = Path(os.environ.get("ARCHON_VLLM_PYTHON") or _ROOT / ".venv-vllm" / "bin" / "python")
_OPTIONS = {"max_model_len": 1024, "enforce_eager": True, "dtype": "float32"}
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",  # other tests run beside it, and threads that are bound to a core wait for them
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_KEPT = 240
"""Seconds the server waits for the next test that asks it, while others start servers of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PYTHON.exists():
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.xdist_group("vllm"))
        return
    reason = f"NO VLLM: {PYTHON} is not there. `make vllm`, or name a Python that has it: ARCHON_VLLM_PYTHON"
    for item in items:
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def in_turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of real servers wait for each other."""
    if request.node.get_closest_marker("vllm") is None:
        yield
        return
    with (Path(tempfile.gettempdir()) / f"archon-tests-{os.getuid()}.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def vllm_folder() -> Path:
    """The nano model's weights; the same random ones for every process where none are shipped."""
    if (SHIPPED / "lm" / "config.json").is_file():
        return SHIPPED / "lm"
    place = Path(tempfile.gettempdir()) / f"archon-tests-{os.getuid()}-lm"
    if not place.exists():
        with pytest.MonkeyPatch.context() as patch:  # vLLM's attention on a CPU takes heads of 32
            patch.setattr(nano_model, "HEADS", nano_model.HIDDEN // 32)
            patch.setattr(nano_model, "KEY_HEADS", 1)
            made = nano_model.random_folder(Path(tempfile.mkdtemp(prefix="archon-tests-")))
        try:
            made.rename(place)
        except OSError:
            assert place.is_dir(), "another process was first"
    return place


@pytest.fixture
def vllm(vllm_folder: Path) -> VLLM:
    """A model on a real server: started by the first test that asks it, and ended some time after the last."""
    return VLLM(
        model=str(vllm_folder),
        python=str(PYTHON),
        options=_OPTIONS,
        environment=_ENVIRONMENT,
        keep=_KEPT,
    )
