"""A study that is gone on with, shared, and killed at every step of a trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sql
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from archon.errors import StoreFull, StoreUnusable, StoreVersion, UserError
from archon.search.axes import Axes, Axis, Configuration
from archon.search.claims import Item
from archon.search.history import Direction, Trial
from archon.search.mirror import distribution, shown
from archon.search.study import Study
from tests.search.databases import said, toy, until_it_hangs, where
from tests.search.toy import AXES, FACTS, PROBLEMS, STEPS, TRIALS, Fixed

__all__ = ["where"]
ACCURACY: Mapping[str, Direction] = {"accuracy": "maximize"}
BOTH: Mapping[str, Direction] = {"accuracy": "maximize", "usd": "minimize"}


def open_(where: str | Path, **changed: Any) -> Study:
    given: dict[str, Any] = {"axes": AXES, "objectives": ACCURACY, "facts": FACTS, **changed}
    return Study.open(where, given.pop("name", "toy"), **given)


def configurations() -> list[Configuration]:
    proposer = Fixed()
    return [asked for _ in range(TRIALS) if (asked := proposer.ask()) is not None]


def begun(study: Study, configuration: Configuration, proposer: str = "fixed") -> Trial:
    trial = study.begin(configuration, proposer, {"stack": "toy"})
    assert trial is not None
    return trial


def ended(trial: Trial | None) -> Trial:
    assert trial is not None
    return trial


def url(where: str) -> str:
    return where if "://" in where else f"sqlite:///{where}"


def in_optuna(where: str, name: str = "toy") -> list[optuna.trial.FrozenTrial]:
    """Its trials, as Optuna's dashboard reads them."""
    storage = optuna.storages.RDBStorage(url(where))
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


# --- trials -----------------------------------------------------------------------------------------


def test_the_history_is_the_same_when_it_is_opened_again_and_in_the_order_of_the_ends(where: str) -> None:
    a, b, c, d = configurations()[:4]
    with open_(where, seed=3) as study:
        one, two, three, _ = (begun(study, x) for x in (a, b, c, d))
        assert [t.key for t in study.running()] == sorted(x.key for x in (a, b, c, d))
        study.finish(three, [0.5], problems=10, fresh_tokens=70, details={"cost": {"usd": 0.1}})
        study.finish(one, [0.25], state="pruned", problems=4, fresh_tokens=30, reason="lost to 3")
        study.finish(two, None, state="failed", reason="no such model")
        history = study.history()
    assert [(t.configuration, t.state, t.values, t.problems, t.fresh_tokens, t.reason) for t in history] == [
        (c, "complete", (0.5,), 10, 70, ""),
        (a, "pruned", (0.25,), 4, 30, "lost to 3"),
        (b, "failed", None, 0, 0, "no such model"),
    ]
    assert history[0].details == {"stack": "toy", "cost": {"usd": 0.1}}
    with open_(where) as study:
        assert study.history() == history
        assert study.seed == 3
        assert [t.configuration for t in study.lost()] == [d], "closed in the middle"
        assert study.running() == []
        again = ended(study.take_up(study.lost()[0]))
        assert again.again and study.lost() == [] and [t.key for t in study.running()] == [d.key]
        study.finish(again, [1.0])
        assert study.history()[:3] == history and study.history()[3].values == (1.0,)


def test_a_configuration_is_never_two_trials(where: str) -> None:
    first = configurations()[0]
    with open_(where) as one, open_(where) as other:
        trial = begun(one, first)
        assert one.begin(first) is None and other.begin(Configuration(dict(first))) is None
        one.finish(trial, [0.5])
        assert one.begin(first) is None and other.begin(first) is None
        assert other.history() == one.history() != []
    assert len(in_optuna(where)) == 1


