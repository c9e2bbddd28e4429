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

_SOURCE = """
import signal
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

class Late(BaseException): 0

def late(*_):
    raise Late

signal.signal(signal.SIGPROF, late)

def read(text):
    both = (LatexExtractionConfig(), ExprExtractionConfig())
    return parse(f"${text}$", both, parsing_timeout=None) or parse(text, both, parsing_timeout=None)

def equal(gold, answer, seconds):
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)  # again and again, as sympy may swallow the first
    try:
        right, given = read(gold), read(answer)
        return bool(right and given and verify(right, given, timeout_seconds=None))
    except Late:
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
"""
_SECONDS = 5.0
"""CPU time of one comparison: math-verify's own limit counts wall time, and calls what is late unequal."""
_LIMITS = Limits(cpu_seconds=60, wall_seconds=180, memory_mb=4096)
_PROGRAM = Program(source=_SOURCE, entry_point="equal", packages=True, preload=("math_verify",))


async def equal_answers(gold: str, answers: Sequence[str], session: Session) -> list[bool | None]:
    """For each answer, whether it equals `gold`; None where that could not be decided in time."""
    keys = [
        hashlib.sha256(f"{gold}\0{answer}".encode("utf-8", "surrogatepass")).hexdigest() for answer in answers
    ]
    known = {k: json.loads(v) for k, v in (await session.store.recall("math_equal", keys)).items()}
    todo = [(k, a) for k, a in dict(zip(keys, answers, strict=True)).items() if k not in known]
    executor = await session.executor()
    while todo:
        calls = [Call(args=(gold, answer, _SECONDS)) for _, answer in todo]
        returned = await executor.evaluate(_PROGRAM, calls, _LIMITS)
        fresh: dict[str, bool | None] = {}
        for (key, _), one in zip(todo, returned, strict=True):
            if one.status == "skipped":
                break  # the one before it took the process down: go on behind it, in a new one
            if one.status == "timed_out" and fresh:
                break  # those before it used up the time: it gets its own
            if one.status == "failed" and "No module named" in one.detail:
                raise MissingExtra(
                    "math-verify is not installed, and formulas cannot be compared without it: pip install math-verify"
                )
            fresh[key] = one.value if isinstance(one.value, bool) else None  # failed is not unequal
        known.update(fresh)
        await session.store.remember("math_equal", {k: json.dumps(v).encode() for k, v in fresh.items()})
        todo = todo[len(fresh) :]
    return [known[key] for key in keys]
