"""What a wheel holds: every module and every data file of the rooms, as pyproject.toml lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PACKAGES: list[str] = SETUPTOOLS["packages"]
PLACES: dict[str, str] = SETUPTOOLS["package-dir"]


def folder(package: str) -> Path:
    """Where a package is in the tree: that of its nearest parent that says so, and below."""
    parts = package.split(".")
    for n in range(len(parts), 0, -1):
        place = PLACES.get(".".join(parts[:n]))
        if place is not None:
            return ROOT.joinpath(place, *parts[n:])
    raise AssertionError(f"{package} has no place")


def there() -> Iterator[Path]:
    """Every file of the rooms; the links from one room to another are none."""
    for room in PLACES.values():
        for path in sorted((ROOT / room).rglob("*")):
            parts = path.relative_to(ROOT).parts
            linked = any((ROOT / Path(*parts[:n])).is_symlink() for n in range(1, len(parts) + 1))
            if path.is_file() and not linked and "__pycache__" not in parts:
                yield path


FILES = list(there())


def shipped() -> set[Path]:
    """What setuptools takes by what is listed."""
    found: set[Path] = set()
    for package in PACKAGES:
        found |= {*folder(package).glob("*.py")}
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            matched = [path for path in folder(package).glob(pattern) if path.is_file()]
            assert matched, f"{package}: {pattern} matches nothing"
            found |= {*matched}
    return found


def test_every_package_that_is_listed_is_there() -> None:
    for package in PACKAGES:
        assert (folder(package) / "__init__.py").is_file(), package
    assert len({*PACKAGES}) == len(PACKAGES)


def test_everything_in_the_rooms_is_in_the_wheel() -> None:
    missing = {*FILES} - shipped()
    assert not missing, f"pyproject.toml lists none of {sorted(str(p.relative_to(ROOT)) for p in missing)}"


@pytest.mark.parametrize(
    "name",
    [
        "search/spaces/lab_arith.yaml", "search/spaces/recorded_code.yaml", "search/spaces/archon.yaml",
        "strategies/pipelines/best_of_n.yaml", "archon/prices.yaml", "archon/store/schema.sql", "archon/py.typed",
        "archon/backends/nano/weights/lm/model.safetensors", "archon/backends/reward_models.yaml",
        "benchmarks/searching/report.py", "verifiers/sandbox/child.py",
    ],
)  # fmt: skip
def test_what_a_command_reads_is_among_it(name: str) -> None:
    assert ROOT / name in FILES and ROOT / name in shipped()
