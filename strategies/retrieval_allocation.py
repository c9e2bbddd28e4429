"""What to spend a budget of tokens on in retrieval: documents, examples or iterations.

Source: Yue et al. 2024, "Inference Scaling for Long-Context Retrieval Augmented Generation" (arXiv 2410.04343),
section 5, the computation allocation model. The logit of a metric is linear in the logarithms of k (documents), m
(examples) and n (iterations), and how steep it is in k and m depends on what documents and examples are worth to the
task:

    logit(score) = (a_k + b_k gain_documents) log k + (a_m + b_m gain_examples) log m + a_n log n + c

Fitted by least squares to a few measured points of one or several tasks, it predicts configurations that were not
measured, also of tasks that were not, and so the best one that fits a budget. Cost: no model call; the points that
it is fitted to are runs of `drag` (n = 1) and `iter_drag` (n = 1 + its iterations).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import lstsq

_SHIFT = 0.01
"""Added to k, m and n, as none of them is a number too, and has no logarithm."""
_EDGE = 0.005
"""Scores are kept so far from 0 and 1, which have no logit."""


class Point(NamedTuple):
    """A measured configuration."""

    k: int
    """Documents per query."""
    m: int
    """Examples."""
    n: int
    """Iterations: 1 for `drag`, 1 more than its `iterations` for `iter_drag`."""
    score: float
    """The metric, from 0 to 1, such as accuracy."""
    task: str = ""
    """The task on which it was measured."""


class Gains(NamedTuple):
    """What a task gains over answering from the question alone, on the metric's scale."""

    documents: float = 0.0
    """With one document and no example (`gains_of`), or however it is measured for all tasks alike."""
    examples: float = 0.0
    """With one example and no document."""


class Setting(NamedTuple):
    """A configuration and what is expected of it."""

    k: int
    m: int
    n: int
    score: float
    """The predicted metric."""
    tokens: float
    """What it costs, by the given count."""


class Allocation(NamedTuple):
    """The fitted model."""

    a: tuple[float, float, float]
    """Slopes in log k, log m and log n."""
    b: tuple[float, float]
    """How much a task's gains add to the first two; 0 where all points have the same gains."""
    c: float
    """The intercept."""
    r_squared: float
    """The share of the logits' variance that it explains, on the points that it was fitted to."""

    def predict(self, k: int, m: int, n: int, gains: Gains = Gains()) -> float:  # noqa: B008
        """The metric of a configuration on a task with these gains."""
        slopes = (self.a[0] + self.b[0] * gains.documents, self.a[1] + self.b[1] * gains.examples, self.a[2])
        logit = self.c + sum(slope * x for slope, x in zip(slopes, _logs(k, m, n), strict=True))
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))

    def best(
        self,
        tokens: Callable[[int, int, int], float],
        budget: float,
        *,
        ks: Iterable[int],
        ms: Iterable[int] = (0,),
        ns: Iterable[int] = (1,),
        gains: Gains = Gains(),  # noqa: B008
    ) -> Setting:
        """The configuration with the highest prediction of those that `tokens` says fit the budget; of equal ones
        the cheapest, then the first. Raises ValueError where none fits.
        """
        costs = {each: tokens(*each) for each in product(ks, ms, ns)}
        fitting = [
            Setting(*each, self.predict(*each, gains), cost) for each, cost in costs.items() if cost <= budget
        ]
        if not fitting:
            least = min(costs.values(), default=math.inf)
            raise ValueError(
                f"no configuration fits `budget`, which is {budget:g}; the least costs {least:g} tokens"
            )
        return max(fitting, key=lambda setting: (setting.score, -setting.tokens))


def fit(points: Sequence[Point], gains: Mapping[str, Gains] | None = None) -> Allocation:
    """Fit the model by least squares on the logits; `gains` are by task, none where not given.

    Raises ValueError where the points cannot tell its parameters apart: k, m and n must each vary, not all in step,
    or be the same in all points. A parameter that is the same in all points has a slope of 0.
    """
    if not points:
        raise ValueError("there are no points to fit the model to")
    for point in points:
        if min(point.k, point.m) < 0 or point.n < 1 or not 0 <= point.score <= 1:
            raise ValueError(f"k and m are at least 0, n at least 1, scores from 0 to 1; found {point}")
    worth = [(gains or {}).get(point.task, Gains()) for point in points]
    logs = np.array([_logs(point.k, point.m, point.n) for point in points])
    by_gain = logs[:, :2] * np.array([[each.documents, each.examples] for each in worth])
    varies = [bool(np.ptp(column)) for column in logs.T]
    varies += [v and len({g[i] for g in worth}) > 1 for i, v in enumerate(varies[:2])]
    columns = np.column_stack([logs, by_gain])[:, varies]
    design = np.column_stack([columns, np.ones(len(points))])
    logits = np.array([_logit(point.score) for point in points])
    solution, _, rank, _ = lstsq(design, logits)
    if rank < design.shape[1]:
        raise ValueError(
            f"{len(points)} points do not tell the model's {design.shape[1]} parameters apart; "
            "measure more, in which k, m and n do not grow in step, or leave `gains` out"
        )
    found = np.zeros(5)
    found[varies] = solution[:-1]
    spread = float(((logits - logits.mean()) ** 2).sum())
    left = float(((design @ solution - logits) ** 2).sum())
    a_k, a_m, a_n, b_k, b_m = map(float, found)
    return Allocation((a_k, a_m, a_n), (b_k, b_m), float(solution[-1]), 1 - left / spread if spread else 1.0)


def gains_of(points: Iterable[Point]) -> dict[str, Gains]:
    """The gains of each task for which the points (0, 0, 1), (1, 0, 1) and (0, 1, 1) were measured."""
    scores = {(p.task, p.k, p.m, p.n): p.score for p in points}
    found = {}
    for task in dict.fromkeys(task for task, *_ in scores):
        alone, document, example = (scores.get((task, *each, 1)) for each in ((0, 0), (1, 0), (0, 1)))
        if alone is not None and document is not None and example is not None:
            found[task] = Gains(document - alone, example - alone)
    return found


@dataclass(frozen=True)
class Sizes:
    """Tokens, on average, of what prompts are made of."""

    document: float
    example: float = 0.0
    """An example without its documents."""
    question: float = 0.0
    """The question, with the instruction."""
    step: float = 0.0
    """A follow-up question with its answer."""

    def __call__(self, k: int, m: int, n: int) -> float:
        """The prompt tokens of all calls for one answer, at most: `drag` for n = 1, else `iter_drag`.

        An iteration is two calls, before and after its documents are there; then the answer is asked for.
        """
        fixed = m * (self.example + k * self.document) + self.question
        before = sum(fixed + j * k * self.document + (j - 1) * self.step for j in range(1, n))
        after = sum(fixed + (j + 1) * k * self.document + j * self.step for j in range(1, n))
        return before + after + fixed + n * k * self.document + (n - 1) * self.step


def _logs(k: int, m: int, n: int) -> tuple[float, float, float]:
    return math.log(k + _SHIFT), math.log(m + _SHIFT), math.log(n + _SHIFT)


def _logit(score: float) -> float:
    kept = min(1 - _EDGE, max(_EDGE, score))
    return math.log(kept / (1 - kept))