def test_optuna_s_dashboard_sees_the_trials_as_they_are(where: str) -> None:
    with_judge = AXES.configuration({"n": 4, "temperature": 0.6, "choose": "best", "judge": "big"})
    without = AXES.configuration({"n": 16, "temperature": 1.0, "choose": None})
    third = AXES.configuration({"n": 1, "temperature": 0.2, "choose": "vote"})
    with open_(where) as study:
        trial = begun(study, with_judge, "tpe")
        study.report(trial, 4, 0.75)
        study.report(trial, 10, 0.5)
        study.finish(trial, [0.5], problems=10)
        study.finish(begun(study, without), [0.125], state="pruned", problems=4, reason="lost")
        study.finish(begun(study, third), None, state="failed", reason="broken")
        study.report(trial, 10, 0.0)
    first, second, last = in_optuna(where)
    assert first.state is TrialState.COMPLETE and first.value == 0.5
    assert first.params == {"n": 4, "temperature": pytest.approx(0.6), "choose": "best", "judge": "big"}
    assert first.distributions["n"] == IntDistribution(1, 16, log=True)
    assert first.distributions["temperature"] == FloatDistribution(0.2, 1.0, step=0.4)
    assert first.distributions["choose"] == CategoricalDistribution(("vote", "best", None))
    assert first.intermediate_values == {4: 0.75, 10: 0.5}
    assert first.user_attrs["key"] == with_judge.key and first.user_attrs["proposer"] == "tpe"
    assert second.state is TrialState.PRUNED and second.values == [0.125]
    assert "judge" not in second.params and second.params["choose"] is None
    assert last.state is TrialState.FAIL and last.user_attrs["reason"] == "broken"
    storage = optuna.storages.RDBStorage(url(where))
    study_in_optuna = optuna.load_study(study_name="toy", storage=storage)
    assert study_in_optuna.best_params == first.params
    assert study_in_optuna.metric_names == ["accuracy"] and study_in_optuna.user_attrs["benchmark"] == "toy"
    storage.remove_session()
    storage.engine.dispose()


def test_several_objectives(where: str) -> None:
    a, b, c = configurations()[:3]
    with open_(where, objectives=BOTH) as study:
        for configuration, values in ((a, [0.5, 1.0]), (b, [0.75, 2.0]), (c, [0.4, 1.5])):
            trial = begun(study, configuration)
            study.report(trial, 3, 0.1)
            study.finish(trial, values)
        assert [t.values for t in study.history()] == [(0.5, 1.0), (0.75, 2.0), (0.4, 1.5)]
        assert {t.number for t in study._study.best_trials} == {0, 1}, "the front"


@pytest.mark.parametrize(
    ("values", "state", "reason"),
    [
        (None, "complete", ""),
        ([0.1, 0.2], "complete", ""),
        ([float("nan")], "complete", ""),
        ([float("inf")], "pruned", ""),
        ([0.5], "failed", "why"),
        (None, "failed", ""),
        ([0.5], "running", ""),
    ],
)
def test_values_that_do_not_go_with_the_state_are_refused(
    values: Any, state: Any, reason: str, one_of_ours: tuple[Path, list[Trial]]
) -> None:
    path, history = one_of_ours
    with open_(path) as study:
        second = configurations()[1]
        trial = ended(study.begin(second))
        with pytest.raises(ValueError, match="trial"):
            study.finish(trial, values, state=state, reason=reason)
        assert study.history() == history and [t.key for t in study.running()] == [second.key]


def test_details_and_configurations_that_cannot_be_are_refused_before_anything_is_claimed(
    tmp_path: Path,
) -> None:
    first = configurations()[0]
    with open_(tmp_path / "s.sqlite") as study:
        with pytest.raises(ValueError, match="key"):
            study.begin(first, details={"key": 1})
        with pytest.raises(UserError, match="no axis 'm'"):
            study.begin(Configuration({**first, "m": 1}))
        assert study.begin(first) is not None


# --- what it was begun with -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_of_ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial]]:
    """A study with a trial, and its history."""
    path = tmp_path_factory.mktemp("study") / "s.sqlite"
    with open_(path, seed=3) as study:
        study.finish(begun(study, configurations()[0]), [0.5])
        return path, study.history()


OTHER_AXES = Axes([*AXES[:3], Axis("judge", "choice", ("small", "huge"), needs=(("choose", ("best",)),))])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"axes": OTHER_AXES}, "another space (axes 'judge')"),
        ({"axes": Axes(AXES[:2])}, "another space (axes 'choose', 'judge')"),
        (
            {"objectives": BOTH},
            "other objectives (maximize accuracy, and these are maximize accuracy, minimize",
        ),
        ({"objectives": {"accuracy": "minimize"}}, "other objectives"),
        ({"facts": {**FACTS, "benchmark": "gsm8k"}}, 'another `benchmark` ("toy", and this is "gsm8k")'),
        ({"facts": {**FACTS, "splits": {"search": 20}}}, 'another `splits` ({"search": 10}, and this is'),
        ({"facts": {**FACTS, "models": "m"}}, 'another `models` (null, and this is "m")'),
        ({"seed": 4}, "another seed (3, and this is 4)"),
    ],
)
def test_it_does_not_go_on_with_anything_else_than_it_was_begun_with(
    changed: dict[str, Any], says: str, one_of_ours: tuple[Path, list[Trial]]
) -> None:
    path, history = one_of_ours
    with pytest.raises(UserError) as caught:
        open_(path, **changed)
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert "another name or place" in str(caught.value)
    with open_(path) as study:
        assert study.history() == history


