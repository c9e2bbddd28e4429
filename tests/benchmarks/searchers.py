"""Processes of `archon search` that share a folder, killed midway: `python -P searchers.py PLAN`, which is JSON.

A plan is a list of steps: `run` has a list of command lines, each a process; `kill` says how many of them are killed
(kill -9) once the store at `store` has `samples`. The processes are forked from one that has loaded everything, which
is what makes them cheap. Prints how each ended, step by step.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import scipy.stats  # noqa: F401

import archon.benchmarks.searching.summary
import archon.search.spending  # noqa: F401
from archon.cli import main
from archon.search.axes import Axes, Axis
from archon.search.study import Study


def stored(store: Path) -> int:
    """How many samples there are."""
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM samples").fetchone()[0])
        finally:
            connection.close()
    return 0


def forked(words: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(2, 1)
        main(words)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def step(run: list[list[str]], kill: int = 0, store: str = "", samples: int = 0) -> list[int]:
    """The exit codes, in order; -9 of one that was killed."""
    workers = [forked(words) for words in run]
    left = list(workers)
    if kill:
        while stored(Path(store)) < samples:
            time.sleep(0.002)
        for worker in workers[:kill]:
            os.kill(worker, signal.SIGKILL)
    codes: dict[int, int] = {}
    while left:
        pid, status = os.waitpid(-1, 0)
        codes[pid] = os.waitstatus_to_exitcode(status)
        left.remove(pid)
    return [codes[worker] for worker in workers]


if __name__ == "__main__":
    plan: list[dict[str, Any]] = json.loads(sys.argv[1])
    with suppress(SystemExit), redirect_stdout(sys.stderr):  # to load what they need
        main([*plan[0]["run"][0], "--dry-run"])
    with TemporaryDirectory() as folder:
        axes = Axes([Axis("n", "int", low=1, high=2)])
        Study.open(f"{folder}/s.sqlite", "s", axes=axes, objectives={"x": "maximize"}, facts={}).close()
    print(json.dumps([step(**one) for one in plan]))
