"""What a forked process gives up before it runs a program.

Always: its parent's descriptors, environment, session and terminal, the right to gain privileges, and any use of
CPU, memory, files and descriptors beyond its limits; it dies with the zygote. Where the kernel allows: everything
in namespaces.py, landlock.py and seccomp.py. Each layer is tried, never assumed, and `Jail.missing` says why one
is not there. Loaded by the isolated interpreters: standard library only.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archon.verifiers.sandbox import kernel, landlock, namespaces, seccomp
else:
    import kernel
    import landlock
    import namespaces
    import seccomp

_MOST_PROCESSES = 128
_MOST_FILES = 4096


class Unable(Exception):
    """A layer that had to change this process failed half-way: start again without it."""

    def __init__(self, layer: str, error: OSError) -> None:
        super().__init__(str(error))
        self.layer = layer


class Jail:
    """What holds the programs of one zygote."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Put on, in this process, what its children inherit. May return in another process than it was called in."""
        self.missing: dict[str, str] = dict(settings["without"])
        """Why a layer is not there, by layer; what is not in here is."""
        self._pen: namespaces.Pen | None = None
        self._rules: landlock.Ruleset | None = None
        self._filter: seccomp.Filter | None = None
        self._capped: dict[int, int] = {}
        self._mounted = 0
        """How large the folder's file system is, where there is one."""
        self._untouched: tuple[object, ...] = ()
        paths = settings["readable"]
        become_subreaper()
        if "namespaces" not in self.missing:
            try:
                self._pen = namespaces.enter(settings["scratch"], paths, settings["control"])
            except OSError as error:
                raise Unable("namespaces", error) from None
            if not self._pen.has_proc:
                self.missing["proc"] = "the kernel does not let a namespace have its own"
        elif "network" not in self.missing and (reason := leave_network()):
            self.missing["network"] = reason
        self.folder = f"{namespaces.JOBS if self._pen else settings['scratch']}/job"
        """Where a program stands, and all it may write to."""
        if "landlock" not in self.missing:
            own = ["/proc"] if self._pen else []
            devices = ["/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
            try:
                self._rules = landlock.Ruleset(
                    [*namespaces.readable(paths), *devices, *own],
                    [os.path.dirname(self.folder)],  # noqa: PTH120
                )
            except OSError as error:
                self.missing["landlock"] = _reason(error)
        self._null = kernel.high(os.open(os.devnull, os.O_RDWR))
        self._most = {what: resource.getrlimit(what)[1] for what in _LIMITED}
        self._limits: kernel.Limits | None = None
        os.environ.clear()
        os.environ.update({"HOME": self.folder, "TMPDIR": self.folder, "OPENBLAS_NUM_THREADS": "1"})
        if "seccomp" not in self.missing:
            try:
                self._filter = seccomp.Filter()
                _try_in_a_child(self._filter)
            except OSError as error:
                self._filter = None
                self.missing["seccomp"] = _reason(error)

    def open_folder(self, limits: dict[str, float]) -> None:
        """An empty folder for the next program: in memory and of limited size, where that is allowed."""
        if self._pen is None:
            os.mkdir(self.folder, 0o700)  # noqa: PTH102
            return
        size = int(limits["output_mb"] * 2**20) + 2**20
        if self._mounted == size:
            return
        self._unmount()
        kernel.mount(
            "tmpfs", self.folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOATIME,
            f"mode=700,size={size},nr_inodes={_MOST_FILES}",
        )  # fmt: skip
        os.utime(self.folder, ns=(0, 0))
        self._mounted, self._untouched = size, self._state()

    def _unmount(self) -> None:
        if self._mounted:
            kernel.unmount(self.folder)
            self._mounted = 0

    def _state(self) -> tuple[object, ...]:
        """Everything that a program can change about an empty folder, and what is in it."""
        folder = os.stat(self.folder)  # noqa: PTH116
        return (
            folder.st_mode, folder.st_uid, folder.st_gid, folder.st_nlink, folder.st_size,
            folder.st_atime_ns, folder.st_mtime_ns, folder.st_ctime_ns,
            os.listxattr(self.folder), os.listdir(self.folder),  # noqa: PTH208
        )  # fmt: skip

    def ready(self, role: str, limits: dict[str, float]) -> None:
        """Prepare for the next fork: who is kept is born beside us, programs in the pen."""
        kept = role in ("judge", "commons")
        if self._pen is not None:
            self._pen.births(not kept)
        kernel.text(f"archon-{role}")
        most = _most(limits, role, counted=self._pen is not None)
        capped = {
            what: value if (hard := self._most[what]) == resource.RLIM_INFINITY else min(value, hard)
            for what, value in most.items()
        }
        if capped != self._capped:
            self._capped, self._limits = capped, kernel.Limits(capped)

    def clear(self) -> None:
        """End what a program left behind, and remove its folder."""
        if self._pen is None:
            kill_strays()
            remove(self.folder)
            return
        self._pen.clear()
        if self._state() != self._untouched:  # most leave no trace, and making it anew costs more than they
            self._unmount()

    def close(self, scratch: str) -> None:
        """Leave nothing."""
        if self._pen is None:
            remove(scratch)

    def enter(self, fds: list[int], role: str) -> None:
        """Give up everything but the sockets, which become descriptors 3, 4, ..."""
        wanted = [*range(3, 3 + len(fds))]
        if fds != wanted:
            moved = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]
            for fd, place in zip(moved, wanted, strict=True):
                os.dup2(fd, place)
        os.setsid()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.named(f"archon-{role}")
        os.dup2(self._null, 2)  # 0 and 1 have always been that
        os.chdir("/" if role in ("judge", "commons") else self.folder)
        assert self._limits is not None
        self._limits.put_on()
        if self._pen is not None:
            kernel.drop_capabilities()
        if self._rules is not None:
            self._rules.put_on()
        os.closerange(3 + len(fds), 4096)
        if self._filter is not None:
            self._filter.put_on()


