"""What the forked processes do: the candidate runs a program, the judge runs a checking program.

The candidate reads a program and then calls from its socket, and answers each with a value or an
exception, as data. It knows no expected value. The judge runs the benchmark's own checking program in a
process of its own; the function it checks is a stand-in that asks the candidate's process. One judge checks many
programs, each by a new run of its tests, until anything happens that is not plainly a verdict. Loaded by
the isolated interpreters: standard library only.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import io
import os
import random
import resource
import socket
import sys
import threading
import time
import types
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archon.verifiers.sandbox import plain, wire
else:
    import plain
    import wire

_COMMON = (
    "abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime "
    "decimal enum fractions functools hashlib heapq inspect itertools json math numbers operator os "
    "pprint queue random re statistics string struct sys textwrap threading time traceback typing unicodedata"
).split()
_TIDIED_EVERY = 16
_ROOMY = 128.0
"""Megabytes up to which the commons stay open."""
_MOST_IN = 2**31
"""What comes from our own side is as large as the benchmark makes it."""


def warm_up(modules: list[str]) -> None:
    """Import what programs commonly import, once, before the first fork."""
    warnings.simplefilter("ignore")
    for name in (*_COMMON, *modules):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    _rehearse()
    random.seed(0)  # noqa: TID251 - nobody else's
    sys.set_int_max_str_digits(4300)


def _rehearse() -> None:
    """Do once and again what a candidate and a judge do: code that has run, and what the compiler sets up when it is
    first used, need not be written to in every fork."""
    source = "from typing import List\ndef f(x: List[int], y: float = 0.5) -> str:\n    return [str(i) for i in x]\n"
    ours, theirs = socket.socketpair()
    receive, send = _channel(theirs.fileno())
    for _ in range(20):
        ours.sendall(wire.frame(wire.LOAD, wire.encode((source, "f"))))
        text, name = wire.decode(receive()[1])
        value = _load(text)[name]([1, -2, 3])
        send(wire.RETURNED, wire.encode(0.5) + wire.encode([value, 1.5, True, None, "text", (1, {"a": {2}})]))
        wire.decode(ours.recv(1 << 16)[wire.FRAME.size + 9 :])
    sys.modules.pop("solution")
    ours.close()
    theirs.close()


def be_candidate() -> None:
    """Load a program from descriptor 3 and answer calls until it closes."""
    receive, send = _channel(3)
    kind, body = receive()
    if kind != wire.LOAD:
        return
    source, entry_point = wire.decode(body)
    try:
        function = _load(source)[entry_point]
    except BaseException as error:
        send(wire.RAISED, _describe(error))
        return
    send(wire.LOADED, b"")
    try:
        while True:
            _answer(function, receive, send)
    except EOFError:
        return


def _answer(function: Any, receive: Any, send: Any) -> BaseException | None:
    """One call; the exception it ended with. Raises EOFError where there is none."""
    kind, body = receive()
    if kind != wire.CALL:
        raise EOFError
    args, kwargs = wire.decode(body)
    started = time.process_time()
    try:
        value = wire.encode(function(*args, **kwargs))
    except BaseException as error:
        send(wire.RAISED, _describe(error))
        return error
    spent = time.process_time() - started
    send(wire.RETURNED, wire.encode(spent) + value)
    return None


def be_commons() -> None:
    """Run plain programs, one after the other, each behind a socket that comes by descriptor 3 after a byte. Says what
    each has used, and whether another one should follow."""
    _, send = _channel(3)
    link = socket.socket(fileno=3)
    while True:
        announced, fds, _, _ = socket.recv_fds(link, 1, 1)
        if not announced or not fds:
            return
        random.seed(0)  # noqa: TID251 - as a process of its own has it
        started = time.process_time()
        well = _visit(fds[0])
        os.close(fds[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        well = well and peak < _ROOMY and threading.active_count() == 1
        send(wire.LEFT, wire.encode((time.process_time() - started, peak, well)))
        if not well:
            return
        gc.collect(1)


def _visit(fd: int) -> bool:
    """One program in the commons, until its socket closes; whether all went well."""
    receive, send = _channel(fd)
    well = True
    try:
        kind, body = receive()
        if kind != wire.LOAD:
            return True
        source, entry_point = wire.decode(body)
        try:
            tree = plain.plain(source)
            if tree is None:
                send(wire.APART, b"")
                return True
            code = compile(tree, "<solution>", "exec", dont_inherit=True)
            function = _run(code, {"__builtins__": dict(plain.BUILTINS)})[entry_point]
        except BaseException as error:
            send(wire.RAISED, _describe(error))
            return not isinstance(error, _UNWELL)
        send(wire.LOADED, b"")
        while well:
            well = not isinstance(_answer(function, receive, send), _UNWELL)
    except (EOFError, CandidateFailed):
        pass
    return well


def be_script() -> None:
    """Run a program that comes by descriptor 3 as a whole; 4 is its input, 5 its output. Ends the process."""
    receive, send = _channel(3)
    kind, body = receive()
    if kind != wire.LOAD:
        return
    source, _ = wire.decode(body)
    for standard in (0, 1):
        os.dup2(4 + standard, standard)
        os.close(4 + standard)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    code = 0
    try:
        _run_whole(source)
    except SystemExit as end:
        code = end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        code = 1
        send(wire.RAISED, _describe(error))
    try:
        sys.stdout.flush()
    except BaseException:
        code = code or 1
    os._exit(code)


def _run_whole(source: str) -> None:
    """As the interpreter would: then wait for its threads, then do what it left for the end."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    builtins.__dict__.update(exit=sys.exit, quit=sys.exit)  # an interpreter without `site` lacks them
    try:
        exec(compile(source, "<solution>", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - that is the job
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def be_judge() -> None:
    """Check programs by suites. Both come by descriptor 3, each after a byte; a program's brings its socket along."""
    receive, send = _channel(3)
    link = socket.socket(fileno=3)
    suites: dict[int, _Suite] = {}
    count = 0
    while True:
        announced, fds, _, _ = socket.recv_fds(link, 1, 1)
        if not announced:
            return
        kind, body = receive()
        if kind == wire.SUITE:
            place, *parts = wire.decode(body)
            suites[place] = _Suite(*parts)
            continue
        if kind != wire.CHECK or not fds:
            return
        place, *parts = wire.decode(body)
        checked = _Checked(fds[0], *parts)
        status, detail = suites[place].verdict(checked)
        os.close(fds[0])
        plain = checked.plain and threading.active_count() == 1
        send(wire.VERDICT, wire.encode((status, detail, plain)))
        if not plain:
            return
        count += 1
        if count % _TIDIED_EVERY == 0:
            gc.collect()  # what checks leave behind shall not add up


class _Suite:
    """A checking program; each verdict is by a new run of all of it."""

    def __init__(self, namespace: str, check: str, names: tuple[str, ...]) -> None:
        self._sources = {"<solution>": namespace, "<check>": check}
        self._names = names
        self._code: dict[str, types.CodeType] = {}

    def _compiled(self, name: str) -> types.CodeType:
        if name not in self._code:
            self._code[name] = compile(self._sources[name], name, "exec", dont_inherit=True)
        return self._code[name]

    def verdict(self, checked: _Checked) -> tuple[str, str | bytes]:
        """Whether the candidate is right."""
        refused = checked.load()
        if refused is not None:
            return refused
        candidate = checked.call
        status, detail = "passed", ""
        try:
            random.seed(0)  # noqa: TID251 - the checking program's own process
            namespace = _run(self._compiled("<solution>"))
            namespace.update(dict.fromkeys(self._names, candidate))
            exec(self._compiled("<check>"), namespace)  # noqa: S102 - the benchmark's own tests
            check = namespace.get("check")
            if callable(check) and check is not candidate:
                check(candidate)
        except BaseException as error:
            status = "failed" if getattr(error, "raised_by_candidate", False) else "wrong"
            detail = _line(error)
            checked.plain = status == "failed" or isinstance(error, _PLAIN)
        if checked.lost:
            return checked.lost, checked.why
        return status, detail


class _Checked:
    """The candidate behind a descriptor, which may answer so many bytes."""

    def __init__(self, fd: int, source: str, entry_point: str, most: int) -> None:
        self._receive, self._send = _channel(fd)
        self._program = wire.encode((source, entry_point))
        self._most = self._left = most
        self.lost, self.why = "", ""  # kept here, as a check may swallow any exception
        self.plain = True
        """Whether nothing came that might have changed the judge."""

    def load(self) -> tuple[str, str | bytes] | None:
        """Let it load its program; the verdict where it does not."""
        try:
            kind, body = self._ask(wire.LOAD, self._program)
        except CandidateFailed:
            return self.lost, self.why
        if kind == wire.APART:
            return "apart", ""
        return None if kind == wire.LOADED else ("raised", body)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Stands in for its function."""
        kind, body = self._ask(wire.CALL, wire.encode((args, kwargs)))
        try:
            answer = wire.decode(body[9:] if kind == wire.RETURNED else body)
            error = None if kind == wire.RETURNED else _revive(answer)
        except Exception as unreadable:
            self.lost, self.why = "violation", f"its answer cannot be read: {_line(unreadable)}"
            self.plain = False
            raise CandidateFailed("its answer cannot be read") from None
        if error is not None:
            raise error
        return answer

    def _ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        try:
            if self.lost:
                raise EOFError
            self._send(kind, body)
            kind, answer = self._receive(self._left)
        except (EOFError, CandidateFailed, Overrun) as ended:
            if isinstance(ended, Overrun):
                self.lost, self.why = "violation", f"it returned more than {self._most / 2**20:g} MB"
                self.plain = False
            self.lost = self.lost or "lost"
            raise CandidateFailed("its process ended") from None
        self._left -= len(answer)
        return kind, answer


class CandidateFailed(BaseException):  # not for a check to catch
    """The candidate's process cannot answer."""


_UNWELL = (
    MemoryError,
    OSError,
    RecursionError,
    SystemError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    ImportError,
)
"""Ends of a plain program that may have to do with who else was there."""


class Overrun(Exception):
    """An answer is larger than it may be."""


_PLAIN = (
    AssertionError, CandidateFailed, ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError,
)  # fmt: skip
"""What ends a check by the values it was given, and by nothing that earlier checks may have left."""


def _load(source: str) -> dict[str, Any]:
    return _run(compile(source, "<solution>", "exec", dont_inherit=True))


def _run(code: types.CodeType, names: dict[str, Any] | None = None) -> dict[str, Any]:
    module = types.ModuleType("solution")
    module.__dict__.update(names or {})
    sys.modules["solution"] = module
    sys.stdin = io.StringIO()
    exec(code, module.__dict__)  # noqa: S102 - that is the job
    return module.__dict__


def _channel(fd: int) -> tuple[Any, Any]:
    """Functions that receive and send frames on a descriptor."""
    os.set_blocking(fd, True)

    def exactly(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(fd, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def receive(most: int = _MOST_IN) -> tuple[int, bytes]:
        try:
            size, kind = wire.FRAME.unpack(exactly(wire.FRAME.size))
            if size > most:
                raise Overrun
            return kind, exactly(size)
        except (EOFError, OSError):
            if fd == 3:
                os._exit(0)  # nobody is interested any more
            raise EOFError from None

    def send(kind: int, body: bytes) -> None:
        data = memoryview(wire.frame(kind, body))
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError:
            if fd == 3:
                os._exit(0)
            raise CandidateFailed("its process ended") from None

    return receive, send


_CONTROL_FLOW = (StopIteration, StopAsyncIteration)
"""They would end the check's own loops without a trace."""


def _describe(error: BaseException) -> bytes:
    kind = type(error)
    try:
        name = str(kind.__name__)[:100]
        message = str(error)[:300]
        described: bytes = wire.encode((name, message))
    except BaseException:  # an exception of the program's own making may do anything
        described = wire.encode(("Exception", ""))
    return described


def _revive(described: Any) -> BaseException:
    """The candidate's exception for the checking program: a built-in of that name, or a general one."""
    name, message = described
    kind = getattr(builtins, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _CONTROL_FLOW):
        kind = RuntimeError
    try:
        error = kind(f"{name}: {message}" if kind is RuntimeError else message)
    except TypeError:  # UnicodeDecodeError and its like want more
        error = RuntimeError(f"{name}: {message}")
    error.raised_by_candidate = True  # type: ignore[attr-defined]
    return error


def _line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:200]
    except Exception:  # it carries something that cannot be shown, such as a huge integer
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
