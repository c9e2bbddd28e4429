"""Whether two formulas are equal as mathematics, by math-verify, in the sandbox.

math-verify parses what a model wrote with sympy, which evaluates text and can take forever; so it runs where
candidate code runs: in a forked, limited process, with the results remembered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from archon.errors import MissingExtra
from archon.execution import Call, Limits, Program
from archon.session import Session

_SOURCE = '''
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_CONFIG = (LatexExtractionConfig(), ExprExtractionConfig())

def equal(gold, answer):
    """Whether the answer equals gold, both as LaTeX or plain expressions."""
    right = parse(f"${gold}$", _CONFIG, parsing_timeout=5) or parse(gold, _CONFIG, parsing_timeout=5)
    given = parse(f"${answer}$", _CONFIG, parsing_timeout=5) or parse(answer, _CONFIG, parsing_timeout=5)
    return bool(right and given and verify(right, given, timeout_seconds=5))
'''
_LIMITS = Limits(cpu_seconds=60, wall_seconds=180, memory_mb=4096)
_PROGRAM = Program(source=_SOURCE, entry_point="equal", packages=True)


async def equal_answers(gold: str, answers: Sequence[str], session: Session) -> list[bool | None]:
    """For each answer, whether it equals `gold`; None where that could not be decided in time."""
    keys = [
        hashlib.sha256(f"{gold}\0{answer}".encode("utf-8", "surrogatepass")).hexdigest() for answer in answers
    ]
    known = {k: json.loads(v) for k, v in (await session.store.recall("math_equal", keys)).items()}
    todo = [(k, a) for k, a in dict(zip(keys, answers, strict=True)).items() if k not in known]
    executor = await session.executor()
    while todo:
        calls = [Call(args=(gold, answer)) for _, answer in todo]
        returned = await executor.evaluate(_PROGRAM, calls, _LIMITS)
        fresh: dict[str, bool | None] = {}
        for (key, _), one in zip(todo, returned, strict=True):
            if one.status == "skipped":
                break  # the one before it took the process down: go on behind it, in a new one
            if one.status == "failed" and "No module named" in one.detail:
                raise MissingExtra(
                    "math-verify is not installed, and formulas cannot be compared without it: pip install math-verify"
                )
            fresh[key] = (
                bool(one.value) if one.status == "returned" else None  # failed is not unequal
            )
        known.update(fresh)
        await session.store.remember("math_equal", {k: json.dumps(v).encode() for k, v in fresh.items()})
        todo = todo[len(fresh) :]
    return [known[key] for key in keys]
