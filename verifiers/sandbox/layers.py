"""What may stand between a program and the machine: what each layer protects, and which of them are enough.

Each layer is tried by the zygote when it starts. What is guarded must be guarded by one layer at least, else the
sandbox refuses to run anything: unless it is asked, by name, for whatever is left (`isolation="weak"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Isolation = Literal["strict", "weak"]
"""`strict` refuses to run programs that could read files, reach the network or touch other processes; `weak` runs
them with whatever this machine allows."""
CHOICE = "ARCHON_SANDBOX"
"""The environment variable that says which, where no argument does."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, here."""

    name: str
    protects: str
    """What from what."""
    active: bool
    why: str = ""
    """Why it is not there."""


_LAYERS = (
    # name, what the zygote calls it, what it protects
    ("user namespace", "namespaces", "a program that got out would be nobody, with no rights over anything"),
    ("mount namespace", "namespaces", "sees the interpreter's files, read-only, and a scratch folder in memory"),
    ("process namespace", "namespaces", "sees, signals and traces no process but itself; nothing outlives its run"),
    ("network namespace", "network", "no network, not even this machine's own"),
    ("IPC and host-name namespaces", "namespaces", "no shared memory or queues of others; no name of this machine"),
    ("/proc of its own", "proc", "/proc shows its own process, and nothing of this machine"),
    ("Landlock", "landlock", "reads the interpreter's files, writes to its scratch folder, executes nothing"),
    ("seccomp", "seccomp", "no other program, child process, socket, tracing or unusual part of the kernel"),
    ("resource limits", "rlimits", "CPU time, memory, file size and descriptors are bounded"),
    ("scratch folder", "scratch", "an empty folder, gone afterwards"),
    ("empty environment", "environment", "no variable, argument or descriptor of ours"),
)  # fmt: skip
_GUARDS = {
    "files": ("namespaces", "landlock"),
    "the network": ("network", "seccomp"),
    "other processes": ("namespaces", "seccomp"),
}
"""What must be guarded, and what does it."""


def layers(missing: Mapping[str, str]) -> tuple[Layer, ...]:
    """Every layer, given what the zygote could not have and why."""
    why = {**missing}
    if "namespaces" in why:
        why.setdefault("proc", why["namespaces"])
    return tuple(Layer(n, protects, key not in why, why.get(key, "")) for n, key, protects in _LAYERS)


def unguarded(missing: Mapping[str, str]) -> list[str]:
    """What no layer guards here."""
    return [what for what, guards in _GUARDS.items() if all(guard in missing for guard in guards)]


def refusal(missing: Mapping[str, str]) -> str:
    """What to say where something is unguarded."""
    reasons = "; ".join(f"{key}: {why}" for key, why in missing.items())
    return (
        f"this machine does not let programs be kept from {' and '.join(unguarded(missing))} ({reasons}). "
        "See `archon doctor`. To run them all the same, with what is left, ask for it by name: "
        f'Sandbox(isolation="weak"), or {CHOICE}=weak in the environment'
    )
