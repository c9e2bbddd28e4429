"""Where samples live: pools that only grow, replayed instead of paid for again (D5)."""

from archon.store.base import Attempt, Page, PoolSummary, Recorded, Store
from archon.store.memory import MemoryStore
from archon.store.sqlite import SQLiteStore

__all__ = ["Attempt", "MemoryStore", "Page", "PoolSummary", "Recorded", "SQLiteStore", "Store"]
