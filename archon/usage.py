"""What a model call used: requests, tokens, money, FLOPs, seconds.

Every count of the framework is one of these, so that the sum over stages equals the sum over calls.
Unknown is never zero: a call without a price counts under `unpriced`, a call whose model's size is
unknown under `unsized`, and a call whose tokens the server did not report under `estimated`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from operator import add, sub
from typing import Any, NamedTuple

ZERO_USD = Decimal(0)
_LEAST_SHOWN = Decimal("0.000001")


class Usage(NamedTuple):
    """What one or more model calls used. Adds up with `+`."""

    requests: int = 0
    """Calls sent, retries included."""
    prompt_tokens: int = 0
    """Tokens in, cached ones included."""
    cached_tokens: int = 0
    """The part of `prompt_tokens` that the server read from its prefix cache."""
    completion_tokens: int = 0
    """Tokens out, reasoning included."""
    reasoning_tokens: int = 0
    """The part of `completion_tokens` spent on hidden reasoning."""
    usd: Decimal = ZERO_USD
    """Money in US dollars, of the calls that have a price."""
    flops: int = 0
    """Floating-point operations, of the calls whose model's size is known."""
    seconds: float = 0.0
    """Time spent inside calls, added up over concurrent ones."""
    unpriced: int = 0
    """Requests whose price is unknown; their money is not in `usd`."""
    unsized: int = 0
    """Requests whose model's size is unknown; their work is not in `flops`."""
    estimated: int = 0
    """Requests whose tokens are our estimate (cancelled calls, servers without usage)."""

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:  # type: ignore[override]
        return Usage._make(map(add, self, other))

    def __sub__(self, other: Usage) -> Usage:
        return Usage._make(map(sub, self, other))

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON; money as a float, or null where nothing has a price."""
        data = self._asdict()
        priced = self.requests == 0 or self.unpriced < self.requests
        sized = self.requests == 0 or self.unsized < self.requests
        data["usd"] = float(self.usd) if priced else None
        data["flops"] = self.flops if sized else None
        data["seconds"] = round(self.seconds, 6)
        return data

    def exact(self) -> dict[str, Any]:
        """A dictionary for storage: what is not zero; money as an exact decimal string."""
        data: dict[str, Any] = {name: value for name, value in zip(FIELDS, self, strict=True) if value}
        if "usd" in data:
            data["usd"] = str(data["usd"])
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        """The inverse of `as_json` and `exact`; absent counts are zero."""
        known = {name: data[name] for name in FIELDS if data.get(name) is not None}
        if "usd" in known:
            known["usd"] = Decimal(str(known["usd"]))
        return cls(**known)


FIELDS = Usage._fields
NOTHING = Usage()


def total(usages: Iterable[Usage]) -> Usage:
    """The sum; `Usage()` for none."""
    return Usage._make(map(sum, zip(NOTHING, *usages, strict=True)))


def dollars(amount: Decimal) -> str:
    """Money for people: to a millionth of a dollar, and never zero where something was spent."""
    if 0 < amount < _LEAST_SHOWN:
        return f"less than ${_LEAST_SHOWN:f}"
    return f"${amount:.6f}".rstrip("0").rstrip(".") if amount else "$0"


def describe(usage: Usage) -> str:
    """One line for people: what was used, and what of it is unknown or estimated."""
    if usage == NOTHING:
        return "nothing"
    parts = [
        f"{usage.requests:,} request{'s' * (usage.requests != 1)}",
        f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens",
    ]
    if usage.unpriced < usage.requests or usage.usd:
        parts.append(dollars(usage.usd))
    if usage.unpriced:
        parts.append("unpriced" if usage.unpriced == usage.requests else f"{usage.unpriced:,} unpriced")
    if usage.flops:
        unknown = f" ({usage.unsized:,} unsized)" if usage.unsized else ""
        parts.append(f"{usage.flops:.3g} FLOPs{unknown}")
    if usage.estimated:
        parts.append(
            "tokens estimated" if usage.estimated == usage.requests else f"{usage.estimated:,} estimated"
        )
    return ", ".join(parts)
