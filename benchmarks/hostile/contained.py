"""Programs that want more than a pass: out (escape), everything there is (exhaust), to know (spy), to stay (persist).

`f(path, pid, port)` is told where to attack: the path of a file that anybody may read and write, the number of a
process of the machine's, the port of a server on 127.0.0.1. It returns "GOT IT" where it believes it got what it
wanted, or the secret itself where it found one; what it did is better seen from outside (stage.py), and `SEEN` says
what there is to see.

Some checkers take functions away by their names; the first lines put them back.
"""

from __future__ import annotations

_C = """
import builtins, importlib, io, posix, sys
builtins.open = io.open
for name in [name for name, module in sys.modules.items() if module is None]: del sys.modules[name]
import os
for name in dir(posix):
    if name[0] != '_' and name != 'environ': setattr(os, name, getattr(posix, name))
import ctypes, errno, fcntl, mmap, re, resource, signal, socket, subprocess, tempfile, threading, time
if subprocess.Popen is None: importlib.reload(subprocess)
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
call.restype = ctypes.c_long
def f(path, pid, port):
    def secrets(text): return re.findall('secret-[0-9a-f]+', str(text))
    def yes(got): return (secrets(got) or ['GOT IT'])[0] if got else 'nothing'
"""


def _attacks(**bodies: str) -> dict[str, str]:
    return {
        name.replace("_s_", "'s ").replace("_", " "): _C
        + "".join(f"    {line}\n" for line in body.strip().splitlines())
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
    a_file_written_by_the_library="return yes(libc.write(libc.open(path.encode(), 1), b'x', 1) == 1)",
    a_file_removed_by_the_library="return yes(libc.unlink(path.encode()) == 0)",
    a_shell_of_the_library="return yes(libc.system(b'echo x >> ' + path.encode()) == 0)",
    the_output_of_another="return yes(open(f'/proc/{pid}/fd/1', 'a').write('x'))",
    a_signal_to_another="return yes(os.kill(pid, signal.SIGWINCH) is None)",
    another_traced="got = libc.ptrace(16, pid, 0, 0) == 0\ntime.sleep(0.3)\nreturn yes(got)",
    the_end_of_who_waits_for_it="os.kill(os.getppid() or 1, signal.SIGKILL)\nreturn yes(0)",
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
    memory_that_is_used="held = b'x' * (1400 * 2**20)\ntime.sleep(0.3)\nreturn yes(len(held))",
    memory_of_children=(
        "for n in range(5):\n    if os.fork() == 0:\n        held = b'x' * (270 * 2**20)\n        time.sleep(3)\n"
        "        os._exit(0)\ntime.sleep(2.5)\nreturn yes(1)"
    ),
    memory_of_no_process=(
        "fd, block = os.memfd_create('x'), bytes(2**24)\nfor n in range(80): os.write(fd, block)\n"
        "time.sleep(0.3)\nreturn yes(1)"
    ),
    a_file_of_half_the_disk="open('a', 'wb').write(bytes(40 * 2**20))\ntime.sleep(0.3)\nreturn yes(1)",
    the_alarm_turned_off="signal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(3.5)\nreturn yes(1)",
    the_alarm_ignored="while True:\n    try: time.sleep(1)\n    except BaseException: pass",
    who_waits_for_it_stopped="os.kill(os.getppid() or 1, signal.SIGSTOP)\nreturn yes(0)",
    who_keeps_its_verdict_stopped=(
        "for n in filter(str.isdigit, os.listdir('/proc')):\n"
        "    if f'PPid:\\t{os.getppid()}\\n' in open(f'/proc/{n}/status').read() and int(n) != os.getpid():\n"
        "        os.kill(int(n), signal.SIGSTOP)\nreturn yes(0)"
    ),
    a_lock_it_takes_with_it=(
        "frame = sys._getframe()\nwhile frame:\n"
        "    if 'stat' in frame.f_locals and 'details' in frame.f_locals: frame.f_locals['stat'].get_lock().acquire()\n"
        "    frame = frame.f_back\nos._exit(0)"
    ),
    the_priority_of_another="return yes(os.setpriority(os.PRIO_PROCESS, pid, 5) is None)",
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
    a_secret_in_its_environment="return yes(secrets(os.environ))",
    the_environment_of_another="return yes(secrets(open(f'/proc/{pid}/environ').read()))",
    every_command_line=(
        "numbers = filter(str.isdigit, os.listdir('/proc'))\n"
        "return yes(secrets([open(f'/proc/{n}/cmdline').read() for n in numbers]))"
    ),
    what_another_has_open="return yes(secrets(open(f'/proc/{pid}/fd/0').read()))",
    what_its_parent_has_open=(
        "found = []\nfor n in range(3, 64):\n    try: found += secrets(os.pread(n, 99, 0))\n    except OSError: pass\n"
        "return yes(found)"
    ),
    the_memory_of_another=(
        "found = []\nmemory = open(f'/proc/{pid}/mem', 'rb', 0)\nfor line in open(f'/proc/{pid}/maps'):\n"
        "    start, end = (int(n, 16) for n in line.split()[0].split('-'))\n"
        "    if 'rw' in line.split()[1] and end - start < 2**26:\n"
        "        found += secrets(os.pread(memory.fileno(), end - start, start))\nreturn yes(found)"
    ),
    temporary_files_of_others=(
        "folder, found = tempfile.gettempdir(), []\nfor name in os.listdir(folder):\n"
        "    if os.path.isfile(f'{folder}/{name}'): found += secrets(open(f'{folder}/{name}').read())\n"
        "return yes(found)"
    ),
    a_file_at_home="return yes(secrets(open(os.path.expanduser('~/.netrc')).read()))",
    the_file_by_the_library=(
        "text = ctypes.create_string_buffer(99)\nlibc.read(libc.open(path.encode(), 0), text, 98)\n"
        "return yes(secrets(text.value))"
    ),
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
    a_file_of_its_users="open(os.path.expanduser('~/.profile'), 'a').write('x')\nreturn yes(0)",
    a_module_for_all_who_come_after=(
        "for folder in filter(os.path.isdir, sys.path):\n"
        "    try: open(folder + '/sitecustomize.py', 'a').write('x')\n    except OSError: pass\nreturn yes(0)"
    ),
    a_child_that_stays="os.fork() or time.sleep(99)\nreturn yes(0)",
    a_child_that_writes_later=(
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(0.7)\n    open(path, 'a').write('x')\n    os._exit(0)\n"
        "return yes(0)"
    ),
    a_program_that_stays="subprocess.Popen(['/bin/sleep', '9'], close_fds=False)\nreturn yes(0)",
    a_scratch_folder_nobody_removes="open('left', 'w').close()\nos._exit(0)",
    a_scratch_folder_of_who_was_killed=(
        "open('left', 'w').close()\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass"
    ),
    the_limits_of_another="return yes(resource.prlimit(pid, resource.RLIMIT_MSGQUEUE, (7, 7)))",
)
CONTAINED = {"escape": ESCAPE, "exhaust": EXHAUST, "spy": SPY, "persist": PERSIST}
"""By category; those that forge a pass are above."""