def test_under_another_name_it_begins_with_something_else(one_of_ours: tuple[Path, list[Trial]]) -> None:
    path, history = one_of_ours
    with open_(path, name="another", axes=OTHER_AXES, objectives=BOTH, seed=4) as study:
        assert study.history() == [] and study.seed == 4
    with open_(path, seed=3) as study:
        assert study.history() == history


def test_a_study_of_optuna_s_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    storage = optuna.storages.RDBStorage(url(path))
    other = optuna.create_study(study_name="toy", storage=storage)
    other.add_trial(optuna.trial.create_trial(value=1.0))
    storage.remove_session()
    storage.engine.dispose()
    for _ in range(2):
        with pytest.raises(UserError, match="not begun by `archon search`"):
            open_(path)
    assert [t.value for t in in_optuna(path)] == [1.0]


def test_a_study_that_was_deleted_in_optuna_s_dashboard_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    with open_(path) as study:
        study.finish(begun(study, configurations()[0]), [0.5])
    storage = optuna.storages.RDBStorage(url(path))
    optuna.delete_study(study_name="toy", storage=storage)
    storage.remove_session()
    storage.engine.dispose()
    with open_(path) as study, pytest.raises(StoreUnusable, match="is gone from"):
        study.history()


def test_tables_of_another_version_of_optuna_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    open_(path).close()
    engine = sql.create_engine(f"sqlite:///{path}")
    with engine.begin() as db:
        db.execute(sql.text("UPDATE alembic_version SET version_num = 'v99.0'"))
    engine.dispose()
    with pytest.raises(StoreVersion, match="another version of Optuna"):
        open_(path)


def test_a_full_disk_is_one_clear_error_and_the_trials_before_stay(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_(path) as study:
        for engine in (study._storage.engine, study.claims._engine):
            engine.dispose()
            with engine.connect() as db:
                pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
            engine.dispose()

            def limit(connection: Any, _: object, pages: int = pages) -> None:
                connection.execute(f"PRAGMA max_page_count = {pages + 8}")

            sql.event.listen(engine, "connect", limit)
        with pytest.raises(StoreFull, match="free some space"):
            for configuration in configurations():
                trial = begun(study, configuration)
                study.finish(trial, [0.5], details={"long": "x" * 3000})
        kept = study.history()
    with open_(path) as study:
        assert study.history()[: len(kept)] == kept
        for lost in study.lost():
            assert study.finish(ended(study.take_up(lost)), [0.25]) is not None
        assert study.lost() == study.running() == []


# --- several processes ------------------------------------------------------------------------------


def test_two_processes_that_begin_the_same_are_one_trial_each_and_a_killed_one_s_are_taken_up_by_one(
    where: str,
) -> None:
    """Both make the tables and the study at once, too."""
    processes = [toy("begin", where) for _ in range(2)]
    keys = [until_it_hangs(process) for process in processes]
    assert sorted(keys[0] + keys[1]) == sorted(x.key for x in configurations())
    assert len(in_optuna(where)) == TRIALS
    with open_(where) as one, open_(where) as other:
        assert one.lost() == [] and len(one.running()) == TRIALS
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].communicate()
        lost = one.lost()
        assert sorted(t.key for t in lost) == sorted(keys[0])
        barrier = threading.Barrier(2)

        def take_up(study: Study) -> list[Trial]:
            barrier.wait()
            return [taken for trial in lost if (taken := study.take_up(trial)) is not None]

        with ThreadPoolExecutor(2) as pool:
            taken = [trial for found in pool.map(take_up, [one, other]) for trial in found]
        assert sorted(t.key for t in taken) == sorted(keys[0])
        assert all(t.again and t.proposer == str(processes[0].pid) for t in taken)
        assert one.lost() == [] and len(other.running()) == TRIALS
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[1].communicate()
    assert len(in_optuna(where)) == TRIALS


def test_killed_after_any_step_a_trial_goes_on_from_there(where: str) -> None:
    said(toy("die", where))
    by_step = dict(zip(STEPS, configurations(), strict=False))
    with open_(where) as study:
        assert [t.proposer for t in study.history()] == ["valued", "ended"], "the next to open it records"
        lost = {t.proposer: t for t in study.lost()}
        assert {t.proposer: t.configuration for t in lost.values()} == {
            step: by_step[step] for step in ("claimed", "made", "noted", "evaluated")
        }
        assert lost["claimed"].number is lost["made"].number is None
        for step, trial in lost.items():
            taken = ended(study.take_up(trial))
            assert taken.proposer == step and taken.details == {"stack": "toy"}
            left = study.claims.claim(Item(taken.key, problem) for problem in PROBLEMS)
            assert len(left) == (0 if step == "evaluated" else len(PROBLEMS)), "evaluations are kept"
            study.finish(taken, [0.75], problems=len(PROBLEMS))
        assert study.lost() == study.running() == []
        assert sorted(t.key for t in study.history()) == sorted(x.key for x in by_step.values())
        assert {t.values for t in study.history()} == {(0.75,)}
    assert [t.state for t in in_optuna(where)] == [TrialState.COMPLETE] * len(STEPS), "no trial twice"


