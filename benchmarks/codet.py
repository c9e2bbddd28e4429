"""CodeT on recorded samples: choosing among programs by tests that the same model wrote.

Source: Chen et al. 2022, "CodeT: Code Generation with Generated Tests" (arXiv 2207.10397). Programs and tests are
the 16,400 + 16,400 samples of CodeGen-16B in microsoft/CodeT; programs are graded by HumanEval's own tests.
Prints a table, and one line of JSON last: pass@1/2/10 of the dual execution agreement (groups ranked as in the
paper and as in its authors' code) and of the generated tests alone, with `--clusters` of clusters of equal
behaviour too, beside the plain pass@k of the same samples; and the selected accuracy of best-of-N for N = 1 ...
100 with generated tests as the verifier.

    python -m archon.benchmarks.codet --data ../shared/data

Nothing is sampled: the cost is executing every distinct program once per suite, and grading it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from archon.backends.base import Model
from archon.backends.replay import Replay
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.humaneval import HumanEval
from archon.benchmarks.statistics.intervals import wilson
from archon.benchmarks.statistics.passk import Floats, pass_at_k
from archon.benchmarks.statistics.selection import by_score
from archon.errors import ArchonError, DataError
from archon.execution import Limits
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.tasks import together
from archon.verifier import Verifier
from archon.verifiers.execution_agreement import BehaviourClusters, ExecutionAgreement
from archon.verifiers.generated_tests import GeneratedTests

FOLDER = "codegen16b_humaneval"
KS = (1, 2, 10)
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=10.0)
"""For all tests of a program together, and again where one hangs. CodeT gives each test 0.1 s."""


class Judged(NamedTuple):
    """One problem's samples: the truth of each, and its score by every verifier."""

    problem: str
    right: Sequence[bool]
    scores: Mapping[str, Sequence[float | None]]


def verifiers(samples: int, per_reply: int, *, clusters: bool = False) -> dict[str, Verifier]:
    """Who chooses, by the name of their figures."""
    tests: dict[str, Any] = {"model": "tester", "n": samples, "per_reply": per_reply, "limits": LIMITS}
    found: dict[str, Verifier] = {
        "generated_tests": GeneratedTests(**tests),
        "agreement_product": ExecutionAgreement(weigh="product", **tests),
        "agreement_sqrt": ExecutionAgreement(weigh="sqrt", **tests),
        "agreement_product_distinct": ExecutionAgreement(weigh="product", repeats=False, **tests),
    }
    return {**found, "behaviour_clusters": BehaviourClusters(**tests)} if clusters else found


async def judged(
    dataset: Dataset, problem: Problem, session: Session, chosen: Mapping[str, Verifier], n: int
) -> Judged:
    """Every verifier's scores of the same samples, and the truth."""
    scores: dict[str, list[float | None]] = {}
    texts: list[str] = []
    for name, verifier in chosen.items():
        # One pipeline each: within one, two verifiers would ask for tests of their own.
        outcome = await session.solve(Sample(model="coder", n=n) | Verify(verifier=verifier), problem)
        scores[name] = [c.score(verifier.name) for c in outcome.candidates]
        texts = [c.text for c in outcome.candidates]
    truths = await dataset.grader.grade(problem, texts, session)
    return Judged(problem.id, [t.right for t in truths], scores)


def ranked_pass_at_k(scores: Sequence[float | None], right: Sequence[bool], ks: Sequence[int]) -> Floats:
    """The chance that one of k choices is right, where groups of equal score are gone through from the best.

    One member of each group is chosen at random; where there are fewer groups than k, they are gone through again
    (with replacement, as CodeT's evaluation does). Candidates without a score, or with 0, are in no group; where
    there is no group, k are chosen at random.
    """
    truth = np.asarray(right, dtype=np.float64)
    values = np.array([score or 0.0 for score in scores])
    levels = np.unique(values[values > 0])[::-1]
    if not len(levels):
        return np.asarray(pass_at_k([len(truth)], [int(truth.sum())], ks)[0])
    wrong = [1.0 - truth[values == level].mean() for level in levels]
    misses = [np.prod([wrong[i % len(wrong)] for i in range(k)]) for k in ks]
    return np.asarray(1.0 - np.array(misses))


