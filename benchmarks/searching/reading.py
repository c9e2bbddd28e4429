"""A search that ended, read back: its `search.json`.

What is read may come from anywhere, so every field has its type, and nothing in it is more than data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from archon.errors import DataError

SCHEMA = 1
NAME = "search.json"
STUDY = "study.sqlite"
ELSEWHERE = "study.json"
"""Says where the study is, if it is not in the folder."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Data(BaseModel):
    """What is read: typed, finite, and with whatever else there is left alone."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="ignore")


class Figure(Data):
    """A mean over problems with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    problems: Count

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.value is None) != (self.problems == 0):
            raise ValueError(f"{self.problems} problems, and the value {self.value}")
        return self


class OnSearch(Figure):
    """The winner's figure on the problems that it was searched by."""

    corrected: float | None


class Costs(Data):
    """What a problem costs in the mean."""

    requests: float
    tokens: float
    usd: float | None
    flops: float | None


class Best(Data):
    """The winner."""

    stack: str
    configuration: dict[str, Any]
    search: OnSearch
    validation: Figure
    test: Figure
    cost: Costs


class Against(Data):
    """The winner less a baseline."""

    says: Literal["better", "worse", "no significant difference"]
    difference: float
    low: float | None
    high: float | None
    p_value: float
    p_adjusted: float | None = None
    """Among all baselines; None of an older search."""
    problems: Count


class Baseline(Data):
    """What the winner is held against."""

    test: Figure
    cost: Costs
    winner: Against | None = None


class Together(Data):
    """An interval of the value that holds at once with those of all points that were to be tested."""

    low: float
    high: float
    points: Count
    """How many these are, with those that are not on the front, or for which the budget was not enough."""


class OnFront(Data):
    """One that may be on the front. Its intervals are its own, but for `together`."""

    stack: str
    value: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    problems: Count
    share: float
    on: Literal["surely", "maybe"]
    split: Literal["test", "validation", "search"] = "test"
    """On which its figures stand: it was chosen by those other than the test split. Older searches say nothing, and
    have only tested ones."""
    together: Together | None = None
    """None of one that is not tested, and of an older search."""


class Tried(Data):
    """One configuration that was tried."""

    number: Count | None
    key: str
    """The configuration's; reasons name others by it."""
    stack: str
    configuration: dict[str, Any]
    state: Literal["complete", "pruned", "failed", "running"]
    values: Annotated[list[float], Field(min_length=1)] | None
    problems: Count
    fresh_tokens: Count
    proposer: str
    reason: str

    @model_validator(mode="after")
    def _valued(self) -> Self:
        if self.state == "complete" and self.values is None:
            raise ValueError("it is complete, and has no values")
        return self


class States(Data):
    """What became of the configurations."""

    complete: Count
    pruned: Count
    failed: Count


class Calls(Data):
    """Model calls."""

    fresh: Count
    replayed: Count


class Tokens(Data):
    """Tokens, in and out."""

    fresh: Count
    total: Count


class Dollars(Data):
    """Dollars; None where something has no price."""

    fresh: float | None
    total: float | None


class Splits(Data):
    """How many problems each has."""

    search: Count
    validation: Count
    test: Count


class Problems(Data):
    """The benchmark that was searched on."""

    name: str
    sha256: str
    """Of all its problems."""


class ByProblem(Data):
    """The first objective's value on each problem of the test split."""

    problems: list[str]
    sha256: list[str] | None = None
    """Of what each problem asks; None of an older search."""
    winner: list[float]
    baselines: dict[str, list[float]]

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for row in (self.winner, self.sha256, *self.baselines.values()):
            if row and len(row) != len(self.problems):
                raise ValueError(f"{len(row)} values of {len(self.problems)} problems")
        if len(set(self.problems)) < len(self.problems):
            raise ValueError("a problem is there twice")
        return self


class Told(Data):
    """`search.json` (docs/search.md). What later versions of it have besides is left alone."""

    schema_: int = Field(alias="schema")
    objectives: Annotated[list[str], Field(min_length=1, max_length=2)]
    target: float | None
    best: Best | None
    baselines: dict[str, Baseline]
    front: list[OnFront]
    trials: Count
    states: States
    evaluations: Count
    requests: Calls
    tokens: Tokens
    usd: Dollars
    importance: dict[str, float]
    anytime: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    splits: Splits
    ended: str
    notes: list[str]
    objective_settings: list[dict[str, Any]] | None = None
    """Of each objective, defaults included; None of an older search."""
    benchmark: Problems | None = None
    by_problem: ByProblem | None = None
    tried: list[Tried] | None = None

    @model_validator(mode="after")
    def _set(self) -> Self:
        if self.objective_settings is not None and len(self.objective_settings) != len(self.objectives):
            raise ValueError(
                f"settings of {len(self.objective_settings)} objectives, and not of {self.objectives}"
            )
        return self


class Searched:
    """A search that ended, read back: `Searched.read("runs/found")`."""

    def __init__(self, folder: Path, data: Mapping[str, Any], told: Told) -> None:
        self.folder = folder
        self.data = data
        """`search.json`, as it is."""
        self.told = told
        """The same with its types."""

    @classmethod
    def read(cls, folder: str | Path) -> Searched:
        """Read one. Raises DataError where there is none, it is damaged, or of a newer schema."""
        place = Path(folder)
        path = str(place / NAME)
        try:
            data = json.loads((place / NAME).read_text(encoding="utf-8"), parse_constant=_no_number)
            schema = data.get("schema") if isinstance(data, dict) else None
            if not isinstance(schema, int):
                raise ValueError("it has no `schema`")
            if schema > SCHEMA:
                raise DataError(f"{path!r} has a newer schema than this program's {SCHEMA}. Update archon")
            json.dumps(data, allow_nan=False)  # a number such as 1e999 is read as infinite
            return cls(place, data, Told.model_validate(data))
        except OSError as error:
            raise DataError(
                f"there is no search that ended in {str(folder)!r} ({error.strerror}: {error.filename}). "
                "Give the folder that `archon search --out` wrote"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path!r} is damaged ({first_flaw(error)}). Run the same `archon search` again: it writes it anew "
                "from what is kept beside it, and pays for nothing twice"
            ) from error


def is_search(folder: Path) -> bool:
    """Whether this is the folder of a search, ended or not."""
    if (folder / NAME).is_file():
        return True
    kept = (folder / STUDY).is_file() or (folder / ELSEWHERE).is_file()
    return kept and not (folder / "results.json").exists()


def growth(data: Mapping[str, Any]) -> tuple[str, list[tuple[float, float]], float]:
    """How the best so far grew, from `search.json`: what it is shown against, the points, and where that ends.

    It is shown against the fresh tokens; where all was replayed, against the configurations that were tried.
    """
    if data["tokens"]["fresh"] or not data.get("tried"):
        points = [(tokens, value) for tokens, value in data["anytime"]]
        return "fresh tokens", points, max([data["tokens"]["fresh"], *(at for at, _ in points)])
    points = []
    for number, one in enumerate(data["tried"], 1):
        if one["state"] == "complete" and (not points or one["values"][0] > points[-1][1]):
            points.append((number, one["values"][0]))
    return "configurations tried", points, len(data["tried"])


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def first_flaw(error: Exception) -> str:
    """What is wrong, in short: of several flaws the first."""
    if isinstance(error, ValidationError):
        flaw = error.errors()[0]
        place = plain(".".join(map(str, flaw["loc"])))
        return f"`{place}`: {flaw['msg']}" if place else flaw["msg"]
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def plain(text: str) -> str:
    """Without letters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
