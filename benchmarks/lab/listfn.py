"""lab/listfn: a Python function on lists from examples of what it returns.

A few examples are visible and many hidden, so programs that pass the visible ones are sometimes wrong. Solutions
note beside each line what it makes of the first example: that is where a model that writes them does its thinking.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from archon.benchmarks.lab.family import Task

Numbers = list[int]
VISIBLE, HIDDEN = 3, 24


class Primitive(NamedTuple):
    """One thing to do to a list: in Python, in words, and done."""

    code: str
    words: str
    apply: Callable[[Numbers], Numbers]


def _with(k: int) -> list[Primitive]:
    return [
        Primitive(f"[i+{k} for i in x]", f"add {k}", lambda x: [i + k for i in x]),
        Primitive(f"[i for i in x if i>{k + 1}]", f"above {k + 1}", lambda x: [i for i in x if i > k + 1]),
        Primitive(f"[i%{k + 1} for i in x]", f"mod {k + 1}", lambda x: [i % (k + 1) for i in x]),
        Primitive(f"x[{k}:]", f"drop {k}", lambda x: x[k:]),
        Primitive(f"x[:{k}]", f"first {k}", lambda x: x[:k]),
    ]


PRIMITIVES: tuple[Primitive, ...] = (
    Primitive("sorted(x)", "sort", sorted),
    Primitive("x[::-1]", "reverse", lambda x: x[::-1]),
    Primitive("x[:-1]", "drop last", lambda x: x[:-1]),
    Primitive("x[::2]", "every second", lambda x: x[::2]),
    Primitive("[i*2 for i in x]", "double", lambda x: [i * 2 for i in x]),
    Primitive("[i*i for i in x]", "square", lambda x: [i * i for i in x]),
    Primitive("[i for i in x if i%2==0]", "even", lambda x: [i for i in x if i % 2 == 0]),
    Primitive("[i for i in x if i%2]", "odd", lambda x: [i for i in x if i % 2]),
    Primitive("sorted(set(x))", "set", lambda x: sorted(set(x))),
    Primitive("x+x", "twice", lambda x: x + x),
    Primitive("x+[sum(x)]", "append sum", lambda x: [*x, sum(x)]),
    Primitive("x+[len(x)]", "append length", lambda x: [*x, len(x)]),
    Primitive("[sum(x)]", "sum", lambda x: [sum(x)]),
    *_with(1),
    *_with(2),
    *_with(3),
)
WORDS = {p.words: p for p in PRIMITIVES}


class ListFn:
    """Compositions of one to five primitives; every one of them matters to some example."""

    name: ClassVar[str] = "listfn"
    levels: ClassVar[Sequence[int]] = (1, 2, 3, 4, 5)
    """How many primitives."""

    def draw(self, rng: random.Random, level: int) -> Task:
        """A function, three examples, and 24 hidden ones."""
        while True:
            chosen = [rng.choice(PRIMITIVES) for _ in range(level)]
            inputs = [_list(rng, 3, 5, 9) for _ in range(VISIBLE)]
            if not _matters(chosen, inputs):
                continue
            hidden = [_list(rng, 0, 8, rng.choice((9, 9, 30))) for _ in range(HIDDEN)]
            examples = [(x, applied(chosen, x)) for x in inputs + hidden]
            if (
                any(len(y) > 16 for _, y in examples)
                or max(map(max, (y for _, y in examples if y)), default=0) > 9999
            ):
                continue
            return Task(
                self.name, level, question(examples[:VISIBLE]), program(chosen, inputs[0]),
                given={"examples": examples, "plan": [p.words for p in chosen]},
            )  # fmt: skip


def applied(chosen: Sequence[Primitive], x: Numbers) -> Numbers:
    """One primitive after the other."""
    for primitive in chosen:
        x = primitive.apply(x)
    return x


def question(examples: Sequence[tuple[Any, Any]]) -> str:
    """As it is asked."""
    return "\n".join([*(f"f({_shown(x)})={_shown(y)}" for x, y in examples), "Write f(x)."])


def program(chosen: Sequence[Primitive], x: Numbers) -> str:
    """One line a primitive, each with what it makes of `x`."""
    lines = ["def f(x):"]
    for primitive in chosen:
        x = primitive.apply(x)
        lines.append(f" x={primitive.code}#{_shown(x)}")
    return "\n".join([*lines, " return x"])


def _shown(numbers: Numbers) -> str:
    return "[" + ",".join(map(str, numbers)) + "]"


def _list(rng: random.Random, least: int, most: int, largest: int) -> Numbers:
    return [rng.randint(0, largest) for _ in range(rng.randint(least, most))]


def _matters(chosen: Sequence[Primitive], inputs: Sequence[Numbers]) -> bool:
    """Whether no primitive can be left out unseen, and something is left in the end."""
    outputs = [applied(chosen, x) for x in inputs]
    if not all(outputs) or len({tuple(y) for y in outputs}) == 1:
        return False
    without = ([applied([*chosen[:at], *chosen[at + 1 :]], x) for x in inputs] for at in range(len(chosen)))
    return all(other != outputs for other in without)
