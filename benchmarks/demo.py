"""The demonstration: a small benchmark that needs no data, and a scripted stand-in for a model.

`make demo` runs it. Its problems, tests, sandbox, budget, store, statistics and pictures are real; its replies are
written by hand and drawn at random, as a model's would be, until the embedded model replaces them. The
problems can be put to any model: archon bench demo --pipeline best_of_n --model ...
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import NamedTuple

from archon.backends.scripted import Call as Asked
from archon.backends.scripted import Reply, Scripted
from archon.benchmarks.benchmark import Benchmark, Dataset
from archon.benchmarks.humaneval import CODE_SELECTORS, function_problem
from archon.benchmarks.programs import ReferenceGrader
from archon.benchmarks.results import Results
from archon.execution import Call, Program
from archon.problem import Case


class _Task(NamedTuple):
    name: str
    signature: str
    doc: str
    inputs: tuple[tuple[object, ...], ...]
    """Hidden ones."""
    right: str
    skill: float
    """How often the stand-in writes the right body."""
    wrong: tuple[str, ...]
    """What it writes otherwise; the first passes the visible examples."""


_TASKS = (
    _Task(
        "second_largest", "numbers", "the second largest distinct number, or None if there is none.\n"
        "    >>> second_largest([3, 1, 2])\n    2\n    >>> second_largest([5])\n    None",
        (([1, 1],), ([4, 4, 3],), ([],), ([9, 8, 7, 9],), ([-1, -2],)),
        "distinct = sorted(set(numbers))\n    return distinct[-2] if len(distinct) > 1 else None", 0.35,
        ("return sorted(numbers)[-2] if len(numbers) > 1 else None", "return sorted(numbers)[-2]", "return max(numbers)"),
    ),
    _Task(
        "is_palindrome", "text", "whether text reads the same backwards, ignoring case and everything but letters.\n"
        "    >>> is_palindrome('Anna')\n    True\n    >>> is_palindrome('Bob!')\n    True\n    >>> is_palindrome('ab')\n    False",
        (("A man, a plan, a canal: Panama",), ("",), ("1a2",), ("No lemon, no melon",), ("x y",)),
        "letters = [c.lower() for c in text if c.isalpha()]\n    return letters == letters[::-1]", 0.5,
        ("t = text.lower().strip('!')\n    return t == t[::-1]", "return text == text[::-1]", "return text.lower == text[::-1].lower"),
    ),
    _Task(
        "run_lengths", "items", "the items with the lengths of their runs, as pairs.\n"
        "    >>> run_lengths([1, 1, 2])\n    [(1, 2), (2, 1)]\n    >>> run_lengths([])\n    []",
        (([1, 2, 1],), (["a"],), ([0, 0, 0, 1, 1, 0],), ([None, None],)),
        "runs = []\n    for item in items:\n        if runs and runs[-1][0] == item:\n            runs[-1] = (item, runs[-1][1] + 1)\n"
        "        else:\n            runs.append((item, 1))\n    return runs", 0.3,
        ("return [(i, items.count(i)) for i in dict.fromkeys(items)]", "return [[i, items.count(i)] for i in set(items)]",
         "from itertools import group_by\n    return group_by(items)"),
    ),
    _Task(
        "gcd_of", "numbers", "the greatest common divisor of a non-empty list of integers, never negative.\n"
        "    >>> gcd_of([12, 18])\n    6\n    >>> gcd_of([7])\n    7",
        (([-4, 6],), ([0, 0],), ([0, 5],), ([100, 75, 50],), ([13, 17],)),
        "import math\n    return math.gcd(*numbers)", 0.6,
        ("for d in range(min(numbers), 0, -1):\n        if all(n % d == 0 for n in numbers):\n            return d",
         "d = 1\n    while any(n % d for n in numbers):\n        d += 0\n    return d", "return min(numbers)"),
    ),
    _Task(
        "balanced", "text", "whether the brackets ()[]{} in text are balanced and properly nested.\n"
        "    >>> balanced('([])')\n    True\n    >>> balanced('(]')\n    False",
        (("([)]",), ("",), ("((",), ("a(b)c",), ("}{",), ("{[()()]}",)),
        "stack = []\n    pairs = {')': '(', ']': '[', '}': '{'}\n    for c in text:\n        if c in '([{':\n            stack.append(c)\n"
        "        elif c in pairs and (not stack or stack.pop() != pairs[c]):\n            return False\n    return not stack", 0.25,
        ("return all(text.count(a) == text.count(b) for a, b in ('()', '[]', '{}'))", "return text.count('(') == text.count(')')",
         "while text:\n        text = text.replace('()', '')\n    return True"),
    ),
    _Task(
        "median", "numbers", "the median of a non-empty list: the mean of the middle two where there are two.\n"
        "    >>> median([3, 1, 2])\n    2\n    >>> median([1])\n    1",
        (([4, 1, 3, 2],), ([1, 2],), ([5, 5, 1, 9, 7],), ([-1, 0, 4, 9],)),
        "s = sorted(numbers)\n    m = len(s) // 2\n    return s[m] if len(s) % 2 else (s[m - 1] + s[m]) / 2", 0.45,
        ("return sorted(numbers)[len(numbers) // 2]", "return numbers[len(numbers) // 2]", "return sum(numbers) / len(numbers)"),
    ),
    _Task(
        "to_roman", "n", "the Roman numeral of n, for 1 to 3999.\n    >>> to_roman(7)\n    'VII'\n    >>> to_roman(10)\n    'X'",
        ((4,), (9,), (40,), (1994,), (3999,), (58,)),
        "out = ''\n    for value, mark in ((1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'), "
        "(10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n        while n >= value:\n            out += mark\n            n -= value\n    return out", 0.15,
        ("out = ''\n    for value, mark in ((10, 'X'), (5, 'V'), (1, 'I')):\n        out += mark * (n // value)\n        n %= value\n    return out",
         "return 'I' * n", "return roman(n)"),
    ),
    _Task(
        "longest_common_prefix", "words", "the longest prefix that all the words share.\n"
        "    >>> longest_common_prefix(['abc', 'abd'])\n    'ab'\n    >>> longest_common_prefix([])\n    ''",
        ((["a", "b"],), (["same", "same"],), (["abc", "axc"],), (["", "x"],), (["flow", "flower", "flight"],)),
        "if not words:\n        return ''\n    low, high = min(words), max(words)\n    n = 0\n    while n < len(low) and low[n] == high[n]:\n"
        "        n += 1\n    return low[:n]", 0.3,
        ("return ''.join(a for a, b in zip(*words[:2]) if a == b) if words else ''", "return min(words)[:2]", "return words[0][:-1]"),
    ),
    _Task(
        "flatten", "nested", "all items of a list that holds lists of any depth, in order.\n"
        "    >>> flatten([1, [2, 3]])\n    [1, 2, 3]\n    >>> flatten([])\n    []",
        (([1, [2, [3, [4]]]],), ([[], [[]]],), ([[1], 2, [[3]]],), (["ab", ["c"]],)),
        "flat = []\n    for item in nested:\n        flat.extend(flatten(item) if isinstance(item, list) else [item])\n    return flat", 0.4,
        ("return [x for item in nested for x in (item if isinstance(item, list) else [item])]", "return sum(nested, [])", "return list(nested)"),
    ),
    _Task(
        "count_vowels", "text", "the number of vowels (a, e, i, o, u), in either case.\n"
        "    >>> count_vowels('banana')\n    3\n    >>> count_vowels('')\n    0",
        (("AEIOU",), ("rhythm",), ("Queue",), ("a e",)),
        "return sum(c in 'aeiou' for c in text.lower())", 0.75,
        ("return sum(c in 'aeiou' for c in text)", "return len(set(text) & set('aeiou'))", "return text.count('aeiou')"),
    ),
)  # fmt: skip


class Demo(Benchmark):
    """Ten small functions with visible examples and hidden tests."""

    def load(self) -> Dataset:
        """The ten problems."""
        tasks = {f"demo/{task.name}": task for task in _TASKS}
        rows = {
            name: {"task_id": name, "entry_point": t.name, "prompt": _prompt(t)} for name, t in tasks.items()
        }
        references = {
            name: Program(source=f"{rows[name]['prompt']}    {t.right}\n", entry_point=t.name)
            for name, t in tasks.items()
        }
        inputs = {name: (lambda t=t: [Call(args=args) for args in t.inputs]) for name, t in tasks.items()}

        def case(name: str, call: Call, value: object) -> Case:
            return Case(args=call.args, expected=value)

        problems = [function_problem(row) for row in rows.values()]
        return Dataset("demo", problems, ReferenceGrader(inputs, references, case), selectors=CODE_SELECTORS)


def stand_in() -> Scripted:
    """A scripted model: right as often as its skill says, else one of its mistakes."""
    tasks = {f"demo/{task.name}": task for task in _TASKS}

    def reply(call: Asked) -> Reply:
        task = tasks[call.problem]
        draw = random.Random(f"{call.index} {call.problem}")
        body = task.right if draw.random() < task.skill else draw.choice(task.wrong)
        return Reply(f"```python\n{_prompt(task)}    {body}\n```", latency=0.01 + 0.05 * draw.random())

    return Scripted(reply=reply, identity="demo-stand-in", concurrency=64)


def _prompt(task: _Task) -> str:
    return f'def {task.name}({task.signature}):\n    """Return {task.doc}\n    """\n'


def main() -> None:
    """Run the demonstration and show its report."""
    from rich.console import Console

    from archon.benchmarks import plots
    from archon.benchmarks import report as reports

    console = Console(width=None if sys.stdout.isatty() else 150)
    console.rule("Archon, a demonstration")
    console.print(
        "[yellow]There is no model here: replies are scripted and drawn at random, as a stand-in for one. "
        "Everything else is real: sampling through a budget and a store, programs run and graded in a sandbox, "
        "statistics, pictures.[/yellow]\n"
    )
    folder = Path("runs/demo")
    first = asyncio.run(_run("best_of_n", folder / "best_of_n"))
    reports.show(first, console)
    pictures = plots.draw(first, folder / "best_of_n")
    console.rule("The same model, stopped at the first sample that passes the visible examples")
    second = asyncio.run(_run("first_passing", folder / "first_passing"))
    reports.show(second, console)
    console.rule("Again, from the store: no sample is paid for twice, no program run twice")
    again = asyncio.run(_run("best_of_n", folder / "best_of_n"))
    console.print(f"Spent this time: {again.data['fresh']['requests']} requests")
    console.print("\nPictures: " + ", ".join(map(str, pictures)), soft_wrap=True)
    console.print("Next: the README's tour, and `archon bench --help`.")


async def _run(pipeline: str, folder: Path) -> Results:
    from archon.benchmarks.harness import Harness, Plan
    from archon.budget import Budget, Budgets
    from archon.cli.options import with_samples
    from archon.progress import Live
    from archon.session import Session
    from archon.shelf import ready

    graph = with_samples(ready(pipeline).pipeline, 64).graph()
    folder.mkdir(parents=True, exist_ok=True)
    budget = Budgets(problem=Budget(requests=64), run=Budget(requests=2000))
    async with Session(models=stand_in(), budget=budget, store=Path("runs/demo/store.sqlite")) as session:
        with Live() as live:
            return await Harness(
                Plan(Demo().load(), graph, pipeline, samples=64), session, folder, live
            ).run()


if __name__ == "__main__":
    main()