SEEN = {
    "escape": {
        "file": (
            "write a file", "make a file", "remove a file", "move over a file", "change a file's mode",
            "write through a link", "a shell", "a child that is a shell", "a file written by the library",
            "a file removed by the library", "a shell of the library", "the output of another",
        ),
        "secret": ("a hard link", "the root of the judge"),
        "connection": ("the network", "a datagram"),
        "another": ("a signal to another", "another traced"),
        "ended": ("the end of who waits for it",),
    },
    "exhaust": {
        "processes": ("children",),
        "memory": ("memory that is used", "memory of children", "memory of no process"),
        "disk": ("many large files", "a file of half the disk"),
        "late": ("the alarm turned off",),
        "hung": (
            "time of the processor", "time on the clock", "the alarm ignored", "who waits for it stopped",
            "who keeps its verdict stopped", "a lock it takes with it",
        ),
        "another": ("the priority of another",),
    },
    "spy": {
        "secret": (
            "a file", "a folder", "a secret in its environment", "the environment of another",
            "every command line", "what another has open", "what its parent has open", "the memory of another",
            "temporary files of others", "a file at home", "the file by the library",
        ),
        "connection": ("abstract sockets",),
    },
    "persist": {
        "file": ("a file of its users", "a module for all who come after", "a child that writes later"),
        "left process": ("a daemon", "a child that stays", "a program that stays"),
        "left file": (
            "a file beside the scratch", "a file in memory", "a scratch folder nobody removes",
            "a scratch folder of who was killed",
        ),
        "left memory": ("system v memory", "a semaphore", "a message"),
        "another": ("the limits of another",),
    },
}  # fmt: skip
"""What shows from outside that they got what they wanted, by category; of the others only they themselves know."""
