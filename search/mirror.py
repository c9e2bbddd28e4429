"""Trials as Optuna keeps them, so that its dashboard and its tools can read a study."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from archon.errors import MissingExtra, StoreVersion
from archon.search.axes import Axis, Choice, Configuration
from archon.search.database import explained, place, prepare, settings, sql
from archon.search.history import State, Trial

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.exceptions import StorageInternalError
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise MissingExtra(
        "a study that can be gone on with needs Optuna; install it: pip install 'archon[search]'"
    ) from error

__all__ = ["OWN", "TrialState", "distribution", "let_go", "optuna", "shown", "storage_of", "trial_of"]

OWN = ("key", "configuration", "proposer", "problems", "fresh_tokens", "reason", "duplicate")
"""What a trial in Optuna has of ours under these names; its other attributes are details."""
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_PATIENCE = 100
"""Tries to make Optuna's tables while others do."""
_LAST_STEP = sql.text("SELECT 1 FROM alembic_version")
"""What Optuna writes when all its tables are made."""


def distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna knows it: without steps on a log scale, where Optuna has none. Options that Python takes for
    equal (1 and true) are written out."""
    if axis.kind == "choice":
        return CategoricalDistribution([shown(axis, option) for option in axis.options])
    if axis.kind == "int":
        step = 1 if axis.log else int(axis.step or 1)
        last = axis.low + (axis.high - axis.low) // step * step
        return IntDistribution(int(axis.low), int(last), log=axis.log, step=step)
    end = _last(axis)
    if end is None:
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return FloatDistribution(axis.low, end, step=axis.step)


def _last(axis: Axis) -> float | None:
    """The last value of a real axis in steps, in decimals, as Optuna counts them; None where that does not come out
    even, or the steps are so many that the axis is as good as continuous."""
    if axis.log or axis.step is None or axis.values is None:
        return None
    low, step = Decimal(repr(axis.low)), Decimal(repr(axis.step))
    last = float(low + (len(axis.values) - 1) * step)
    return last if (Decimal(repr(last)) - low) % step == 0 else None


def shown(axis: Axis, value: Choice) -> Any:
    """A value as it is in the distribution: what the dashboard shows."""
    if axis.kind == "choice":
        return repr(value) if len(set(axis.options)) < len(axis.options) else value
    last = _last(axis) if axis.kind == "float" else None
    if last is None or axis.step is None or not isinstance(value, (int, float)):
        return value
    return min(axis.low + round((value - axis.low) / axis.step) * axis.step, last)


def trial_of(frozen: FrozenTrial, *, again: bool = False) -> Trial:
    """A trial as it is in Optuna."""
    known = frozen.user_attrs
    state = _STATES[frozen.state]
    return Trial(
        configuration=Configuration(known["configuration"]),
        number=frozen.number,
        state=state,
        values=None if state in ("running", "failed") or frozen.values is None else tuple(frozen.values),
        problems=int(known.get("problems", 0)),
        fresh_tokens=int(known.get("fresh_tokens", 0)),
        proposer=str(known.get("proposer", "")),
        reason=str(known.get("reason", "")),
        details={name: value for name, value in known.items() if name not in OWN},
        began=frozen.datetime_start,
        ended=frozen.datetime_complete,
        again=again,
    )


def storage_of(url: sql.URL) -> optuna.storages.RDBStorage:
    """Optuna's tables in the database, made where they do not exist, also while others make them.

    Raises StoreVersion, StoreUnusable.
    """
    where = place(url)
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    try:
        with explained(where):
            _make_tables(url, text)
            storage = optuna.storages.RDBStorage(text, engine_kwargs=settings(url))
    except RuntimeError as error:
        raise StoreVersion(f"the study in {where} is of another version of Optuna: {error}") from error
    prepare(storage.engine)
    storage.engine.dispose()  # the connections it has made are without these settings
    return storage


def _make_tables(url: sql.URL, text: str) -> None:
    """Optuna's tables. It makes them one by one, and fails where others do so, too: then we wait for them."""
    unpooled = {**settings(url), "poolclass": sql.NullPool}  # what fails leaves no connection behind
    engine = sql.create_engine(url, **unpooled)
    for patience in range(_PATIENCE, -1, -1):
        with engine.connect() as db:
            if sql.inspect(db).has_table("alembic_version") and db.execute(_LAST_STEP).first():
                return
        try:
            optuna.storages.RDBStorage(text, engine_kwargs=unpooled)
            return
        except (SQLAlchemyError, StorageInternalError) as error:
            said = f"{error} {error.__cause__}"
            if not patience or not any(sign in said for sign in ("already exists", "UNIQUE", "duplicate")):
                raise
            time.sleep(0.05)


def let_go(storage: optuna.storages.RDBStorage) -> None:
    """Close its connections."""
    storage.remove_session()
    storage.engine.dispose()
