"""All recorded CodeGen-16B samples graded against HumanEval+: wall time, memory, and whether anything is left behind.

Runs `archon bench humaneval_plus` as a process of its own and watches it and everything it starts: the peak of their
memory (PSS, so that shared pages count once). Then looks for processes, files in the folder for temporary ones, and
mounts that were not there before. Then again, and kills it with SIGKILL in the middle. Prints one line of JSON last;
ends with an error where anything is left.

    python -m archon.benchmarks.speed.grading [SAMPLES_PER_PROBLEM [SECONDS_UNTIL_IT_IS_KILLED]]
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(os.environ.get("ARCHON_DATA", "../shared/data"))
PAUSE = 0.5
PATIENCE = 10.0
"""Seconds after which what is still there counts as left."""


class Traces(NamedTuple):
    """What a machine holds that a run could leave there."""

    processes: frozenset[str]
    files: frozenset[str]
    mounts: frozenset[str]

    def beyond(self, before: Traces) -> dict[str, list[str]]:
        """What is here and was not before."""
        pairs = zip(self._fields, self, before, strict=True)
        return {name: sorted(now - then) for name, now, then in pairs if now - then}


def traces(folder: Path) -> Traces:
    processes = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if "archon" in command or name.startswith("archon"):
                processes.add(f"{entry.name} {name}")
    return Traces(
        frozenset(processes),
        frozenset(map(str, folder.iterdir())),
        frozenset(Path("/proc/self/mounts").read_text().splitlines()),
    )


def memory_mb(session: int) -> tuple[float, float]:
    """Of the harness alone, and of it and everything under it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    family = {session}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            break
        family |= more
    sizes = {pid: _pss(pid) for pid in family}
    return sizes.get(session, 0.0), sum(sizes.values())


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) / 1024 if found else 0.0


def run(samples: int, folder: Path, kill_after: float | None) -> dict[str, Any]:
    temporary = folder / "temporary"
    temporary.mkdir()
    command = [
        sys.executable, "-m", "archon", "bench", "humaneval_plus", "--pipeline", "best_of_n",
        "--replay", str((DATA / "codegen16b_humaneval").resolve()), "--data", str(DATA.resolve()),
        "--samples", str(samples), "--store", str(folder / "store.sqlite"), "--out", str(folder / "run"),
    ]  # fmt: skip
    before = traces(temporary)
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temporary), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    own = everything = 0.0
    while process.poll() is None:
        mine, all_of_it = memory_mb(process.pid)
        own, everything = max(own, mine), max(everything, all_of_it)
        if kill_after is not None and time.monotonic() - started > kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(PAUSE)
    seconds = time.monotonic() - started
    said = process.communicate()[0]
    deadline = time.monotonic() + PATIENCE
    while (left := traces(temporary).beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {
        "killed": kill_after is not None,
        "exit": process.returncode,
        "seconds": round(seconds, 1),
        "peak_mb_harness": round(own, 1),
        "peak_mb_all": round(everything, 1),
        "left": left,
        "report": [line.strip() for line in said.splitlines() if line.strip()][:40],
    }


def main(samples: int = 100, kill_after: float = 30.0) -> int:
    results = {}
    for name, moment in (("whole", None), ("killed", kill_after)):
        with tempfile.TemporaryDirectory() as folder:
            result = results[name] = run(samples, Path(folder), moment)
        ended = "ended by SIGKILL" if result["killed"] else f"exit code {result['exit']}"
        print(
            f"{name}: {result['seconds']} s, {ended}; peak memory {result['peak_mb_harness']} MB (the harness), "
            f"{result['peak_mb_all']} MB (with everything it started); left behind: {result['left'] or 'nothing'}",
            flush=True,
        )
        for line in result.pop("report"):
            print(f"  {line}")
    print(json.dumps(results))
    return int(any(result["left"] for result in results.values()) or results["whole"]["exit"] != 0)


if __name__ == "__main__":
    samples, moment = (sys.argv[1:] + ["100", "30"][len(sys.argv) - 1 :])[:2]
    sys.exit(main(int(samples), float(moment)))