def figures(found: Sequence[Judged], n: int) -> dict[str, Any]:
    """Means over problems, with intervals."""
    every = list(range(1, n + 1))
    ks = [k for k in KS if k <= n]
    counts = [len(j.right) for j in found], [sum(j.right) for j in found]
    result: dict[str, Any] = {
        "problems": len(found),
        "samples": n,
        "coverage": _curve(pass_at_k(*counts, every), every, n),
        "pass_at_k": {},
        "best_of": {},
    }
    for name in found[0].scores:
        ranked = np.stack([ranked_pass_at_k(j.scores[name], j.right, ks) for j in found])
        result["pass_at_k"][name] = _curve(ranked, ks, n)
    scores = [[s if s is not None else 0.0 for s in j.scores["generated_tests"]] for j in found]
    best = np.stack([by_score(s, j.right, every)[0] for s, j in zip(scores, found, strict=True)])
    result["best_of"] = _curve(best, every, n)
    return result


def _curve(rows: Floats, ks: Sequence[int], n: int) -> dict[str, dict[str, float]]:
    intervals = [wilson(column, samples=len(column) * n) for column in rows.T]
    return {
        str(k): {"value": round(i.value, 4), "low": round(i.low, 4), "high": round(i.high, 4)}
        for k, i in zip(ks, intervals, strict=True)
    }


async def measure(
    data: Path | None,
    limit: int | None,
    chosen: Mapping[str, Verifier],
    n: int,
    store: Path | None,
) -> dict[str, Any]:
    """Judge and grade every problem. Raises DataError where the recordings are not there."""
    dataset = HumanEval(data=data).load()
    problems = dataset.problems[:limit]
    started, done = time.perf_counter(), 0
    found: dict[str, Judged] = {}
    async with Session(models=recorded(data), store=store) as session:
        waiting = iter(problems)

        async def work() -> None:
            nonlocal done
            for problem in waiting:
                found[problem.id] = await judged(dataset, problem, session, chosen, n)
                done += 1
                seconds = time.perf_counter() - started
                print(f"{done}/{len(problems)} {problem.id} {seconds:.0f} s", file=sys.stderr, flush=True)

        await together(work() for _ in range(4))
    result = figures([found[p.id] for p in problems], n)
    return {"benchmark": "codet", **result, "seconds": round(time.perf_counter() - started, 1)}


def recorded(data: Path | None) -> dict[str, Model]:
    """The recorded model, writing programs and writing tests."""
    folder = (data or Path("../shared/data")) / FOLDER
    tests = sorted(folder.glob("*_test_case.jsonl"))
    if len(tests) != 1:
        raise DataError(
            f"there is no recording of model-written tests in {str(folder)!r}. Name the folder that holds "
            f"{FOLDER}/ with --data"
        )
    return {"coder": Replay(path=folder), "tester": Replay(path=tests[0])}


def table(result: Mapping[str, Any]) -> str:
    """The figures for people, in percent."""
    ks = list(next(iter(result["pass_at_k"].values())))
    rows = [("", *(f"pass@{k}" for k in ks))]
    rows.append(("at random", *(f"{100 * result['coverage'][k]['value']:.1f}" for k in ks)))
    for name, curve in result["pass_at_k"].items():
        rows.append((name, *(f"{100 * curve[k]['value']:.1f}" for k in ks)))
    lines = [f"{row[0]:<28}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    shown = [k for k in result["best_of"] if int(k) in (1, 2, 4, 8, 16, 32, 64, 100)]
    best = "  ".join(f"{k}: {100 * result['best_of'][k]['value']:.1f}" for k in shown)
    return "\n".join([*lines, f"best-of-N by generated tests   {best}"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CodeT on recorded samples of CodeGen-16B.")
    parser.add_argument("--data", type=Path, help=f"the folder that holds humaneval/ and {FOLDER}/")
    parser.add_argument("--limit", type=int, help="only the first so many problems")
    parser.add_argument("--samples", type=int, default=100, help="programs, and replies with tests (100)")
    parser.add_argument("--per-reply", type=int, default=5, help="tests taken of each reply (5)")
    parser.add_argument("--store", type=Path, help="remember executions here, to go on after a break")
    parser.add_argument("--clusters", action="store_true", help="clusters of equal behaviour too")
    given = parser.parse_args()
    chosen = verifiers(given.samples, given.per_reply, clusters=given.clusters)
    try:
        result = asyncio.run(measure(given.data, given.limit, chosen, given.samples, given.store))
    except ArchonError as error:
        sys.exit(str(error))
    print(table(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
