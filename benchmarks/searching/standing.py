"""How a search stands that has not ended: what its study says, which is read and not changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archon.benchmarks.searching.elsewhere import check
from archon.benchmarks.searching.reading import STUDY, Count, Data, Searched, Tried, first_flaw
from archon.errors import ArchonError, DataError

_NAME = "search"
"""Of the study, as `archon search` begins it."""


class Spent(Data):
    """What all processes spent anew, as far as the study knows: also on configurations that are under way."""

    requests: Count
    tokens: Count
    usd: float | None
    """None where a call has no price."""


class Standing(Data):
    """How a search stands that has not ended."""

    objectives: list[str]
    target: float | None
    """The value at which the least cost is wanted, if that is so."""
    tried: list[Tried]
    """Those that ended in the order in which they did; then those under way, with their values so far."""
    anytime: list[tuple[int, float]]
    """The best so far, by the fresh tokens of those that ended."""
    spent: Spent


def standing(folder: Path, where: str | Path | None = None) -> Standing:
    """How the search in a folder stands, by its study, there or at `where` (a file, or the URL of a database). Nothing
    in it is changed.

    Raises DataError where the study is none of ours, or not that of the folder, UserError where it cannot be named so,
    MissingExtra without Optuna or a driver, StoreErrors where it cannot be read.
    """
    from archon.search.database import explained, place, settings
    from archon.search.history import anytime
    from archon.search.mirror import let_go, optuna, trial_of
    from archon.search.spending import spent_in

    url = _url(folder / STUDY if where is None else where)
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    shown = place(url)
    with explained(shown), _ours(shown), _reading(url) as db:
        storage = optuna.storages.RDBStorage(text, engine_kwargs=settings(url), skip_table_creation=True)
        try:
            study = optuna.load_study(study_name=_NAME, storage=storage)
            check(folder, study.user_attrs, shown)
            objectives = study.metric_names or [f"objective {n + 1}" for n in range(len(study.directions))]
            target = study.user_attrs.get("target")
            frozen = [one for one in study.get_trials(deepcopy=False) if "duplicate" not in one.user_attrs]
        finally:
            let_go(storage)
        ended = sorted(
            (one for one in frozen if one.state.is_finished()), key=lambda one: one.datetime_complete or 0
        )
        rest = [one for one in frozen if not one.state.is_finished()]
        tried = [_tried(one) for one in (*ended, *rest)]
        grown = anytime([trial_of(one) for one in ended])
        paid = spent_in(db, _NAME)  # after the trials: no less than they took
        usd = None if paid.unpriced else float(paid.usd)
        spent = Spent(requests=paid.requests, tokens=paid.tokens, usd=usd)
        return Standing(objectives=objectives, target=target, tried=tried, anytime=grown, spent=spent)


def _url(where: str | Path) -> Any:
    """The database's URL, of a file one that is there: connecting would make it. Raises DataError, UserError."""
    from archon.search.database import is_file, place, url_of

    url = None if is_file(where) else url_of(where)
    path = str(where) if url is None else place(url)
    if (url is None or url.get_backend_name() == "sqlite") and not Path(path).is_file():
        raise DataError(f"there is no study in {path!r}. Name where `archon search --study` keeps it")
    return url or url_of(where)


@contextmanager
def _reading(url: Any) -> Iterator[Any]:
    """A connection to it. Raises ValueError where it does not have all of Optuna's tables: it would write what is
    missing."""
    from archon.search.database import engine_of, sql

    engine = engine_of(url)
    try:
        with engine.connect() as db:
            tables = sql.inspect(db)
            if not (tables.has_table("alembic_version") and tables.has_table("studies")):
                raise ValueError("it has no tables of a study")
            yield db
    finally:
        engine.dispose()


def _tried(frozen: Any) -> Tried:
    """A trial, with what is known so far of one that is under way."""
    from archon.search.mirror import trial_of

    trial = trial_of(frozen)
    values, problems = trial.values, trial.problems
    if trial.state == "running" and frozen.intermediate_values:
        problems = max(frozen.intermediate_values)
        values = (frozen.intermediate_values[problems],)
    return Tried(
        number=trial.number,
        key=trial.key,
        stack=str(trial.details.get("stack", trial.key)),
        configuration=trial.configuration.as_json(),
        state=trial.state,
        values=None if values is None else list(values),
        problems=problems,
        fresh_tokens=trial.fresh_tokens,
        proposer=trial.proposer,
        reason=trial.reason,
    )


@contextmanager
def _ours(where: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{where!r} holds no search that this program can read ({first_flaw(error)}). "
            "Give the folder that `archon search --out` wrote, and where its study is, if it is elsewhere"
        ) from error


def tried_of(searched: Searched) -> list[Tried]:
    """Its configurations in the order in which they ended; of a file that was written before it held them, by the
    study beside it. Empty where neither has them."""
    if searched.told.tried is not None:
        return searched.told.tried
    try:
        return standing(searched.folder).tried if (searched.folder / STUDY).is_file() else []
    except ArchonError:
        return []
