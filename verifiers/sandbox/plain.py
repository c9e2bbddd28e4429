"""Whether a program is so plain that others may run in the same process before and after it.

A process for each program costs some ten times what most programs do. A *plain* program can share one: it computes
with values and leaves nothing behind. What that is, is read from its syntax tree, and only what is listed here is
plain: these kinds of syntax, these built-ins, these names of these modules, and attributes with these names, which are
methods of values. So a plain program has no classes, no files, no way to an object's inside (names with an
underscore, frames, code, `getattr`, formats that look into objects), and can neither set anything on what it did not
make nor leave code that runs later. Everything else runs in a process of its own. All other walls stand around both.

Loaded by the isolated interpreters: standard library only.
"""

from __future__ import annotations

import ast
import builtins
import string

_SYNTAX = (
    ast.Module, ast.FunctionDef, ast.Return, ast.Delete, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While,
    ast.If, ast.Raise, ast.Try, ast.Assert, ast.Import, ast.ImportFrom, ast.Nonlocal, ast.Global, ast.Expr, ast.Pass,
    ast.Break, ast.Continue, ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict,
    ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Yield, ast.YieldFrom, ast.Compare,
    ast.Call, ast.FormattedValue, ast.JoinedStr, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name,
    ast.List, ast.Tuple, ast.Slice, ast.comprehension, ast.ExceptHandler, ast.arguments, ast.arg, ast.keyword,
    ast.alias, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_EXCEPTIONS = (
    "ArithmeticError AssertionError AttributeError Exception IndexError KeyError LookupError NameError"
    " NotImplementedError OverflowError RuntimeError StopIteration TypeError UnboundLocalError UnicodeError ValueError"
    " ZeroDivisionError"
)
_BUILTINS = frozenset(
    "abs all any ascii bin bool bytes bytearray callable chr complex dict divmod enumerate filter float frozenset hash"
    " hex int isinstance iter len list map max min next oct ord pow print range repr reversed round set slice sorted"
    f" str sum tuple zip NotImplemented Ellipsis {_EXCEPTIONS}".split()
)
_REFUSED = frozenset(dir(builtins)) - _BUILTINS
"""Names that mean something which is not plain, where the program does not give them another meaning (not asked)."""


def _type_of(value: object, /) -> type:
    return type(value)


BUILTINS = {name: getattr(builtins, name) for name in ("__import__", *_BUILTINS)} | {"type": _type_of}
"""All that a plain program finds by names that it has not given itself; `__import__` is what its imports call."""
_MODULES = {
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "cmath": "exp log log10 phase pi polar rect sqrt",
    "collections": "ChainMap Counter OrderedDict defaultdict deque",
    "copy": "copy deepcopy",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile"
    " filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest from_iterable",
    "math": "acos acosh asin asinh atan atan2 atanh ceil comb copysign cos cosh degrees dist e erf erfc exp expm1 fabs"
    " factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log"
    " log10 log1p log2 modf nan perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc",
    "operator": "add and_ eq floordiv ge gt itemgetter le lt mod mul ne neg not_ or_ pow sub truediv xor",
    "random": "choice randint random randrange sample shuffle uniform",
    "re": "A ASCII DOTALL I IGNORECASE M MULTILINE S compile escape findall finditer fullmatch match search split sub"
    " subn",
    "string": "ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits punctuation printable"
    " whitespace",
    "typing": "Any AnyStr Callable Counter DefaultDict Deque Dict FrozenSet Generator Generic Hashable Iterable"
    " Iterator List Mapping MutableMapping MutableSequence NoReturn Optional OrderedDict Sequence Set Tuple Type Union",
}
_FROM = {name: frozenset(names.split()) for name, names in _MODULES.items()}
_FROM["collections.abc"] = frozenset(
    "Callable Generator Hashable Iterable Iterator Mapping Sequence Set".split()
)
_FROM["__future__"] = frozenset(("annotations",))
_WHOLE = frozenset(("bisect", "cmath", "heapq", "itertools", "math"))
"""Modules of which everything is plain."""
_VALUES = (str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, range, slice, bool)
_METHODS = frozenset(name for kind in _VALUES for name in dir(kind) if not name.startswith("_")) - {
    "format", "format_map", "from_bytes",
}  # fmt: skip
_MORE_METHODS = frozenset(
    "appendleft cache_clear elements end expand extendleft group groupdict groups most_common popleft rotate span start"
    " string subtract total move_to_end".split()
)
_ATTRIBUTES = _METHODS | _MORE_METHODS | frozenset().union(*_FROM.values())
_FEW = 64 * 1024


def plain(source: str) -> ast.Module | None:
    """The program's tree, if it is plain. Raises what `compile` would where it is no program."""
    if len(source) > _FEW:
        return None
    tree = ast.parse(source, "<solution>")
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, guarded = waiting.pop()
        if not _fits(node, guarded):
            return None
        guarded = isinstance(node, ast.Try) or (
            guarded and not isinstance(node, ast.FunctionDef | ast.Lambda)
        )
        waiting.extend((child, guarded) for child in _children(node))
    return tree


def _children(node: ast.AST) -> list[ast.AST]:
    """What has to be plain too."""
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Compare):  # type(x) == int
        return [part for child in children for part in (child.args if _asks_type(child) else [child])]  # type: ignore[attr-defined]
    if isinstance(node, ast.Call) and _fills_in(node):
        return [*node.args, *node.keywords]
    return children


def _asks_type(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="type"), args=[one], keywords=[]):
            return not isinstance(one, ast.Starred)
    return False


def _fills_in(node: ast.Call) -> bool:
    """Whether this is a literal's `format`, with fields that name arguments and nothing in them."""
    match node.func:
        case ast.Attribute(value=ast.Constant(value=str(text)), attr="format"):
            try:
                fields = [(name, inside) for _, name, inside, _ in string.Formatter().parse(text)]
            except ValueError:
                return False
            return all(
                (name is None or name == "" or name.isalnum()) and "{" not in (inside or "")
                for name, inside in fields
            )
    return False


def _fits(node: ast.AST, guarded: bool) -> bool:
    if not isinstance(node, _SYNTAX):
        return False
    match node:
        case ast.Name(id=name) | ast.arg(arg=name):
            return not name.startswith("__") and name not in _REFUSED
        case ast.FunctionDef(name=name) | ast.ExceptHandler(name=str(name)) | ast.keyword(arg=str(name)):
            return not name.startswith("__") and name not in _REFUSED
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return not any(name.startswith("__") or name in _REFUSED for name in names)
        case ast.Attribute(attr=name, ctx=context):
            return isinstance(context, ast.Load) and name in _ATTRIBUTES
        case ast.Import(names=names):
            return all(name.name in _MODULES and _named(name.asname) for name in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            known = _FROM.get(module or "", frozenset()) if level == 0 else frozenset()
            return all(
                (name.name in known or (name.name == "*" and module in _WHOLE)) and _named(name.asname)
                for name in names
            )
        case ast.Yield() | ast.YieldFrom():
            return not guarded  # else what follows could run when its memory is freed, in another's time
    return True


def _named(name: str | None) -> bool:
    return name is None or (not name.startswith("_") and name not in _REFUSED)


__all__ = ["BUILTINS", "plain"]
