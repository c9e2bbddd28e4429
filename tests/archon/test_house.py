"""The house (DESIGN): arrows point down only, files stay small, nothing is evaluated or unpickled."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("archon", "verifiers", "strategies", "search", "benchmarks")
ABOVE = {
    "archon": {"strategies", "verifiers", "search", "benchmarks"},
    "verifiers": {"strategies", "search", "benchmarks"},
    "strategies": {"verifiers", "search", "benchmarks"},
    "search": {"benchmarks"},
    "benchmarks": set[str](),
}
CHILD = "verifiers/sandbox/child.py"
"""The one place where candidate code runs."""


def sources() -> Iterator[Path]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if not any(part.is_symlink() for part in path.parents if part != ROOT and ROOT in part.parents):
                yield path


FILES = list(sources())
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def imports(name: str) -> set[str]:
    """Every module a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide the room"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_is_seen() -> None:
    assert {name.split("/")[0] for name in NAMES} == set(ROOMS)
    assert len(NAMES) > 60


@pytest.mark.parametrize("name", NAMES)
def test_arrows_point_down_only(name: str) -> None:
    room = name.split("/")[0]
    for module in imports(name):
        parts = module.split(".")
        if parts[0] == "archon" and len(parts) > 1:
            assert parts[1] not in ABOVE[room], f"{name} imports {module}"
        assert parts[0] not in {"verifiers", "strategies", "search", "benchmarks", "tests"}, name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_it_is_and_stays_below_600_lines(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.count("\n") <= 600
    assert ast.get_docstring(ast.parse(text)), f"{name} has no docstring"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_evaluated_unpickled_or_run_in_a_shell(name: str) -> None:
    assert not {"pickle", "dill", "cloudpickle", "shelve", "marshal"} & {
        m.split(".")[0] for m in imports(name)
    }
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if name != CHILD:
            assert called not in {"eval", "exec", "compile", "__import__"}, f"{name}:{node.lineno}: {called}"
        assert called not in {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}, (
            name
        )
        for keyword in node.keywords:
            shell = keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
            assert not shell, f"{name}:{node.lineno}: shell"


@pytest.mark.parametrize("name", [n for n in NAMES if n.split("/")[0] in ("strategies", "verifiers")])
def test_techniques_and_verifiers_have_no_effects_of_their_own(name: str) -> None:
    """All effects go through the run (D3); the sandbox is the executor itself."""
    if name.startswith("verifiers/sandbox/"):
        return
    banned = {"openai", "httpx2", "aiohttp", "requests", "socket", "subprocess", "sqlite3", "time", "random"}
    assert not banned & {module.split(".")[0] for module in imports(name)}


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("archon/")])
def test_the_core_draws_from_no_global_generator(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert not re.fullmatch(
                r"(random|numpy\.random|np\.random)\.(?!Random|Generator|default_rng)\w+", called
            )


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("strategies/")])
def test_a_technique_s_docstring_says_what_it_costs(name: str) -> None:
    if name.endswith(("__init__.py", "selection.py")):
        return
    text = ast.get_docstring(tree(name)) or ""
    assert "Cost" in text, f"{name} does not say what it costs"


def entry_points() -> dict[str, dict[str, str]]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points: dict[str, dict[str, str]] = project["entry-points"]
    return points


@pytest.mark.parametrize(
    "kind",
    ["stage", "verifier", "retriever", "backend", "command", "executor", "benchmark"],
)
def test_every_name_of_a_registry_leads_to_something_of_that_name(kind: str) -> None:
    from archon import registry

    declared = entry_points()[f"archon.{kind}s"]
    assert set(declared) <= set(registry.names(kind))
    for name in declared:
        thing = registry.find(kind, name)
        if kind in ("stage", "verifier", "retriever", "backend", "benchmark"):
            assert thing.name == name and thing.kind == kind
        assert thing.__doc__, f"{kind} {name} has no docstring"


def test_every_stage_verifier_and_backend_that_ships_is_registered() -> None:
    from archon.backends.base import Model
    from archon.stage import Stage
    from archon.verifier import Verifier

    declared = {path for points in entry_points().values() for path in points.values()}
    for name in NAMES:
        room = name.split("/")[0]
        if room not in ("strategies", "verifiers") and not name.startswith("archon/backends/"):
            continue
        if "sandbox/" in name or name.endswith("__init__.py"):
            continue
        module = name.removesuffix(".py").replace("/", ".")
        module = module if room == "archon" else f"archon.{module}"
        for thing in vars(importlib.import_module(module)).values():
            ours = inspect.isclass(thing) and thing.__module__ == module
            if ours and issubclass(thing, Stage | Verifier | Model) and not inspect.isabstract(thing):
                assert f"{module}:{thing.__name__}" in declared, f"{thing.__name__} cannot be named in a file"
