"""Whether a checking program leaves the interpreter it runs in as it found it, so that the same interpreter can run it
again for the next candidate.

Read from its source, and strictly: it imports nothing but modules that hold no settings, sets nothing on objects and
modules, and names nothing that could do so unseen. What is not plainly tidy is given an interpreter of its own for
each candidate, which costs time and nothing else.
"""

from __future__ import annotations

import ast
import functools

_HARMLESS = frozenset(
    "__future__ bisect cmath collections copy dataclasses datetime enum fractions functools hashlib heapq itertools"
    " math numbers operator random re statistics string textwrap typing".split()
)
"""`random` is given the same seed before each check."""
_POWERFUL = frozenset(
    "__builtins__ __import__ breakpoint compile delattr eval exec globals input locals open setattr vars".split()
)
_LONGEST = 1 << 16
"""Letters that take some tens of milliseconds to read. (Not in a thread: Python 3.11 reads one source at a time.)"""


@functools.lru_cache(maxsize=1024)
def tidy(*sources: str) -> bool:
    """Whether these sources, run together, leave nothing behind. Sources that do not parse do not."""
    return sum(map(len, sources)) <= _LONGEST and all(map(_is_tidy, sources))


def _is_tidy(source: str) -> bool:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_leaves_nothing, ast.walk(tree)))


def _leaves_nothing(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return all(name.name.partition(".")[0] in _HARMLESS for name in names)
        case ast.ImportFrom(module=module, level=level):
            return level == 0 and (module or "").partition(".")[0] in _HARMLESS
        case ast.Name(id=name):
            return name not in _POWERFUL
        case ast.Attribute(attr=name, ctx=context):
            return isinstance(context, ast.Load) and not name.startswith("_")
        case ast.Subscript(ctx=ast.Store() | ast.Del(), value=value):
            return isinstance(value, ast.Name | ast.Subscript)
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return False
    return True


__all__ = ["tidy"]
