"""Four processes on one study, killed at random moments: the trials of one alone, nothing lost or done twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from archon.search.history import Trial
from tests.search.databases import said, toy
from tests.search.test_study import configurations, in_optuna, open_
from tests.search.toy import EARLY, PROBLEMS, TRIALS, WORKERS, value

KILLS = 14
Call = tuple[int, tuple[str, str]]


def calls(log: Path) -> list[Call]:
    """Who evaluated what, in order: process, (configuration, problem)."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(int(pid), (key, problem)) for pid, key, problem in lines]


def recorded(where: str) -> tuple[dict[str, Trial], dict[str, dict[str, float]]]:
    """The trials and the evaluations of a study that is done."""
    with open_(where) as study:
        assert study.lost() == study.running() == []
        history = study.history()
        assert len({t.key for t in history}) == len(history) == TRIALS
        return {t.key: t for t in history}, {t.key: study.claims.values(t.key) for t in history}


def without_moments(trials: dict[str, Trial]) -> dict[str, tuple[object, ...]]:
    return {
        key: (t.configuration, t.state, t.values, t.problems, t.fresh_tokens, t.reason, t.proposer, t.details)
        for key, t in trials.items()
    }


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Trial], dict[str, dict[str, float]]]:
    """One process's search: its log, its trials and its evaluations."""
    folder = tmp_path_factory.mktemp("alone")
    said(toy("search", folder / "s.sqlite", folder / "log"))
    return folder / "log", *recorded(str(folder / "s.sqlite"))


def test_one_process_alone_evaluates_each_once(
    alone: tuple[Path, dict[str, Trial], dict[str, dict[str, float]]],
) -> None:
    log, trials, evaluations = alone
    assert list(trials) == [configuration.key for configuration in configurations()]
    assert {t.state for t in trials.values()} == {"complete", "pruned"}
    for configuration in configurations():
        wanted = {problem: value(configuration, problem) for problem in PROBLEMS}
        if trials[configuration.key].state == "pruned":
            wanted = dict(list(wanted.items())[:EARLY])
        assert evaluations[configuration.key] == wanted
    asked = Counter(item for _, item in calls(log))
    assert set(asked.values()) == {1}
    assert set(asked) == {(key, problem) for key, found in evaluations.items() for problem in found}


@pytest.mark.parametrize("seed", range(2))
def test_four_processes_killed_at_random_moments_do_what_one_alone_does(
    seed: int, alone: tuple[Path, dict[str, Trial], dict[str, dict[str, float]]], tmp_path: Path
) -> None:
    where, log = str(tmp_path / "s.sqlite"), tmp_path / "log"
    killed = json.loads(said(toy("drive", where, log, seed, KILLS))[-1])
    trials, evaluations = recorded(where)
    _, expected, expected_evaluations = alone
    assert without_moments(trials) == without_moments(expected)
    assert evaluations == expected_evaluations
    assert sorted(t.user_attrs["key"] for t in in_optuna(where)) == sorted(trials), "in Optuna, too"

    made = calls(log)
    assert set(item for _, item in made) == {(k, p) for k, found in evaluations.items() for p in found}
    last = dict(made)
    in_flight = Counter(last[pid] for pid in killed if pid in last)
    twice = Counter(item for _, item in made)
    again = {item: count - 1 for item, count in twice.items() if count > 1}
    assert all(count <= in_flight[item] for item, count in again.items()), "only what was in flight at a kill"
    assert len(killed) >= KILLS and len(last) > WORKERS, "it was killed while it worked"
