"""Processes for the tests of what is shared: `python -P toy.py claim|begin|search|drive DATABASE ...`.

`drive` forks its workers, which is what makes it cheap to kill and restart many; each is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from archon.search.axes import Axes, Axis, Configuration
from archon.search.claims import Claims, Item
from archon.search.history import Trial
from archon.search.study import Study

AXES = Axes(
    [
        Axis("n", "int", low=1, high=16, log=True),
        Axis("temperature", "float", low=0.2, high=1.0, step=0.4),
        Axis("choose", "choice", ("vote", "best", None)),
        Axis("judge", "choice", ("small", "big"), needs=(("choose", ("best",)),)),
    ]
)
OBJECTIVES = {"accuracy": "maximize"}
FACTS = {"benchmark": "toy", "splits": {"search": 10}}
PROBLEMS = [f"p{i}" for i in range(10)]
EARLY = 4
TRIALS = 40
WORKERS = 4


def value(configuration: Configuration, problem: str) -> float:
    """Right or not: by the configuration and the problem alone."""
    text = json.dumps([configuration.as_json(), problem])
    return float(hashlib.sha256(text.encode()).digest()[0] % 3 > 0)


class Fixed:
    """A proposer with a list: the same in every process."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        found = dict.fromkeys(AXES.draw(rng) for _ in range(400))
        self._left = list(found)[:TRIALS]

    def ask(self) -> Configuration | None:
        return self._left.pop(0) if self._left else None


class Log:
    """One line per evaluation that was begun, as it is begun."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, trial: Trial, problem: str) -> None:
        os.write(self._file, f"{os.getpid()} {trial.key} {problem}\n".encode())


def opened(database: str) -> Study:
    return Study.open(database, "toy", axes=AXES, objectives={"accuracy": "maximize"}, facts=FACTS, seed=3)


def evaluate(study: Study, trial: Trial, log: Log, pause: float) -> None:
    """All problems in two batches; below one half after the first, it has lost."""
    for batch in (PROBLEMS[:EARLY], PROBLEMS[EARLY:]):
        for item in study.claims.claim(Item(trial.key, problem) for problem in batch):
            log(trial, item.problem)
            time.sleep(pause)
            study.claims.finish(item, value(trial.configuration, item.problem))
        found = study.claims.values(trial.key)
        mean = sum(found.values()) / len(found)
        study.report(trial, len(found), mean)
        if len(found) == EARLY and mean < 0.5:
            study.finish(trial, [mean], state="pruned", problems=EARLY, fresh_tokens=EARLY, reason="lost")
            return
    study.finish(trial, [mean], problems=len(PROBLEMS), fresh_tokens=len(PROBLEMS))


def search(database: str, log_path: str, pause: float = 0.0) -> None:
    """A whole search, or this process's part of one."""
    proposer, log = Fixed(), Log(log_path)
    with opened(database) as study:
        asked: Configuration | None = None
        while True:
            lost = next((t for found in study.lost() if (t := study.take_up(found)) is not None), None)
            if lost is not None:
                evaluate(study, lost, log, pause)
                continue
            asked = proposer.ask()
            if asked is not None:
                trial = study.begin(asked, "fixed", {"stack": f"toy of {len(asked)} choices"})
                if trial is not None:
                    evaluate(study, trial, log, pause)
            elif study.claims.open("trial"):
                time.sleep(0.01)  # others are at work, and may be killed
            else:
                return


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def drive(database: str, log_path: str, seed: int, kills: int) -> None:
    """Workers on one study, killed at random moments and restarted until it is done; prints whom it killed."""
    rng = random.Random(seed)
    killed: list[int] = []
    log = Path(log_path)
    log.touch()

    def start() -> int:
        return forked(lambda: search(database, log_path, 0.01))

    def logged() -> int:
        return log.read_bytes().count(b"\n")

    workers = [start() for _ in range(WORKERS)]
    while workers:
        if len(killed) < kills:
            if rng.random() < 0.75:  # while they work
                enough = logged() + rng.randrange(25)
                deadline = time.monotonic() + 5
                while logged() < enough and time.monotonic() < deadline:
                    time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.03))
            for victim in rng.sample(workers, min(len(workers), rng.choice([1, 1, 2, WORKERS]))):
                os.kill(victim, signal.SIGKILL)
        for worker in list(workers):
            pid, status = os.waitpid(worker, 0) if len(killed) >= kills else os.waitpid(worker, os.WNOHANG)
            if pid:
                workers.remove(worker)
                if os.WIFSIGNALED(status):
                    killed.append(worker)
                    workers.append(start())
                elif os.WEXITSTATUS(status):
                    sys.exit(f"worker {worker} failed")
    print(json.dumps(killed))