def test_who_was_thought_dead_neither_begins_nor_ends_what_another_has_taken_up(where: str) -> None:
    a, b = configurations()[:2]
    with open_(where, beat_seconds=600) as one, open_(where, beat_seconds=600) as other:

        def silence() -> None:
            engine = sql.create_engine(url(where))
            with engine.begin() as db:
                old = {"beat": time.time() - 100}
                db.execute(sql.text("UPDATE archon_owners SET host = 'elsewhere', beat = :beat"), old)
            engine.dispose()

        mine = begun(one, a)
        silence()
        theirs = ended(other.take_up(other.lost()[0]))
        assert one.finish(mine, [0.1]) is None
        assert ended(other.finish(theirs, [0.2])).values == (0.2,)
        assert one.finish(mine, [0.1]) is None
        note = one.claims.note

        def thought_dead(item: Item, value: Any) -> bool:
            """While it makes the trial in Optuna, another takes it up and makes one, too."""
            silence()
            made = other.lost()[0]
            other.claims.take([item])
            assert other._made(item, {**about(made)}) is not None
            return note(item, value)

        def about(trial: Trial) -> dict[str, Any]:
            return {"configuration": trial.configuration.as_json(), "proposer": "", "details": {}}

        one.claims.note = thought_dead  # type: ignore[method-assign, assignment]
        assert one.begin(b) is None
        running = other.running()
        assert [t.configuration for t in running] == [b]
        other.finish(running[0], [0.3])
        assert [t.values for t in one.history()] == [(0.2,), (0.3,)]
    states = [(t.state, "duplicate" in t.user_attrs) for t in in_optuna(where)]
    assert states == [(TrialState.COMPLETE, False), (TrialState.FAIL, True), (TrialState.COMPLETE, False)]


@pytest.mark.parametrize(("without", "module"), [("optuna", "study"), ("sqlalchemy", "claims")])
def test_without_optuna_it_says_what_to_install(without: str, module: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{without!r}] = None\n"
        "from archon.errors import MissingExtra\n"
        "try:\n"
        f"    import archon.search.{module}\n"
        "except MissingExtra as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'archon[search]'" in ended.stdout


# --- axes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis("a", "choice", ("x", None, 2)), CategoricalDistribution(("x", None, 2))),
        (Axis("a", "choice", (1, True, "x")), CategoricalDistribution(("1", "True", "'x'"))),
        (Axis("a", "int", low=1, high=10, step=4), IntDistribution(1, 9, step=4)),
        (Axis("a", "int", low=1, high=1024, log=True), IntDistribution(1, 1024, log=True)),
        (Axis("a", "int", low=1, high=9, step=2, log=True), IntDistribution(1, 9, log=True)),
        (Axis("a", "float", low=0.1, high=1), FloatDistribution(0.1, 1)),
        (Axis("a", "float", low=0.1, high=1, step=0.2), FloatDistribution(0.1, 0.9, step=0.2)),
        (Axis("a", "float", low=0.1, high=1, step=0.1, log=True), FloatDistribution(0.1, 1, log=True)),
    ],
)
def test_an_axis_in_optuna_s_words(axis: Axis, expected: object) -> None:
    assert distribution(axis) == expected


@given(
    kind=st.sampled_from(["int", "float"]),
    low=st.integers(1, 50),
    width=st.integers(0, 500),
    step=st.sampled_from([None, 1, 3, 7]),
    scale=st.sampled_from([0.01, 0.1, 0.3, 1 / 3, 1e-7, 1e-3 + 1e-15, 12345.678]),
    log=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_value_of_an_axis_is_one_in_optuna(
    kind: Any, low: int, width: int, step: int | None, scale: float, log: bool, seed: int
) -> None:
    """Optuna refuses a trial with a value that its distribution does not have; a warning is an error."""
    by = 1 if kind == "int" else scale
    axis = Axis("a", kind, low=low * by, high=(low + width) * by, step=step and step * by, log=log)
    known = distribution(axis)
    rng = np.random.default_rng(seed)
    for value in [*(axis.draw(rng) for _ in range(4)), *(axis.values or ())[-1:]]:
        assert axis.holds(value)
        made = optuna.trial.create_trial(
            params={"a": shown(axis, value)}, distributions={"a": known}, value=1.0
        )
        assert made.params["a"] == pytest.approx(value)
        assert known.to_external_repr(known.to_internal_repr(made.params["a"])) == pytest.approx(value)
