"""GP's own tests with the torch of vLLM's environment, where we have none: the part that takes a minute or two.

Ours comes first, and only what is not in it from there. All of GP's tests run where torch is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = Path(os.environ.get("ARCHON_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
_WHAT = (
    "import importlib.util, json, sys, sysconfig\n"
    "print(json.dumps([sys.implementation.cache_tag, sysconfig.get_path('purelib'),\n"
    "                  importlib.util.find_spec('torch') is not None]))"
)
_RUN = """
import sys
sys.path.append(sys.argv[1])
import pytest

class Passed:
    names = []
    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.outcome == "passed":
            self.names.append(report.nodeid)

code = pytest.main(sys.argv[2:], plugins=[Passed()])
print("passed", len(Passed.names))
sys.exit(code)
"""
PARTS = {
    "conformance": [
        "test_proposers.py::TestGP::" + name
        for name in (
            "test_a_search_that_was_cut_off_goes_on",
            "test_options_are_what_they_are_and_not_what_they_equal",
            "test_a_space_without_a_choice_has_one_configuration",
            "test_where_everything_is_refused_it_proposes_nothing",
            "test_what_is_not_of_the_space_or_no_number_is_an_error",
            "test_it_is_its_configuration",
        )
    ]
    + ["test_proposers.py::TestGPTwo::test_what_it_proposes_is_allowed_and_new"],
    "constraints": [
        "test_proposers_constraints.py::test_twenty_proposals_of_the_gaussian_process",
    ],
    "learning": [
        "test_proposers_learning.py::test_the_gaussian_process_finds_better_than_random_search_does",
    ],
}


@pytest.fixture(scope="module")
def packages() -> str:
    """The folder where torch is. Skips where there is none that this Python can load."""
    if importlib.util.find_spec("torch") is not None:
        pytest.skip("torch is installed: GP's tests run by themselves")
    if not PYTHON.exists():
        pytest.skip(f"NO TORCH: {PYTHON} is not there. `make vllm`, or pip install 'archon[gp]'")
    asked = subprocess.run([PYTHON, "-c", _WHAT], capture_output=True, text=True, check=True, timeout=60)
    tag, place, has_torch = json.loads(asked.stdout)
    if not has_torch:
        pytest.skip(f"NO TORCH: {PYTHON} has none. pip install 'archon[gp]'")
    if tag != sys.implementation.cache_tag:
        pytest.skip(f"NO TORCH: {PYTHON} is {tag}, and we are {sys.implementation.cache_tag}")
    return str(place)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_gp_with_the_torch_of_another_environment(part: str, packages: str) -> None:
    names = [str(Path(__file__).parent / name) for name in PARTS[part]]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, packages, *options, *names],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"passed {len(names)}", done.stdout[-2000:]