def items(count: int) -> list[Item]:
    return [Item(f"c{i % 7}", f"p{i}") for i in range(count)]


def claim(database: str, count: int, hang: bool) -> None:
    """Claim all that can be had, in batches of random size and order; finish it, but for those of a worker that hangs.

    Prints a line per item when it has been claimed. Those that do not hang begin when they are told to.
    """
    rng = random.Random(os.getpid())
    left = items(count)
    rng.shuffle(left)
    with Claims(database, "s") as claims:
        if not hang:
            sys.stdin.readline()
        for batch in _batches(left, rng):
            ours = claims.claim(batch)
            for item in ours:
                print(json.dumps(item), flush=True)
            if hang and ours:
                print("hanging", flush=True)
                time.sleep(600)
            claims.finish_all({item: os.getpid() for item in ours})


def _batches(left: list[Item], rng: random.Random) -> Iterator[list[Item]]:
    while left:
        size = rng.randint(1, 20)
        yield left[:size]
        del left[:size]


def begin(database: str) -> None:
    """Begin every configuration that can be had, and hang; prints the keys."""
    proposer = Fixed()
    study = opened(database)
    while (asked := proposer.ask()) is not None:
        trial = study.begin(asked, str(os.getpid()))
        if trial is not None:
            print(trial.key, flush=True)
    print("hanging", flush=True)
    time.sleep(600)


STEPS = ("claimed", "made", "noted", "evaluated", "valued", "ended")
"""The moments at which a trial's process can be killed, in order; each the last thing that it did."""


def die(database: str) -> None:
    """For each step, a process that begins a configuration and is killed after that step."""
    opened(database).close()
    for step, configuration in zip(STEPS, list(_asked(Fixed())), strict=False):
        pid = forked(lambda step=step, configuration=configuration: _die(database, configuration, step))  # type: ignore[misc]
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"it was not killed after {step}")


def _asked(proposer: Fixed) -> Iterator[Configuration]:
    while (asked := proposer.ask()) is not None:
        yield asked


def _die(database: str, configuration: Configuration, step: str) -> None:
    study = opened(database)

    def last(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def then_die(*args: Any, **more: Any) -> None:
            work(*args, **more)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, then_die)

    if step in ("claimed", "made", "noted"):
        last(
            *{
                "claimed": (study.claims, "take"),
                "made": (study._storage, "create_new_trial"),
                "noted": (study.claims, "note"),
            }[step]
        )
    trial = study.begin(configuration, step, {"stack": "toy"})
    assert trial is not None
    work = study.claims.claim(Item(trial.key, problem) for problem in PROBLEMS)
    study.claims.finish_all({item: value(configuration, item.problem) for item in work})
    if step == "evaluated":
        os.kill(os.getpid(), signal.SIGKILL)
    last(*{"valued": (study._storage, "set_trial_state_values"), "ended": (study.claims, "finish")}[step])
    study.finish(trial, [0.75], problems=len(PROBLEMS), fresh_tokens=10)


def main(command: str, database: str, *more: str) -> None:
    if command == "claim":
        claim(database, int(more[0]), more[1:] == ("hang",))
    elif command == "die":
        die(database)
    elif command == "begin":
        begin(database)
    elif command == "search":
        search(database, more[0])
    else:
        drive(database, more[0], int(more[1]), int(more[2]))


if __name__ == "__main__":
    main(*sys.argv[1:])
