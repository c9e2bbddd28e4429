"""What tests share: recorded data, a private place to run, sessions on scripted models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side already. Numpy, which reads this, is not imported yet.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ARCHON_DATA") or _ROOT.parent / "shared" / "data")


# How long an example takes is the machine's matter: one that other work holds up is no failure.
settings.register_profile("archon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("archon")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["ARCHON_DATA"] = str(DATA)


_PATIENCE = pytest.mark.timeout(1800)
"""For tests that start a vLLM, which takes minutes on a busy machine, or run thousands of programs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("vllm") or item.get_closest_marker("data"):
            item.add_marker(_PATIENCE)
    if DATA.is_dir():
        return
    reason = f"NO RECORDED DATA at {DATA}: set ARCHON_DATA to run this test"
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written: no store, no prices, no cache, no keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHON_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.setenv("ARCHON_CACHE", str(tmp_path / "cache"))
    for name in ("ARCHON_PRICES", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data() -> Path:
    """The folder of recorded data (mark the test with `data`)."""
    return DATA
