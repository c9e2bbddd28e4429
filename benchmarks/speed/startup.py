"""How long it takes to start: `import archon` and `archon --help` against a bare interpreter, in turns.

python -m archon.benchmarks.speed.startup
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 15
_COMMANDS = {
    "pass": [sys.executable, "-c", "pass"],
    "import_archon": [sys.executable, "-c", "import archon"],
    "help": [sys.executable, "-c", "from archon.cli import main; main(['--help'])"],
    "import_session": [sys.executable, "-c", "from archon import Session"],
}


def main() -> None:
    """Measure in turns and print medians and ratios."""
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(ROUNDS + 1):
        for name, command in _COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first is for warming up
                seconds[name].append(time.perf_counter() - started)
    medians = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    ratios = {
        name: statistics.median(t / p for t, p in zip(times, seconds["pass"], strict=True))
        for name, times in seconds.items()
        if name != "pass"
    }
    for name, milliseconds in medians.items():
        print(
            f"{name:<16} {milliseconds:7.1f} ms"
            + (f"   {ratios[name]:5.1f} times `pass`" if name in ratios else "")
        )
    print(json.dumps({"startup_ms": medians, "ratio_to_pass": ratios, "rounds": ROUNDS}))


if __name__ == "__main__":
    main()