_LIMITED = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_CORE,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_MSGQUEUE,
    resource.RLIMIT_NPROC,
)


def _most(limits: dict[str, float], role: str, *, counted: bool) -> dict[int, int]:
    most = {
        resource.RLIMIT_AS: int(limits["memory_mb"] * 2**20),
        resource.RLIMIT_FSIZE: int(limits["output_mb"] * 2**20),
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if role not in ("judge", "commons"):  # which serve many programs, and end with the time of one of them
        most[resource.RLIMIT_CPU] = int(limits["cpu_seconds"]) + 1
    if counted:  # outside of a user namespace all of the user's processes would count
        most[resource.RLIMIT_NPROC] = _MOST_PROCESSES
    return most


def become_subreaper() -> None:
    """Orphans of our children become ours, so that they can be found and killed."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def leave_network() -> str:
    """Move into a network namespace that has nothing in it; why that failed, if it did."""
    uid, gid = os.getuid(), os.getgid()
    try:
        try:
            kernel.unshare(kernel.NEWNET if uid == 0 else kernel.NEWNET | kernel.NEWUSER)
        except OSError:
            kernel.unshare(kernel.NEWNET | kernel.NEWUSER)
    except OSError as error:
        return _reason(error)
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)
    except OSError:
        pass  # without a user namespace there is nothing to map
    return ""


def kill_group(pid: int) -> None:
    """Kill a process and its session."""
    for kill, target in ((os.killpg, pid), (os.kill, pid)):
        try:
            kill(target, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def kill_strays() -> None:
    """Kill processes that a program left behind: they are our children now, as we are the subreaper."""
    for _ in range(100):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
                strays = [int(pid) for pid in file.read().split()]
        except (OSError, ValueError):
            return
        if not strays:
            return
        for pid in strays:
            kill_group(pid)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def remove(folder: str) -> None:
    """Remove a folder, however deep a program has nested it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        os.waitpid(os.posix_spawn("/bin/rm", ["rm", "-rf", folder], {}), 0)


def _try_in_a_child(filter: seccomp.Filter) -> None:
    """Whether the kernel takes the filter: once on, it could not be taken off."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            filter.put_on()
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
