"""Processes that spend from one purse: `python -P spender.py DATABASE LOG LIMIT WORKERS KILLS SEED`.

Each is forked, killed at a random moment and restarted, until so many were killed and the purse is empty.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from archon.budget import Budget
from archon.errors import BudgetExhausted
from archon.search.claims import Claims
from archon.search.meter import SharedMeter
from archon.search.spending import StudyPurse
from archon.tasks import together
from archon.usage import Usage

WORST = 60
"""Tokens of a call at most."""
AT_ONCE = 4


async def spend(claims: Claims, limit: int, log: int) -> None:
    """Make calls until no call is left; one line per call, before it is charged."""
    rng = random.Random(os.getpid())
    fresh = Usage()
    meter = SharedMeter(StudyPurse(claims, Budget(tokens=limit, counts="fresh")), lambda: fresh)

    async def calls() -> None:
        nonlocal fresh
        while True:
            most = rng.randint(WORST // 3, WORST)
            try:
                hold = await meter.reserve(Usage(1, completion_tokens=most))
            except BudgetExhausted:
                return
            await asyncio.sleep(rng.uniform(0, 0.004))
            usage = Usage(1, completion_tokens=rng.randint(1, most))
            os.write(log, f"{usage.tokens}\n".encode())
            fresh += usage
            hold.charge(usage)
            hold.close()

    await together(calls() for _ in range(AT_ONCE))
    meter.close()


def forked(database: str, limit: int, log: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with Claims(database, "s") as claims:
            asyncio.run(spend(claims, limit, log))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


def drive(database: str, log_path: str, limit: int, count: int, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    workers = [forked(database, limit, log) for _ in range(count)]
    killed = 0
    while workers:
        if killed < kills:
            enough = Path(log_path).stat().st_size + rng.randrange(60)
            deadline = time.monotonic() + 1
            while Path(log_path).stat().st_size < enough and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(rng.choice(workers), signal.SIGKILL)
        pid, status = os.waitpid(-1, 0)
        workers.remove(pid)
        if os.WIFSIGNALED(status):
            killed += 1
            workers.append(forked(database, limit, log))
        elif os.WEXITSTATUS(status):
            sys.exit(f"worker {pid} failed")
    print(killed)


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
