"""Who proposes configurations: one ask/tell contract, found by name in the entry-point group `archon.proposers`."""

from archon.search.proposers.base import AnyProposes, Proposer, Proposes, Told, rebuild
from archon.search.proposers.preferring import Preferring, preferring

__all__ = ["AnyProposes", "Preferring", "Proposer", "Proposes", "Told", "preferring", "rebuild"]
