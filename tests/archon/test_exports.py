"""What `import archon` promises: quick, complete, documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import archon

HEAVY = {
    "aiohttp",
    "click",
    "httpx2",
    "matplotlib",
    "math_verify",
    "networkx",
    "numpy",
    "openai",
    "pydantic",
    "rich",
    "scipy",
    "sympy",
    "yaml",
}
INSIDE = {"child", "jail", "landlock", "namespaces", "seccomp", "worker", "zygote"}
"""Files of the sandbox that its isolated interpreters load."""


def modules_after(code: str) -> set[str]:
    """The top-level packages that are loaded once this has run in a new process."""
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", archon.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    thing = getattr(archon, name)
    if name == "__version__":
        assert isinstance(thing, str) and thing[0].isdigit()
        return
    assert inspect.getdoc(thing), f"archon.{name} has no docstring"
    assert thing.__module__.startswith("archon"), "it is ours"
    assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_the_list_of_public_names_is_sorted_whole_and_what_dir_shows() -> None:
    assert len(set(archon.__all__)) == len(archon.__all__)
    assert sorted(archon.__all__) == dir(archon)
    assert set(archon.__all__) == {*archon._HOME, "__version__"}


def test_a_star_import_gives_them_all() -> None:
    script = "from archon import *\nprint(*globals())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(archon.__all__) <= set(done.stdout.split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'archon' has no attribute 'Pipelines'"):
        archon.Pipelines  # noqa: B018


def test_importing_archon_loads_nothing_heavy() -> None:
    assert not HEAVY & modules_after("import archon")


def test_composing_a_pipeline_loads_no_client_no_numbers_and_no_pictures() -> None:
    code = "from archon import Pipeline, Problem, Session, OpenAI, Budget\nOpenAI(model='m')"
    assert not {"openai", "aiohttp", "httpx2", "numpy", "scipy", "matplotlib", "rich"} & modules_after(code)


def test_running_a_scripted_pipeline_loads_no_client() -> None:
    code = (
        "import asyncio\nfrom archon import Scripted\nfrom archon.strategies.sample import Sample\n"
        "from archon.pipeline import Pipeline\n"
        "asyncio.run(Pipeline([Sample()]).run('q', models=Scripted(replies={'*': ('a',)})))"
    )
    assert not {"openai", "aiohttp", "matplotlib", "sympy"} & modules_after(code)


def test_every_module_can_be_imported_by_itself_and_has_a_docstring() -> None:
    names = [m.name for m in pkgutil.walk_packages(archon.__path__, "archon.") if "__main__" not in m.name]
    assert len(names) > 60
    for name in names:
        if ".sandbox." in name and name.rpartition(".")[2] in INSIDE:
            continue  # programs of their own
        if name.startswith("archon.benchmarks.lab.training.") and find_spec("torch") is None:
            continue  # of the `train` extra
        assert importlib.import_module(name).__doc__, name


def test_the_types_are_announced_to_type_checkers() -> None:
    from importlib.resources import files

    assert files("archon").joinpath("py.typed").is_file()
