"""What tokens cost: prices per model from a table that users can edit.

Order of precedence: a cost the provider reports with the reply, the price in the model's own
configuration, the user's table (`ARCHON_PRICES` or `--prices`), the packaged table. A model found in
none of them is *unpriced*; it is never free by accident.
"""

from __future__ import annotations

import os
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field

from archon.component import Value
from archon.errors import DataError

Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
_MILLION = Decimal(1_000_000)


class Price(Value):
    """Dollars per million tokens, and per request."""

    input: Dollars
    """Per million prompt tokens."""
    output: Dollars
    """Per million completion tokens, reasoning included."""
    cached_input: Dollars | None = None
    """Per million prompt tokens read from the server's cache; as `input` where not given."""
    request: Dollars = Decimal(0)
    """Per request, whatever its size."""

    def cost(self, prompt: int, cached: int, completion: int, requests: int = 1) -> Decimal:
        """Dollars for these tokens; `cached` is the part of `prompt` that was cached."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        tokens = self.input * (prompt - cached) + cached_price * cached + self.output * completion
        return tokens / _MILLION + self.request * requests


class PriceTable(Value):
    """Prices by model name, with the date they were taken."""

    as_of: str = ""
    """When these prices were read from the providers' pages, as YYYY-MM."""
    models: dict[str, Price]
    """Price by model name, as the server spells it."""


def read_table(path: Path | None = None) -> PriceTable:
    """Read a price table; without a path, the packaged one. Raises ConfigError or DataError."""
    if path is None:
        return _parsed(files("archon").joinpath("prices.yaml").read_text(encoding="utf-8"), "prices.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the price table {str(path)!r}: {getattr(error, 'strerror', None) or 'it is no text'}. "
            "It is named by ARCHON_PRICES or --prices"
        ) from error
    return _parsed(text, str(path))


@lru_cache(maxsize=8)
def _parsed(text: str, name: str) -> PriceTable:
    """By its text, so that an edited table counts at once."""
    from archon.config import read_value

    return read_value(PriceTable, text, name)


def price_of(model: str, prices: Path | None = None) -> tuple[Price | None, str]:
    """The price of a model by its name, and where it was found (or that it was not).

    `prices` is the user's table; ARCHON_PRICES where not given.
    """
    user = prices or os.environ.get("ARCHON_PRICES")
    if user:
        table = read_table(Path(user))
        if model in table.models:
            return table.models[model], str(user)
    packaged = read_table()
    if model in packaged.models:
        return packaged.models[model], f"packaged table, as of {packaged.as_of}"
    return None, "unpriced"
