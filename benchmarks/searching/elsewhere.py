"""A study that is not in its search's folder: the folder says where it is, without a password, and what it is about.

The database's URL is asked for again, and never taken from the folder: a folder may come from anywhere, and who
connects to where it says would show a password to that server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archon.benchmarks.results import write_json
from archon.benchmarks.searching.reading import ELSEWHERE, STUDY, Data, first_flaw, plain
from archon.errors import DataError, UserError

VARIABLE = "ARCHON_STUDY"
"""Of the environment: where the study is, so that its password is in no list of processes."""


class Elsewhere(Data):
    """What the folder says of its study."""

    study: str
    """Where it is, without a password."""
    facts: dict[str, Any]
    """What it was begun with."""


def note(folder: Path, where: str | Path | None, facts: Mapping[str, Any]) -> None:
    """Say in a folder where its study is; nothing where it is in the folder."""
    from archon.search.database import place, url_of

    path = folder / ELSEWHERE
    named = str(folder / STUDY) if where is None else place(url_of(where))
    if Path(named).absolute() == (folder / STUDY).absolute():
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"study": named, "facts": dict(facts)})


def noted(folder: Path) -> Elsewhere | None:
    """What a folder says; None where it says nothing. Raises DataError where it cannot be read."""
    path = folder / ELSEWHERE
    try:
        return Elsewhere.model_validate_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{str(path)!r} is damaged ({first_flaw(error)}). Run the same `archon search` again: it writes it anew"
        ) from error


def where_of(folder: Path, given: str | None) -> str | Path:
    """Where the study of a folder is: what was given; else in the folder; else, if the folder says that it is
    elsewhere, what the environment names. Raises UserError, saying what to give."""
    if given is not None:
        return given
    found = noted(folder)
    if found is None:
        return folder / STUDY
    named = os.environ.get(VARIABLE)
    if not named:
        raise UserError(
            f"the search in {str(folder)!r} has not ended, and its study is in {plain(found.study)!r}. Name that with "
            f"--study, or in the environment variable {VARIABLE}, as `archon search --study` was given it: a password "
            "is kept in no file"
        )
    return named


def check(folder: Path, known: Mapping[str, Any], where: str) -> None:
    """Raise DataError where a study, of which this is known, is not the one that a folder speaks of."""
    found = noted(folder)
    if found is None:
        return
    others = [fact for fact, value in found.facts.items() if known.get(fact) != value]
    if others:
        raise DataError(
            f"the study in {where} is that of another search than {str(folder)!r} has (another "
            f"{plain(', '.join(map(repr, others)))}); that one is in {plain(found.study)!r}. Name it with --study, or "
            f"in the environment variable {VARIABLE}"
        )
