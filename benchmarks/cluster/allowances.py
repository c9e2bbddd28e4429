"""The tasks of a cluster wait in line for what they may spend: allowances of one account (search/accounts.py).

Cost: no calls.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from archon.search.accounts import Account, Allowance, Amounts

_POLL_SECONDS = 0.5
"""How often to look whether another process has given something back."""


class Allowances:
    """An account whose tasks wait in line."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._line = asyncio.Lock()
        self._settled = asyncio.Event()

    async def take(self, problems: int, *, everything: bool = False) -> Allowance | None:
        """An allowance, first come first served; None where nothing is left."""
        async with self._line:
            while (found := self.account.give(problems, everything=everything)) == "later":
                self._settled.clear()
                with suppress(TimeoutError):  # another process may have settled, and tells nobody
                    await asyncio.wait_for(self._settled.wait(), _POLL_SECONDS)
            return None if found == "never" else found

    def settle(self, allowance: Allowance, spent: Amounts) -> None:
        """What a task really spent."""
        self.account.settle(allowance, spent)
        self._settled.set()

    def lose(self, allowance: Allowance) -> None:
        """A task is gone, and what it spent is unknown."""
        self.account.lose(allowance)
        self._settled.set()
