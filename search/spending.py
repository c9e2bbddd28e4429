"""A study's budget, in the study's database: over all its processes, those on other machines, and those that are gone.

Each process has an entry: what it has spent, and what it holds and may spend yet. An entry is changed in a transaction
in which all others stand still, so what is spent and held never exceeds the limit together. The entry of a process
that ends says what it spent; that of one that is killed stays as it was, and what it held counts as spent.

The limit itself is not kept: who goes on with a study may give it more. What was spent without a limit counts as far as
it was reported. Cost: no calls; one small transaction per change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

from archon.budget import Budget
from archon.errors import UserError
from archon.search.accounts import Amounts, Entry, Given, Others
from archon.search.claims import Claims, Item, kept
from archon.search.database import insert_of, sql
from archon.usage import NOTHING, Usage, total

_METADATA = sql.MetaData()
_SPENDING = sql.Table(
    "archon_spending",
    _METADATA,
    sql.Column("study", sql.String(512), primary_key=True),
    sql.Column("owner", sql.String(32), primary_key=True),
    sql.Column("spent", sql.Text, nullable=False),
    sql.Column("held", sql.Text, nullable=False),
    sql.Column("fresh", sql.Text, nullable=False),
)


class StudyPurse:
    """What a study may spend anew. Methods raise what those of `Claims` do."""

    def __init__(self, claims: Claims, limit: Budget, by: Literal["call", "task"] = "call") -> None:
        """`by` says what is held for: each call, or each task. One that holds for a task waits within it for samples
        that others have claimed, and one that holds for a call claims them and then waits for what tasks hold: so all
        processes at a time do the one or the other. Raises UserError where another that lives does the other."""
        self.limit = limit
        self._claims = claims
        self._insert = insert_of(claims.url)
        with claims.transaction(schema=True) as db:
            _METADATA.create_all(db)
        if limit.limits:
            self._agree(by)

    def _agree(self, by: str) -> None:
        ours = Item(f"spends by {by}", self._claims.owner)
        self._claims.claim([ours])
        for other in {"call", "task"} - {by}:
            if any(one.alive for one in self._claims.open(f"spends by {other}").values()):
                self._claims.release([ours])
                raise UserError(
                    "another process of this study evaluates with another executor, and within a limit on tokens or "
                    "dollars the two could wait for each other. Give both the same --executor, or wait until it ends"
                )

    def turn(self, decide: Callable[[Others], tuple[Given, Entry]]) -> Given:
        """Decide by what the others have, while none of them changes it; the entry is then ours."""
        with self._claims.transaction() as db:
            given, entry = decide(self._others(db))
            data = {
                "spent": _dump(entry.spent),
                "held": _dump({d: amount for d, amount in entry.held.items() if amount}),
                "fresh": json.dumps(entry.fresh.exact()),
            }
            row = {"study": self._claims.study, "owner": self._claims.owner, **data}
            keep = self._insert(_SPENDING).values(row)
            db.execute(
                keep.on_conflict_do_update(index_elements=[_SPENDING.c.study, _SPENDING.c.owner], set_=data)
            )
        return given

    @property
    def fresh(self) -> Usage:
        """What all processes have spent anew, as far as they told."""
        with self._claims.reading() as db:
            return _told(db, self._claims.study)

    def _others(self, db: sql.Connection) -> Others:
        ours = (_SPENDING.c.study == self._claims.study, _SPENDING.c.owner != self._claims.owner)
        rows = db.execute(sql.select(_SPENDING).where(*ours)).all()
        living = self._claims.living(db, {row.owner for row in rows})
        taken: dict[Any, Any] = dict.fromkeys(self.limit.limits, 0)
        returning: dict[Any, Any] = dict.fromkeys(self.limit.limits, 0)
        for row in rows:
            spent, held = _load(row.spent), _load(row.held)
            fresh = NOTHING if taken.keys() <= spent.keys() else Usage.from_json(json.loads(row.fresh))
            for dimension in taken:
                amount = held.get(dimension, 0)
                taken[dimension] += spent.get(dimension, getattr(fresh, dimension)) + amount
                if row.owner in living:
                    returning[dimension] += amount
        return Others(taken, returning, len(living) + 1)


def spent_in(db: sql.Connection, study: str) -> Usage:
    """What a study has spent anew, as far as its database knows: what its processes told, or what is kept with its
    evaluations, where that is more, as a process that was killed may not have told. Only reads."""
    known = total(Usage.from_json(one["fresh"]) for one in kept(db, study) if "fresh" in one)
    told = _told(db, study) if sql.inspect(db).has_table(_SPENDING.name) else NOTHING
    return max(known, told, key=lambda one: one.tokens)


def _told(db: sql.Connection, study: str) -> Usage:
    asked = sql.select(_SPENDING.c.fresh).where(_SPENDING.c.study == study)
    return total(Usage.from_json(json.loads(text)) for text in db.execute(asked).scalars())


def _dump(amounts: Amounts) -> str:
    return json.dumps({dimension: str(amount) for dimension, amount in amounts.items()})


def _load(text: str) -> dict[str, Any]:
    """Money as exact decimals, everything else as whole numbers."""
    return {
        dimension: Decimal(amount) if dimension == "usd" else int(Decimal(amount))
        for dimension, amount in json.loads(text).items()
    }
