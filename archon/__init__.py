"""Archon: spend inference compute well.

Compose sampling, search, planning, verification and voting as a graph of stages; run it inside a budget
that holds; grade candidate code where it cannot cheat; report accuracy against cost.

The public names below are imported on first use, so `import archon` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archon.backends.base import Backend, Capabilities, Completion, Model, Request, Sampling
    from archon.backends.openai import OpenAI
    from archon.backends.replay import Replay
    from archon.backends.scripted import Scripted
    from archon.budget import Budget, Budgets
    from archon.candidate import Candidate, Failure, Outcome, Verdict
    from archon.config import Config, dump, load
    from archon.errors import AllCandidatesFailed, ArchonError, UserError
    from archon.execution import Limits, Program, Suite
    from archon.pipeline import Node, Pipeline
    from archon.prices import Price
    from archon.problem import Case, Message, Problem
    from archon.run import Run
    from archon.session import Session
    from archon.shelf import ready
    from archon.stage import Stage
    from archon.store import SQLiteStore, Store
    from archon.usage import Usage
    from archon.verifier import Verifier

__version__ = "0.1.0"

_HOMES = {
    "archon.backends.base": ("Backend", "Capabilities", "Completion", "Model", "Request", "Sampling"),
    "archon.backends.openai": ("OpenAI",),
    "archon.backends.replay": ("Replay",),
    "archon.backends.scripted": ("Scripted",),
    "archon.budget": ("Budget", "Budgets"),
    "archon.candidate": ("Candidate", "Failure", "Outcome", "Verdict"),
    "archon.config": ("Config", "dump", "load"),
    "archon.errors": ("AllCandidatesFailed", "ArchonError", "UserError"),
    "archon.execution": ("Limits", "Program", "Suite"),
    "archon.pipeline": ("Node", "Pipeline"),
    "archon.prices": ("Price",),
    "archon.problem": ("Case", "Message", "Problem"),
    "archon.shelf": ("ready",),
    "archon.run": ("Run",),
    "archon.session": ("Session",),
    "archon.stage": ("Stage",),
    "archon.store": ("SQLiteStore", "Store"),
    "archon.usage": ("Usage",),
    "archon.verifier": ("Verifier",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AllCandidatesFailed",
    "ArchonError",
    "Backend",
    "Budget",
    "Budgets",
    "Candidate",
    "Capabilities",
    "Case",
    "Completion",
    "Config",
    "Failure",
    "Limits",
    "Message",
    "Model",
    "Node",
    "OpenAI",
    "Outcome",
    "Pipeline",
    "Price",
    "Problem",
    "Program",
    "Replay",
    "Request",
    "Run",
    "SQLiteStore",
    "Sampling",
    "Scripted",
    "Session",
    "Stage",
    "Store",
    "Suite",
    "Usage",
    "UserError",
    "Verdict",
    "Verifier",
    "__version__",
    "dump",
    "load",
    "ready",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'archon' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
