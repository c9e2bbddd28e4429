"""Checking programs that leave nothing behind are told from those that may."""

from __future__ import annotations

from pathlib import Path

import pytest

from archon.backends.recordings import read_jsonl
from archon.verifiers.sandbox.tidy import tidy

TIDY = [
    "",
    "def check(candidate):\n    assert candidate([1, 2]) == 3, 'no'\n",
    "import math\ndef check(c):\n    assert abs(c(1) - math.pi) < 1e-6\n",
    "METADATA = {'author': 'x'}\nMETADATA['seen'] = []\ndef check(c):\n    for _ in range(3):\n        assert c()\n",
    "import random\ndef check(c):\n    x = [random.random()]\n    x.sort()\n    assert c(x) == x[0]\n",
    "from typing import List\nfrom collections.abc import Sequence\nassert f(1) == 2\n",
]
UNTIDY = [
    "import sys",
    "import os.path",
    "from decimal import getcontext",
    "from . import math",
    "import numpy as np",
    "import math\nmath.pi = 3",
    "import math\ndel math.pi",
    "import math\nmath.pi += 1",
    "import math\nfor math.pi in (1, 2): pass",
    "import math\nwith f() as math.pi: pass",
    "import random\nrandom.__dict__['random'] = int",
    "import re\nre.x['y'] = 1",
    "import math\n[math][0].pi = 3",
    "import math\nsetattr(math, 'pi', 3)",
    "s = setattr",
    "__import__('sys')",
    "exec('import sys')",
    "globals()['x'] = 1",
    "open('x', 'w')",
    "().__class__.__base__.__subclasses__()",
    "async def f(): pass",
    "def (",
    "x = '\0'",
    "#" * (1 << 21),
]


@pytest.mark.parametrize("source", TIDY)
def test_tidy(source: str) -> None:
    assert tidy(source)


@pytest.mark.parametrize("source", UNTIDY)
def test_untidy(source: str) -> None:
    assert not tidy(source)
    assert not tidy(TIDY[1], source)


@pytest.mark.data
def test_most_of_humaneval_is(data: Path) -> None:
    rows = [row for _, row in read_jsonl(data / "humaneval" / "HumanEval.jsonl.gz")]
    found = [tidy(row["prompt"] + row["canonical_solution"], row["test"]) for row in rows]
    assert sum(found) > 155
