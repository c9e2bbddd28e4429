"""Programs that try to look right without being right, by name. Each must define `f` or never get so far.

They may assume everything about how the sandbox works inside: frames on descriptor 3, the module `wire`, the
loop that calls them. None may know an expected value, and none computes one.
"""

from __future__ import annotations

from archon.verifiers.sandbox import wire

VERDICT = wire.frame(wire.VERDICT, wire.encode(("passed", "")))
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
_ENDLESS = (
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
_ALL = {**EXITS, **EQUALITY, **PATCHES, **EXCEPTIONS, **FRAMES, **WAITING}
SLOW = {name: _ALL[name] for name in (*WAITING, *_ENDLESS)}
"""Those that go on until their time is up."""
QUICK = {name: source for name, source in _ALL.items() if name not in SLOW}


# --- those that want more than a pass: `f(path, pid, port)` returns "GOT IT" where it got what it wanted -----
# The path is of a file of the machine's that anybody may read and write and that holds a secret, the number is of the
# process that compares, and the port is served on 127.0.0.1.

_C = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
call.restype = ctypes.c_long
def f(path, pid, port):
    def yes(got): return 'GOT IT' if got else 'nothing'
"""


def _attacks(**bodies: str) -> dict[str, str]:
    return {
        name.replace("_", " "): _C + "".join(f"    {line}\n" for line in body.strip().splitlines())
        for name, body in bodies.items()
    }


ESCAPE = _attacks(
    write_a_file="return yes(open(path, 'a').write('x'))",
    make_a_file="return yes(open(os.path.dirname(path) + '/new', 'w').write('x'))",
    remove_a_file="return yes(os.remove(path) is None)",
    move_over_a_file="open('mine', 'w').close()\nreturn yes(os.rename('mine', path) is None)",
    change_a_file_s_mode="return yes(os.chmod(path, 0) is None)",
    write_through_a_link="os.symlink(path, 'link')\nreturn yes(open('link', 'a').write('x'))",
    a_hard_link="os.link(path, 'link')\nreturn yes(open('link').read())",
    the_root_of_the_first_process="return yes(open('/proc/1/root' + path).read())",
    the_root_of_the_judge="return yes(open(f'/proc/{pid}/root' + path).read())",
    out_of_a_root_in_the_root=(
        "os.mkdir('d')\nos.chroot('d')\nos.chdir('../' * 20)\nreturn yes(open('.' + path).read())"
    ),
    a_mount_of_its_own="return yes(libc.mount(b'none', b'.', b'tmpfs', 0, None) == 0)",
    a_root_that_can_be_written=(
        "return yes(libc.mount(None, b'/', None, 32, None) == 0 or call(442, -100, b'/', 0, 0, 0) == 0)"
    ),
    new_namespaces="return yes(libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0)",
    the_namespaces_of_others="return yes(libc.setns(os.open(f'/proc/{pid}/ns/mnt', os.O_RDONLY), 0) == 0)",
    being_root="os.setuid(0)\nreturn yes(open('/etc/shadow').read())",
    tracing_its_parent="return yes(libc.ptrace(16, os.getppid(), 0, 0) == 0 or libc.ptrace(16, pid, 0, 0) == 0)",
    a_signal_to_who_compares="return yes(os.kill(pid, 0) is None)",
    signals_to_everybody="return yes(os.kill(-1, 0) is None)",
    a_signal_by_a_pidfd="return yes(signal.pidfd_send_signal(os.pidfd_open(os.getppid() or 1), 0) is None)",
    a_signal_by_the_kernel="a, b = socket.socketpair()\nfcntl.fcntl(a, fcntl.F_SETOWN, pid)\nreturn yes(1)",
    a_shell="os.execv('/bin/sh', ['sh', '-c', 'echo x >> ' + path])",
    a_child_that_is_a_shell="return yes(subprocess.run(['/bin/sh', '-c', 'echo x >> ' + path]).returncode == 0)",
    the_loader_as_a_program="os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/bin/true'])",
    code_it_wrote="open('x', 'w').write('#!/bin/sh')\nos.chmod('x', 0o755)\nos.execv('./x', ['x'])",
    calls_by_other_numbers="return yes(call(0x40000000 + 57) >= 0)",
    a_raw_clone="return yes(call(56, 17, 0, 0, 0, 0) >= 0)",
    a_raw_clone3="args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)\nreturn yes(call(435, args, 88) >= 0)",
    io_uring="return yes(call(425, 8, (ctypes.c_uint64 * 16)()) >= 0)",
    bpf="return yes(call(321, 0, (ctypes.c_uint64 * 16)(2, 4, 4), 48) >= 0)",
    userfaultfd="return yes(call(323, 1) >= 0)",
    performance_events="return yes(call(298, (ctypes.c_uint32 * 32)(1, 112), 0, -1, -1, 0) >= 0)",
    files_by_handle=(
        "handle, mount = (ctypes.c_uint32 * 40)(128), (ctypes.c_int * 1)()\n"
        "return yes(call(303, -100, path.encode(), handle, mount, 0) == 0)"
    ),
    the_network="return yes(socket.create_connection(('127.0.0.1', port), 2))",
    a_datagram="return yes(socket.socket(2, 2).sendto(b'x', ('127.0.0.1', port)))",
    sockets_of_the_kernel="return yes(socket.socket(16, 3, 0))",
    sockets_of_the_host="return yes(socket.socket(40, 1, 0))",
    a_limit_raised="resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nreturn yes(1)",
)
EXHAUST = _attacks(
    children="for n in range(20): os.fork() or time.sleep(99)\nreturn yes(1)",
    children_by_vfork="return yes(all([subprocess.Popen(['/bin/sleep', '9'], close_fds=False) for _ in range(9)]))",
    a_thousand_threads=(
        "threading.stack_size(32768)\n"
        "for n in range(1000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nreturn yes(1)"
    ),
    memory="return yes(len(bytes(2**31)))",
    memory_by_mapping="return yes(len(mmap.mmap(-1, 2**31)))",
    memory_of_nobody="return yes(call(319, b'x', 0) >= 0)",
    shared_memory="return yes(call(29, 0, 2**20, 0o1666) >= 0)",
    locked_memory="m = mmap.mmap(-1, 2**22)\nreturn yes(libc.mlockall(3) == 0)",
    a_large_file="return yes(open('a', 'wb').write(bytes(2**24)))",
    a_large_hole="return yes(os.truncate(os.open('a', os.O_CREAT | os.O_RDWR), 2**40) is None)",
    many_large_files=(
        "for n in range(99):\n    with open(str(n), 'wb') as file: file.write(bytes(2**20 - 9))\nreturn yes(1)"
    ),
    many_files="for n in range(9000): open(str(n), 'w').close()\nreturn yes(1)",
    many_descriptors="return yes([os.dup(0) for _ in range(999)])",
    descriptors_in_the_post=(
        "held = []\nfor n in range(99):\n    a, b = socket.socketpair()\n    held += [a, b]\n"
        "    for _ in range(99): socket.send_fds(a, [b'x'], [0, 0, 0])\nreturn yes(1)"
    ),
    large_pipes=(
        "held = []\nfor n in range(999):\n    r, w = os.pipe()\n    fcntl.fcntl(w, 1031, 2**20)\n    held.append(r)\n"
        "return yes(1)"
    ),
    message_queues="return yes(call(240, b'/q', 0o102, 0o600, None) >= 0)",
    numbers="return yes(10 ** (10 ** 9))",
    a_bomb_of_zeros="import zlib\nz = zlib.compress(bytes(2**26))\nreturn yes(len(zlib.decompress(z) * 99))",
    time_of_the_processor="while True: pass",
    time_on_the_clock="time.sleep(99)\nreturn yes(1)",
    signals_without_end="while True: signal.raise_signal(signal.SIGUSR1) if signal.signal(10, lambda *a: 0) else 0",
    the_priority_of_others="return yes(os.setpriority(os.PRIO_USER, 0, -20) is None)",
    a_stack_without_end="sys.setrecursionlimit(10**9)\nreturn f(path, pid, port)",
)
SPY = _attacks(
    a_file="return yes(open(path).read())",
    a_folder="return yes(os.listdir(os.path.dirname(path)))",
    the_root_folder="return yes(set(os.listdir('/')) & {'home', 'root', 'etc', 'var'})",
    the_users="return yes(open('/etc/passwd').read())",
    whether_a_file_is_there="return yes(os.path.exists(path))",
    a_device="return yes(any(map(os.path.exists, ['/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/tty'])))",
    its_environment="return yes({*os.environ} - {'HOME', 'TMPDIR', 'OPENBLAS_NUM_THREADS', 'LC_CTYPE'})",
    the_environment_of_others="return yes(open(f'/proc/{pid}/environ').read() + open('/proc/1/environ').read())",
    the_command_lines_of_others=(
        "return yes(any(open(f'/proc/{n}/cmdline').read() for n in os.listdir('/proc')\n"
        "    if n.isdigit() and int(n) not in (1, os.getpid())))"
    ),
    the_keeper_s_memory="return yes(open('/proc/1/mem', 'rb'))",
    the_keeper_s_descriptors="return yes(os.listdir('/proc/1/fd'))",
    the_memory_of_who_compares="return yes(open(f'/proc/{pid}/mem', 'rb'))",
    memory_by_a_call=(
        "here = ctypes.create_string_buffer(9)\n"
        "iov = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 8)\n"
        "return yes(call(310, os.getpid(), iov, 1, iov, 1, 0) > 0 or call(310, pid, iov, 1, iov, 1, 0) > 0)"
    ),
    descriptors_of_others="return yes(call(438, call(434, os.getpid(), 0), 3, 0) >= 0)",
    whether_two_are_alike="return yes(call(312, os.getpid(), os.getpid(), 0, 0, 1) == 0)",
    the_kernel_s_log="return yes(call(103, 3, ctypes.create_string_buffer(99), 99) > 0)",
    the_kernel_s_names="return yes(open('/proc/kallsyms').read(99))",
    the_machine="return yes(open('/proc/cpuinfo').read() or open('/proc/meminfo').read())",
    the_machine_s_settings="return yes(os.listdir('/sys') + os.listdir('/proc/sys'))",
    the_network_s_state="return yes(len(open('/proc/net/tcp').readlines()) > 1)",
    keys="return yes(call(250, 0, -3, 1) >= 0 or call(248, b'user', b'n', b'x', 1, -3) >= 0)",
    abstract_sockets="return yes(socket.socket(socket.AF_UNIX).connect(f'\\0archon-attack-{port}') is None)",
    descriptors_of_its_own="return yes([n for n in map(int, os.listdir('/proc/self/fd')) if n > 4])",
    its_parents_number="return yes(os.getppid())",
)
PERSIST = _attacks(
    a_file="found = os.path.exists('mark')\nopen('mark', 'w').close()\nreturn yes(found)",
    a_file_in_tmp="found = os.path.exists('/tmp/a-mark')\nopen('/tmp/a-mark', 'w').close()\nreturn yes(found)",
    a_file_in_memory="found = os.path.exists('/dev/shm/mark')\nopen('/dev/shm/mark', 'w').close()\nreturn yes(found)",
    a_file_beside_the_scratch="found = os.path.exists('../mark')\nopen('../mark', 'w').close()\nreturn yes(found)",
    a_module_of_the_library="return yes(open(os.__file__, 'a').write('x'))",
    a_module_beside_the_library="return yes(open(os.path.dirname(os.__file__) + '/sitecustomize.py', 'w').write('x'))",
    a_compiled_module=(
        "import importlib.util\ncompiled = importlib.util.cache_from_source(os.__file__)\n"
        "return yes(open(compiled, 'ab').write(b'x'))"
    ),
    a_name_among_builtins="import builtins\nfound = hasattr(builtins, 'mark')\nbuiltins.mark = 1\nreturn yes(found)",
    a_module_that_is_loaded="found = 'mark' in sys.modules\nsys.modules['mark'] = os\nreturn yes(found)",
    a_daemon="if os.fork() == 0:\n    os.setsid()\n    os.fork() and os._exit(0)\n    time.sleep(99)\nreturn yes(1)",
    a_thread="threading.Thread(target=time.sleep, args=(99,)).start()\nreturn yes(threading.active_count() > 2)",
    system_v_memory="return yes(call(29, 77, 99, 0o1666) >= 0)",
    a_semaphore="return yes(call(64, 77, 1, 0o1666) >= 0)",
    a_message="return yes(call(68, 77, 0o1666) >= 0)",
    a_queue="return yes(call(240, b'/archon', 0o102, 0o600, None) >= 0)",
    a_key="return yes(call(248, b'user', b'archon', b'x', 1, -4) >= 0)",
    an_attribute="found = os.listxattr('/dev/null')\nos.setxattr('/dev/null', 'user.mark', b'x')\nreturn yes(1)",
    the_mode_of_a_device="return yes(os.chmod('/dev/null', 0o600) is None)",
    the_name_of_the_host="return yes(socket.sethostname('mark') is None)",
    the_limits_of_its_parent="return yes(resource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU, (1, 1)))",
    a_timer="found = signal.getitimer(signal.ITIMER_REAL)[0] > 0\nsignal.alarm(99)\nreturn yes(found)",
    a_namespace_held="return yes(os.open('/proc/1/ns/net', os.O_RDONLY) >= 0)",
    a_setting_of_the_kernel="return yes(open('/proc/sys/kernel/ns_last_pid', 'w').write('9'))",
)
CONTAINED = {"escape": ESCAPE, "exhaust": EXHAUST, "spy": SPY, "persist": PERSIST}
"""By category; those that forge a pass are above."""
