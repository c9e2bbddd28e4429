"""A search that can be killed, gone on with, and shared: its trials in Optuna's storage, its work in the same database.

A trial is one configuration. Whoever proposes it, it is one trial: its key is claimed before Optuna hears of it
(`archon.search.claims`), and what has happened to a trial is done in steps of which each can be the last: claimed, made
in Optuna, noted with the claim; its values set in Optuna, the claim done. A process that is killed between two of them
leaves a trial that others find lost, and take up again from the step that was reached. The order in which trials ended
is one for all processes, and only grows. Optuna's dashboard shows the study as it is.

Cost: no calls; about ten small transactions per trial.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archon.errors import StoreUnusable, UserError
from archon.search.axes import Axes, Axis, Configuration
from archon.search.claims import Claims, Item, Most
from archon.search.database import explained, place
from archon.search.history import Direction, State, Trial
from archon.search.mirror import OWN, TrialState, distribution, let_go, optuna, shown, storage_of, trial_of

_TRIALS = "trial"
"""Stands for the configuration where the item is a trial: its key is the problem."""
_MARK = "begun_by"
"""A study in Optuna has this attribute before it has trials."""
_ENDED: Mapping[str, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Study:
    """One search in a database. Safe for threads; a context manager, which gives up what is unfinished."""

    def __init__(
        self,
        claims: Claims,
        storage: optuna.storages.RDBStorage,
        study: optuna.Study,
        axes: Axes,
        objectives: Mapping[str, Direction],
        facts: Mapping[str, Any],
        seed: int,
    ) -> None:
        """By `Study.open`."""
        self.claims = claims
        """The work of its trials: claim the problems of a configuration here, and keep what came of them."""
        self.axes = axes
        self.objectives = dict(objectives)
        self.seed = seed
        """The seed that it was begun with."""
        self.facts = dict(facts)
        """What it was begun with."""
        self._storage = storage
        self._study = study
        self._id = storage.get_study_id_from_name(study.study_name)
        self._where = place(claims.url)
        self._ended: dict[str, Trial] = {}

    @classmethod
    def open(
        cls,
        where: str | Path,
        name: str,
        *,
        axes: Axes,
        objectives: Mapping[str, Direction],
        facts: Mapping[str, Any],
        seed: int | None = None,
        silent_seconds: float = 60.0,
        beat_seconds: float = 15.0,
    ) -> Study:
        """Begin a study, or go on with it.

        `where` is a file, or the URL of a PostgreSQL database; `objectives` gives their names and directions, in the
        order of the values; `facts` (JSON) is what the values depend on (`space`, `benchmark`, `splits`, ...). Without
        a seed, it is the one it was begun with, or 0. A process on another machine is thought dead when it has been
        silent for `silent_seconds`.

        Raises UserError where it was begun with other axes, objectives or facts, or with another seed, or a study of
        this name is not ours; MissingExtra, StoreFull, StoreUnusable, StoreVersion or StoreError where the database
        cannot be used.
        """
        if not name or not objectives:
            raise UserError(f"a study has a name and an objective; this has {name!r} and {list(objectives)}")
        claims = Claims(where, name, silent_seconds=silent_seconds, beat_seconds=beat_seconds)
        try:
            return cls._opened(claims, axes, objectives, facts, seed)
        except BaseException:
            claims.close()
            raise

    @classmethod
    def _opened(
        cls,
        claims: Claims,
        axes: Axes,
        objectives: Mapping[str, Direction],
        facts: Mapping[str, Any],
        seed: int | None,
    ) -> Study:
        where, name = place(claims.url), claims.study
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = storage_of(claims.url)
        try:
            wanted = {
                "axes": {axis.name: _described(axis) for axis in axes},
                "objectives": [[objective, direction] for objective, direction in objectives.items()],
                "facts": dict(facts),
                "seed": seed or 0,
            }
            with explained(where):
                _refuse_foreign(storage, name, objectives, where)
            begun = claims.begin(wanted)
            _refuse_another(begun, json.loads(json.dumps(wanted)), seed, f"study {name!r} in {where}")
            with explained(where), warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    directions=list(objectives.values()),
                    load_if_exists=True,
                )
                if _MARK not in study.user_attrs:
                    study.set_metric_names(list(objectives))
                    for fact, value in {**begun["facts"], "seed": begun["seed"], _MARK: "archon"}.items():
                        study.set_user_attr(fact, value)
                opened = cls(claims, storage, study, axes, objectives, begun["facts"], int(begun["seed"]))
                opened.lost()  # trials that ended and could not say so any more
            return opened
        except BaseException:
            let_go(storage)
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up trials that are not ended, for others to take up at once, and let go of the database."""
        let_go(self._storage)
        self.claims.close()

    # --- the life of a trial -------------------------------------------------------------------------

    def begin(
        self,
        configuration: Configuration,
        proposer: str = "",
        details: Mapping[str, Any] | None = None,
        most: int | None = None,
    ) -> Trial | None:
        """Make a trial of a configuration, ours to evaluate; None where it has been one, or another has it, or there
        are `most` trials already.

        Where its process is gone, it is taken up again as it was, with its first proposer and details, and the
        evaluations that `claims.values` has. `details` is JSON. Raises UserError where the axes do not allow the
        configuration.
        """
        configuration = self.axes.configuration(configuration)
        item = Item(_TRIALS, configuration.key)
        about = {
            "configuration": configuration.as_json(),
            "proposer": proposer,
            "details": _checked(details),
        }
        within = None if most is None else Most(most, _TRIALS)
        taken = self.claims.take([item], about, within).get(item)
        if taken is None:
            return None
        with explained(self._where):
            if taken.again:
                return self._take_up(item, dict(taken.note))
            return self._made(item, about)

    def take_up(self, trial: Trial) -> Trial | None:
        """Go on with a lost trial; None where another was faster."""
        return self.begin(trial.configuration, trial.proposer, trial.details)

    def report(self, trial: Trial, problems: int, value: float) -> None:
        """Show in the dashboard how a running trial stands after so many problems (of a study with one objective)."""
        if len(self.objectives) > 1 or trial.number is None:
            return
        with explained(self._where):
            try:
                self._storage.set_trial_intermediate_value(self._trial_id(trial.number), problems, value)
            except optuna.exceptions.UpdateFinishedTrialError:  # another has ended it
                return

    def finish(
        self,
        trial: Trial,
        values: Sequence[float] | None,
        *,
        state: State = "complete",
        problems: int = 0,
        fresh_tokens: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> Trial | None:
        """End a trial of ours, and give it back as it is recorded; None where it is not ours any more (we were thought
        dead, and another has taken it up).

        Values are one finite number per objective: those of a `complete` trial, and of a `pruned` one over the problems
        so far; a `failed` one has none and a reason. `fresh_tokens` are those of all its evaluations, also by those who
        had it before. Raises ValueError where the values do not go with the state.
        """
        self._check_values(values, state, reason)
        item = Item(_TRIALS, trial.key)
        if trial.number is None or not self.claims.owns(item):
            return None
        known = {
            **_checked(details),
            "problems": problems,
            "fresh_tokens": fresh_tokens,
            "reason": reason,
        }
        with explained(self._where):
            number = self._trial_id(trial.number)
            try:
                for name, value in known.items():
                    self._storage.set_trial_user_attr(number, name, value)
                self._storage.set_trial_state_values(number, _ENDED[state], values)
            except optuna.exceptions.UpdateFinishedTrialError:
                return None
            self.claims.finish(item, {"number": trial.number})
            return trial_of(self._storage.get_trial(number))

    # --- what there is -------------------------------------------------------------------------------

    def history(self) -> list[Trial]:
        """The trials that ended, in the order in which they did: the same for all processes, and later ones come after.

        Raises StoreUnusable where Optuna's study was deleted.
        """
        ended = self.claims.values(_TRIALS)
        if any(key not in self._ended for key in ended):
            with explained(self._where):
                found = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
            for key, value in ended.items():
                if key not in self._ended:
                    frozen = found.get(value["number"])
                    if frozen is None:
                        raise StoreUnusable(
                            f"trial {value['number']} of study {self.claims.study!r} is gone from {self._where}. "
                            "Choose another name for the study, and begin it anew"
                        )
                    self._ended[key] = trial_of(frozen)
        return [self._ended[key] for key in ended]

    def begun(self) -> int:
        """How many trials there are, in whatever state."""
        return self.claims.count(Most(0, _TRIALS))

    def unfinished(self) -> int:
        """How many trials have not ended, whoever has them."""
        return len(self.claims.open(_TRIALS))

    def running(self) -> list[Trial]:
        """The trials that a living process evaluates, ours included."""
        return [self._unfinished(found.note) for found in self.claims.open(_TRIALS).values() if found.alive]

    def lost(self) -> list[Trial]:
        """The trials whose process is gone before they ended: give them to `take_up`."""
        found = []
        for key, claimed in self.claims.open(_TRIALS).items():
            if claimed.alive:
                continue
            if self._has_ended(claimed.note):
                item = Item(_TRIALS, key)
                if self.claims.claim([item]):
                    self.claims.finish(item, {"number": claimed.note["number"]})
            else:
                found.append(self._unfinished(claimed.note))
        return found

    # --- the steps of a trial ------------------------------------------------------------------------

    def _made(self, item: Item, about: Mapping[str, Any]) -> Trial | None:
        """A new trial in Optuna, noted with the claim; None where we were thought dead meanwhile."""
        configuration = Configuration(about["configuration"])
        params = {name: shown(self.axes.by_name[name], value) for name, value in configuration.items()}
        made = self._storage.create_new_trial(
            self._id,
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions={name: distribution(self.axes.by_name[name]) for name in configuration},
                user_attrs={
                    **about["details"],
                    "key": configuration.key,
                    "configuration": configuration.as_json(),
                    "proposer": about["proposer"],
                },
            ),
        )
        number = self._storage.get_trial_number_from_id(made)
        if self.claims.note(item, {**about, "number": number}):
            return trial_of(self._storage.get_trial(made))
        noted = self.claims.open(_TRIALS).get(item.problem)
        if noted is not None and noted.note.get("number") != number:
            self._drop(made)
        return None

    def _take_up(self, item: Item, note: dict[str, Any]) -> Trial | None:
        """A trial that another began: it may not have been made in Optuna, and may even have ended."""
        if "number" not in note:
            made = [
                trial
                for trial in self._study.get_trials(deepcopy=False)
                if trial.user_attrs.get("key") == item.problem and "duplicate" not in trial.user_attrs
            ]
            if not made:
                return self._made(item, note)
            note["number"] = made[0].number
            if not self.claims.note(item, note):
                return None
            for trial in made[1:]:
                self._drop(self._trial_id(trial.number))
        if self._has_ended(note):
            self.claims.finish(item, {"number": note["number"]})
            return None
        return trial_of(self._storage.get_trial(self._trial_id(note["number"])), again=True)

    def _drop(self, trial: int) -> None:
        """A second trial in Optuna of the same configuration: it is none of ours."""
        try:
            self._storage.set_trial_user_attr(trial, "duplicate", True)
            self._storage.set_trial_user_attr(
                trial, "reason", "begun twice: a living process was thought dead"
            )
            self._storage.set_trial_state_values(trial, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return

    def _has_ended(self, note: Mapping[str, Any]) -> bool:
        if "number" not in note:
            return False
        with explained(self._where):
            return self._storage.get_trial(self._trial_id(note["number"])).state.is_finished()

    def _unfinished(self, note: Mapping[str, Any]) -> Trial:
        return Trial(
            Configuration(note["configuration"]),
            note.get("number"),
            proposer=note["proposer"],
            details=note["details"],
        )

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _check_values(self, values: Sequence[float] | None, state: State, reason: str) -> None:
        if state not in _ENDED:
            raise ValueError(f"a trial ends complete, pruned or failed, and not {state!r}")
        if state == "failed" and (values is not None or not reason):
            raise ValueError("a failed trial has no values, and a reason")
        if state == "complete" and values is None:
            raise ValueError("a complete trial has values")
        if values is None:
            return
        if len(values) != len(self.objectives) or not all(math.isfinite(value) for value in values):
            raise ValueError(
                f"a trial has a finite value for each of {list(self.objectives)}, not {list(values)}"
            )


def _checked(details: Mapping[str, Any] | None) -> dict[str, Any]:
    ours = set(details or ()) & set(OWN)
    if ours:
        raise ValueError(f"details cannot be named {sorted(ours)}: a trial has these of its own")
    return dict(details or {})


def _described(axis: Axis) -> list[Any]:
    return [axis.kind, list(axis.options), axis.low, axis.high, axis.step, axis.log, list(axis.needs)]


def _refuse_foreign(
    storage: optuna.storages.RDBStorage, name: str, objectives: Mapping[str, Direction], where: str
) -> None:
    """Raise UserError where Optuna has a study of this name that somebody else made."""
    if name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=name, storage=storage)
    directions = [direction.name.lower() for direction in study.directions]
    empty = directions == list(objectives.values()) and not study.get_trials(deepcopy=False)
    if _MARK not in study.user_attrs and not empty:
        raise UserError(
            f"{where} holds a study {name!r} of Optuna's that was not begun by `archon search`. Choose another name, "
            "or another place"
        )


def _refuse_another(begun: Mapping[str, Any], wanted: Mapping[str, Any], seed: int | None, what: str) -> None:
    """Raise UserError where a study was begun with something else than it is to go on with."""
    flaws = []
    before, after = begun["axes"], wanted["axes"]
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names or list(before) != list(after):
        flaws.append(f"another space (axes {', '.join(map(repr, names or after))})")
    if begun["objectives"] != wanted["objectives"]:
        flaws.append(
            f"other objectives ({_list(begun['objectives'])}, and these are {_list(wanted['objectives'])})"
        )
    for fact in {**begun["facts"], **wanted["facts"]}:
        was, now = begun["facts"].get(fact), wanted["facts"].get(fact)
        if was != now:
            flaws.append(f"another `{fact}` ({_brief(was)}, and this is {_brief(now)})")
    if seed is not None and begun["seed"] != seed:
        flaws.append(f"another seed ({begun['seed']}, and this is {seed})")
    if flaws:
        raise UserError(
            f"{what} was begun with {'; '.join(flaws)}. A study goes on only with what it was begun with: give this "
            "search another name or place, or take the change back"
        )


def _list(objectives: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{direction} {name}" for name, direction in objectives)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
