"""What is plain, and what only looks like it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from archon.backends.recordings import read_jsonl
from archon.verifiers.sandbox import plain as reading
from archon.verifiers.sandbox.plain import plain

PLAIN = [
    "",
    "def f(x):\n    return x + 1",
    "from typing import List, Optional\ndef f(xs: List[int], y: Optional[str] = None) -> List[str]:\n"
    "    return [str(x) for x in sorted(xs, key=lambda x: -x) if x not in {1, 2}]",
    "import math, re\nfrom collections import Counter, defaultdict, deque\ndef f(s):\n"
    "    d = defaultdict(list)\n    d['a'].append(math.sqrt(2))\n    return re.sub('a', 'b', s), Counter(s).most_common(1)",  # noqa: E501
    "from functools import lru_cache\n@lru_cache(maxsize=None)\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)",  # noqa: E501
    "def f(x):\n    try:\n        return int(x)\n    except (ValueError, TypeError) as e:\n        raise KeyError from e",  # noqa: E501
    "def f(x):\n    def g():\n        nonlocal x\n        x += 1\n        yield x\n    return list(g())",
    "def f(x):\n    global seen\n    seen = x\n    while True:\n        break\n    del seen\n    assert x, 'no'",
    "def f(x):\n    return f'{x:>{len(x)}}' + '{} {0!r:>5} {a}'.format(x, a=1) + '%5.2f' % 2.0",
    "def f(x):\n    return type(x) == int or isinstance(x, str) or type(x) is not type(1)",
    "from math import *\ndef f(x): return sqrt(x)",
    "import itertools as it\ndef f(x): return list(it.chain.from_iterable(x)), (y := 1)",
    "def f(*args, **kwargs): return print(*args, **kwargs)",
]
NOT_PLAIN = [
    # ways inside an object
    "def f(x): return x.__class__",
    "def f(x): return x._private",
    "def f(x): return (i for i in x).gi_frame",
    "def f(x): return f.func_globals",
    "try: pass\nexcept Exception as e: e.__traceback__",
    "def f(x): return e.tb_frame.f_back.f_locals",
    "def f(x): return getattr(x, 'y')",
    "g = getattr",
    "def f(x): return vars(x)",
    "def f(x): return type(x)",
    "def f(x): return type('X', (), {})",
    "def f(x): return type(*x) == int",
    "def f(x): return type(x)(x) == x",
    "def f(x): return int.mro() == x",
    "def f(x): return '{0.__class__}'.format(x)",
    "def f(x): return '{0[a]}'.format(x)",
    "def f(x): return '{:{}}'.format(x, 3)",
    "def f(x): return x.format(f)",
    "def f(x): return str.format(x, f)",
    "def f(x): return ('{0.__' + 'class__}').format(x)",
    "def f(x): return x.format_map({})",
    "def f(x): return map(str.format, x)",
    # code made of text
    "eval('1')",
    "def f(x): exec(x)",
    "compile('1', '', 'eval')",
    "__import__('os')",
    "__builtins__",
    "def f(__builtins__): pass",
    "def f(x): return __name__",
    "from typing import get_type_hints",
    "from typing import *",
    "import typing\ntyping.get_type_hints(f)",
    "from collections import namedtuple",
    # settings, files, other modules
    "import os",
    "import os.path",
    "import sys",
    "import builtins",
    "from . import x",
    "from .math import sqrt",
    "import collections.abc",
    "import math as _math",
    "import math as open",
    "from operator import attrgetter",
    "from operator import *",
    "import operator\noperator.attrgetter('x')",
    "from functools import *",
    "from functools import update_wrapper",
    "from random import *",
    "from random import seed",
    "import random\nrandom.seed(1)",
    "import random\nrandom._inst",
    "from re import *",
    "from string import Formatter",
    "import re\nre.copyreg",
    "open('x')",
    "input()",
    "breakpoint()",
    # what sets something that it did not make
    "import math\nmath.pi = 3",
    "import math\ndel math.pi",
    "def f(x): x.y = 1",
    "for f.x in [1]: pass",
    "[0 for f.x in [1]]",
    "with f as x: pass",
    "setattr(f, 'x', 1)",
    # what runs later, or elsewhere
    "class A: pass",
    "class A:\n    def __eq__(self, other): return True",
    "def __getattr__(x): pass",
    "async def f(): pass",
    "def f():\n    try:\n        yield 1\n    finally:\n        while True: pass",
    "def f():\n    try:\n        x = yield 1\n    except BaseException:\n        pass",
    "def f():\n    try:\n        for i in [1]:\n            yield from [i]\n    finally: pass",
    "def f(x):\n    match x:\n        case 1: pass",
    "def f(x):\n    try: pass\n    except* ValueError: pass",
    "raise SystemExit",
    "def f(x):\n    try: pass\n    except BaseException: pass",
    "def f(object): pass",
    "global __builtins__",
    "lambda __class__: 1",
    "f(__class__=1)",
    "#" * 70_000,
]


@pytest.mark.parametrize("source", PLAIN)
def test_plain(source: str) -> None:
    assert plain(source) is not None


@pytest.mark.parametrize("source", NOT_PLAIN)
def test_not_plain(source: str) -> None:
    assert plain(source) is None


@pytest.mark.parametrize("source", ["def (", "x = '\0'", "return 1 +"])
def test_what_is_no_program_raises_as_compile_does(source: str) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        plain(source)


def test_a_generator_inside_of_a_guarded_function_is_plain_if_nothing_guards_it_itself() -> None:
    assert plain(
        "def f():\n    try:\n        def g():\n            yield 1\n        return list(g())\n    except KeyError: pass"
    )


def test_no_name_of_a_method_reaches_something_else_of_a_module() -> None:
    """Attributes are known by name alone; so what modules have by the same names must be plain too."""
    others = {
        f"{module}.{name}"
        for module, names in reading._FROM.items()
        for name in reading._ATTRIBUTES - names
        if hasattr(importlib.import_module(module), name)
    }
    assert {name for name in others if not name.startswith(("math.", "cmath."))} <= {
        "collections.abc.MutableMapping",
        "collections.abc.MutableSequence",
        "operator.index",
        "typing.ChainMap",
        "typing.defaultdict",
    }


def test_everything_that_is_named_is_there() -> None:
    missing = [
        f"{module}.{name}"
        for module, names in reading._FROM.items()
        for name in names
        if not hasattr(importlib.import_module(module), name) and name != "from_iterable"
    ]
    assert missing == []


@pytest.mark.data
def test_nine_in_ten_recorded_programs_are_plain(data: Path) -> None:
    rows = [row for _, row in read_jsonl(data / "humaneval" / "HumanEval.jsonl.gz")]
    sources = [row["prompt"] + row["canonical_solution"] for row in rows]
    assert sum(plain(source) is not None for source in sources) > 0.9 * len(sources)
