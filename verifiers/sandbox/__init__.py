"""Candidate code runs here, and is judged elsewhere (D8; design/sandbox.md)."""

from archon.verifiers.sandbox.executor import Sandbox

__all__ = ["Sandbox"]
