"""Budgets hold and books balance: random graphs, latencies, failures and cancellations."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import DIMENSIONS, Budget, Budgets
from archon.candidate import Outcome, Verdict
from archon.errors import (
    AllCandidatesFailed,
    ConnectionDropped,
    EndpointDown,
    Overloaded,
    RateLimited,
    RequestRejected,
)
from archon.pipeline import Node, Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.usage import Usage, total
from archon.verifier import Verifier

PRICE = Price(input=Decimal("1.5"), output=Decimal(6), request=Decimal("0.001"))
LIMIT = 40
"""Tokens a reply may have."""


class ByText(Verifier):
    """Accepts replies that say so, after a moment."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return [
            Verdict(self.name, "good" in c.text, float(len(c.text)), "score", "passed") for c in candidates
        ]


class Asking(Verifier):
    """A judge: one model call per candidate."""

    @property
    def models(self) -> tuple[str, ...]:
        return ("judge",)

    @property
    def calls_per_candidate(self) -> int:
        return 1

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        verdicts = []
        for candidate in candidates:
            said = [c async for c in run.sample("judge", prompt=f"Judge: {candidate.text}")]
            good = bool(said) and len(said[0].text) % 2 == 0
            verdicts.append(
                Verdict(self.name, good if said else None, 1.0 if good else 0.0, "fraction", "passed")
            )
        return verdicts


def script(seed: int, trouble: float) -> Any:
    """Replies, delays, failures and token counts, by (model, prompt, index, attempt) alone."""

    def reply(call: Call) -> Reply:
        draw = random.Random(f"{seed}|{call.text}|{call.index}|{call.attempt}")
        if draw.random() < trouble:
            raise draw.choice(
                [
                    RateLimited("slow down", retry_after=0.001),
                    Overloaded("busy", retry_after=0.001),
                    ConnectionDropped("gone", retry_after=0.001),
                    RequestRejected("no"),
                ]
            )
        text = draw.choice(["good", "bad", "good enough", "so so"])
        prompt = random.Random(call.text).randint(1, 9)  # one prompt, one size
        tokens = Tokens(prompt, completion=draw.randint(1, LIMIT))
        return Reply(text, latency=draw.choice([0, 0, 0.001, 0.003]), tokens=tokens)

    return reply


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """One to three branches of samples, verified or not, joined and chosen from."""
    nodes: list[Node] = []
    branches = draw(st.integers(1, 3))
    ends: list[str] = []
    for number in range(branches):
        name = f"s{number}"
        budget = Budget(requests=draw(st.integers(0, 12))) if draw(st.integers(0, 3)) == 0 else None
        model = draw(st.sampled_from(["a", "b"]))
        nodes.append(Node(name, Sample(model=model, n=draw(st.integers(0, 12)), budget=budget)))
        end = name
        for step in range(draw(st.integers(1, 2))):
            verifier: Verifier = Asking() if draw(st.booleans()) else ByText()
            nodes.append(
                Node(f"v{number}{step}", Verify(verifier=verifier, ahead=draw(st.integers(1, 5))), (end,))
            )
            end = f"v{number}{step}"
        ends.append(end)
    if draw(st.booleans()):
        by = draw(st.sampled_from(["by_text", "asking"]))
        last = draw(st.sampled_from([FirstPassing(), TopK(k=2, by=by), BestOf(by=by), MajorityVote()]))
        nodes.append(Node("last", last, tuple(ends)))
    return Pipeline(nodes)


BUDGETS = st.builds(
    Budget,
    requests=st.none() | st.integers(0, 25),
    prompt_tokens=st.none() | st.integers(0, 900),
    completion_tokens=st.none() | st.integers(0, 700),
    tokens=st.none() | st.integers(0, 1500),
    usd=st.none() | st.integers(0, 40).map(lambda n: Decimal(n) / 1000),
    flops=st.none() | st.integers(0, 3000),
)


def amount(usage: Usage, dimension: str) -> Any:
    return getattr(usage, dimension)


def check_budget(spent: Usage, budget: Budget, whose: str) -> None:
    for dimension in DIMENSIONS:
        limit = getattr(budget, dimension)
        if limit is not None:
            assert amount(spent, dimension) <= limit, f"{whose}: {dimension} over its limit"


def check_outcome(outcome: Outcome, pipeline: Pipeline) -> None:
    assert total(outcome.by_stage.values()) == total(outcome.by_model.values()) == outcome.usage
    ids = [c.id for c in outcome.candidates]
    assert len(ids) == len(set(ids)), "no candidate is duplicated"
    for node in pipeline.nodes:
        if isinstance(node.stage, Sample):
            indices = [c.index for c in outcome.candidates if c.stage == node.name]
            assert indices == sorted(indices), "candidates come in sample order"
            assert all(i < node.stage.n for i in indices)
    for candidate in outcome.final:
        assert candidate.id in ids


async def _holds(
    pipeline: Pipeline,
    run: Budget,
    problem: Budget,
    seed: int,
    trouble: float,
    max_n: int,
    cancel_after: float | None,
) -> None:
    models = {
        name: Scripted(
            reply=script(seed, trouble),
            identity=name,
            price=PRICE,
            parameters=3,
            max_tokens=LIMIT,
            max_n=max_n,
            concurrency=4,
            reports_partial=seed % 2 == 0,
            retries=2,
        )
        for name in ("a", "b", "judge")
    }
    problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(3)]
    async with Session(models=models, budget=Budgets(run=run, problem=problem)) as session:
        solving = [asyncio.ensure_future(session.solve(pipeline, p)) for p in problems]
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            solving[1].cancel()
        results = await asyncio.gather(*solving, return_exceptions=True)
        backends: list[Any] = [session.caller(name).backend for name in models]

        spent = session.ledger.total
        check_budget(spent, run, "run")
        for dimension, used in session.meter.spent.items():
            assert used == amount(spent, dimension), "what the budget counted is what the ledger holds"
            assert session.meter.held[dimension] == 0, "nothing stays reserved"
        # Every call that was made is in the ledger, cancelled and failed ones too.
        calls = sum(len(b.calls) for b in backends)
        if max_n == 1:
            assert session.ledger.fresh.requests == calls
        assert total(session.ledger.by_stage.values()) == spent
        assert total(session.ledger.by_model.values()) == spent
        for result in results:
            if isinstance(result, Outcome):
                check_budget(result.usage, problem, "problem")
                check_outcome(result, pipeline)
            else:
                assert isinstance(result, AllCandidatesFailed | EndpointDown | asyncio.CancelledError), repr(
                    result
                )
        for backend in backends:
            assert backend.in_flight == 0, "nothing is left running"


@settings(max_examples=300, deadline=None)
@given(
    pipeline=pipelines(),
    run=BUDGETS,
    problem=BUDGETS,
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.1, 0.4]),
    max_n=st.sampled_from([1, 1, 3]),
    cancel_after=st.none() | st.floats(0, 0.01),
)
def test_spent_never_exceeds_a_hard_budget_and_the_books_balance(**drawn: Any) -> None:
    async def in_the_end() -> None:
        async with asyncio.timeout(300):  # a deadlock must fail, not hang
            await _holds(**drawn)

    asyncio.run(in_the_end())
