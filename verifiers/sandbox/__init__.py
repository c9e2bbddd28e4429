"""Candidate code runs here, and is judged elsewhere (D8; design/sandbox.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archon.verifiers.sandbox.executor import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    """`Sandbox`, when it is asked for: what compares values needs the encoding in here, and it needs them."""
    if name == "Sandbox":
        from archon.verifiers.sandbox.executor import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
