"""Sessions: budgets, deadlines, models, seeds; what a fault in a stage, a verifier or a model does."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Outcome
from archon.errors import (
    AllCandidatesFailed,
    ArchonError,
    EndpointDown,
    Overloaded,
    RequestRejected,
    StageFailed,
    UnknownName,
    UnpricedModel,
)
from archon.prices import Price
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.trace import MemoryTrace
from archon.usage import NOTHING, Usage
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently

PROBLEM = Problem.ask("one two three", id="p")


def scripted(reply: Any = lambda call: f"{call.text} {call.index}", **settings: Any) -> Scripted:
    return Scripted(reply=reply, identity="session", **settings)


class Broken(Verifier):
    """Raises, or gives too few verdicts, or its own error."""

    how: str

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        if self.how == "raises":
            raise ZeroDivisionError("division by zero")
        if self.how == "refuses":
            raise ArchonError("not today")
        return []


class Dice(Stage):
    """Writes what its generator says."""

    takes = False

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        from archon.candidate import Candidate

        yield Candidate(f"{run.stage}#0", str(run.rng.random()), run.stage)


async def test_the_outcome_says_what_was_chosen_from_what_at_which_cost() -> None:
    tokens = Tokens(3, completion=10)
    model = scripted(
        lambda call: Reply(("a", "b", "b")[call.index], tokens=tokens), price=Price(input=1, output=2)
    )
    async with Session(models=model) as session:
        outcome = await session.solve(Sample(n=3) | MajorityVote(), PROBLEM)
    assert (outcome.problem, outcome.answer, outcome.stopped, outcome.exhausted) == ("p", "b", "complete", "")
    assert outcome.chosen is not None and outcome.chosen.id == "sample#1", "the earliest of the winners"
    assert [c.text for c in outcome.candidates] == ["a", "b", "b"]
    used = outcome.usage
    assert (used.requests, used.prompt_tokens, used.completion_tokens) == (3, 9, 30)
    assert used.usd == Decimal("0.000069")
    assert outcome.by_stage == {"sample": used} and outcome.by_model == {"default": used}
    assert json.loads(json.dumps(outcome.as_json()))["usage"]["usd"] == 0.000069


async def test_without_a_price_the_cost_is_unknown_and_not_zero() -> None:
    async with Session(models=scripted()) as session:
        outcome = await session.solve(Sample(n=2), PROBLEM)
    assert outcome.as_json()["usage"]["usd"] is None
    assert outcome.usage.unpriced == 2


# --- models -----------------------------------------------------------------------------------------


async def test_a_model_that_is_not_defined_is_named_before_anything_is_asked() -> None:
    async with Session(models={"coder": scripted()}) as session:
        with pytest.raises(UnknownName, match=r"'sample' uses model 'codr'.*Did you mean 'coder'"):
            await session.solve(Sample(model="codr"), PROBLEM)
        assert session.ledger.total == NOTHING


async def test_models_are_kept_apart_by_name() -> None:
    models = {"a": scripted(lambda call: "from a"), "b": Scripted(reply=lambda call: "from b", identity="b")}
    async with Session(models=models) as session:
        outcome = await session.solve(Sample(model="a") & Sample(model="b", n=2), PROBLEM)
    assert [(c.model, c.text) for c in outcome.candidates] == [
        ("a", "from a"),
        ("b", "from b"),
        ("b", "from b"),
    ]
    assert {name: u.requests for name, u in outcome.by_model.items()} == {"a": 1, "b": 2}


async def test_a_backend_can_be_given_as_it_is() -> None:
    backend = scripted().connect()
    async with Session(models={"default": backend}) as session:
        outcome = await session.solve(Sample(n=2), PROBLEM)
    assert len(outcome.candidates) == 2


async def test_models_of_one_endpoint_share_its_slots() -> None:
    most = 0

    def reply(call: Call) -> Reply:
        nonlocal most
        backends: list[Any] = [session.caller(name).backend for name in ("a", "b")]
        most = max(most, sum(b.in_flight for b in backends))
        return Reply("x", latency=0.005)

    models = {name: scripted(reply, concurrency=3, max_concurrency=3) for name in ("a", "b")}
    async with Session(models=models) as session:
        await session.solve(Sample(model="a", n=9) & Sample(model="b", n=9), PROBLEM)
    assert most == 3


# --- budgets ----------------------------------------------------------------------------------------


async def test_the_run_budget_covers_all_problems_and_the_problem_budget_each() -> None:
    budget = Budgets(run=Budget(requests=5), problem=Budget(requests=2))
    async with Session(models=scripted(), budget=budget) as session:
        outcomes = [await session.solve(Sample(n=4), Problem.ask(f"q{i}")) for i in range(4)]
    assert [len(o.candidates) for o in outcomes] == [2, 2, 1, 0]
    assert [o.exhausted for o in outcomes] == ["problem.requests"] * 2 + ["run.requests"] * 2
    assert session.ledger.total.requests == 5


async def test_a_stage_has_a_budget_of_its_own() -> None:
    pipeline = Sample(n=5, budget=Budget(requests=2)) & Sample(n=3)
    async with Session(models=scripted()) as session:
        outcome = await session.solve(pipeline, PROBLEM)
    assert {name: u.requests for name, u in outcome.by_stage.items()} == {"sample": 2, "sample-2": 3}
    assert (outcome.stopped, outcome.exhausted) == ("budget", "stage sample.requests")


async def test_money_is_held_at_its_worst_so_that_a_burst_cannot_overspend() -> None:
    model = scripted(
        lambda call: Reply("x", latency=0.002, tokens=Tokens(3, completion=100)),
        price=Price(input=0, output=10_000),  # a cent per token
        max_tokens=100,
    )
    budget = Budgets(problem=Budget(usd=Decimal("4.50")))
    async with Session(models=model, budget=budget) as session:
        outcome = await session.solve(Sample(n=50), PROBLEM)
    assert len(outcome.candidates) == 4
    assert outcome.usage.usd == Decimal(4)
    assert outcome.exhausted == "problem.usd"


async def test_a_budget_in_money_refuses_a_model_without_a_price_before_it_is_asked() -> None:
    async with Session(models=scripted(), budget=Budgets(run=Budget(usd=Decimal(1)))) as session:
        with pytest.raises(UnpricedModel, match="has no price"):
            await session.solve(Sample(), PROBLEM)
        assert session.ledger.total == NOTHING


@pytest.mark.parametrize("scope", ["run", "problem", "stage"])
def test_at_the_deadline_what_has_come_is_kept_and_what_hangs_is_cut_off_and_billed(scope: str) -> None:
    seconds = Budget(seconds=0.2)
    budget = {"run": Budgets(run=seconds), "problem": Budgets(problem=seconds), "stage": Budgets()}[scope]
    stage = Sample(n=4, budget=seconds if scope == "stage" else None)
    model = scripted(lambda call: Reply("x", latency=600 if call.index > 1 else 0))

    async def work() -> Outcome:
        async with Session(models=model, budget=budget, store=InstantStore()) as session:
            return await session.solve(stage | MajorityVote(), PROBLEM)

    outcome = patiently(work())
    assert [c.index for c in outcome.candidates] == [0, 1]
    assert outcome.answer == "x"
    assert outcome.stopped == ("budget" if scope == "stage" else "deadline")
    assert outcome.usage.requests == 4
    if scope != "problem":
        assert outcome.exhausted == ("run.seconds" if scope == "run" else "stage sample.seconds")


async def test_after_the_runs_deadline_nothing_more_is_asked() -> None:
    async with Session(models=scripted(), budget=Budgets(run=Budget(seconds=0))) as session:
        await asyncio.sleep(0.01)
        outcome = await session.solve(Sample(n=3), PROBLEM)
    assert (outcome.usage, outcome.stopped, outcome.chosen) == (NOTHING, "deadline", None)


# --- faults -----------------------------------------------------------------------------------------


async def test_if_every_attempt_failed_the_error_carries_the_causes_and_the_cost() -> None:
    def reply(call: Call) -> Any:
        raise RequestRejected(f"refused {call.index}")

    async with Session(models=scripted(reply)) as session:
        with pytest.raises(AllCandidatesFailed) as caught:
            await session.solve(Sample(n=2), PROBLEM)
    error = caught.value
    assert sorted(str(c) for c in error.causes) == ["refused 0", "refused 1"]
    assert "every candidate for problem 'p' failed (2 failures)" in str(error)
    assert error.outcome is not None and error.outcome.usage.requests == 2
    assert error.outcome.answer is None


async def test_some_failures_do_not_spoil_the_rest() -> None:
    model = scripted(lambda call: RequestRejected("no") if call.index % 2 else "yes")
    async with Session(models=model) as session:
        outcome = await session.solve(Sample(n=5) | MajorityVote(), PROBLEM)
    assert outcome.answer == "yes"
    assert [f.index for f in outcome.failures] == [1, 3]


async def test_a_dead_endpoint_ends_the_run_and_what_was_tried_is_counted() -> None:
    model = scripted(lambda call: Overloaded("busy", retry_after=0), retries=1)
    async with Session(models=model) as session:
        with pytest.raises(EndpointDown, match="finished samples are kept"):
            await session.solve(Sample(n=1), PROBLEM)
        assert session.ledger.total.requests == 2


async def test_a_fault_in_a_verifier_names_the_stage_and_the_fault() -> None:
    async with Session(models=scripted()) as session:
        with pytest.raises(StageFailed, match="stage 'verify' failed: ZeroDivisionError: division by zero"):
            await session.solve(Sample(n=2) | Verify(verifier=Broken(how="raises")), PROBLEM)
        with pytest.raises(ArchonError, match="not today"):
            await session.solve(Sample(n=2) | Verify(verifier=Broken(how="refuses")), PROBLEM)
        with pytest.raises(ArchonError, match="'broken' gave 0 verdicts for 1 candidates"):
            await session.solve(Sample(n=2) | Verify(verifier=Broken(how="")), PROBLEM)
        assert session.ledger.fresh.requests == 2, "stored samples were used again"
        outcome = await session.solve(Sample(n=2), PROBLEM)
        assert len(outcome.candidates) == 2, "the session goes on"


async def test_one_problems_fault_does_not_touch_another() -> None:
    def reply(call: Call) -> Any:
        return RequestRejected("no") if call.problem == "bad" else Reply("fine", latency=0.01)

    async with Session(models=scripted(reply)) as session:
        problems = [Problem.ask(name, id=name) for name in ("good", "bad", "better")]
        results = await asyncio.gather(
            *(session.solve(Sample(n=2), p) for p in problems), return_exceptions=True
        )
    assert [type(r).__name__ for r in results] == ["Outcome", "AllCandidatesFailed", "Outcome"]


# --- seeds, traces ----------------------------------------------------------------------------------


async def rolled(seed: int | None, problem: str = "p") -> str | None:
    async with Session(seed=seed) as session:
        return (await session.solve(Dice(), Problem.ask("q", id=problem))).answer


async def test_a_stages_generator_depends_on_the_seed_and_the_problem_and_on_nothing_else() -> None:
    assert await rolled(1) == await rolled(1)
    assert len({await rolled(1), await rolled(2), await rolled(None), await rolled(1, "other")}) == 4


async def test_another_seed_is_another_run() -> None:
    texts = []
    for seed in (1, 1, 2):
        async with Session(models=scripted(), store="s.sqlite", seed=seed) as session:
            texts.append((await session.solve(Sample(n=2), PROBLEM)).fresh.requests)
    assert texts == [2, 0, 2]


async def test_a_solved_problem_is_traced_with_its_cost() -> None:
    trace = MemoryTrace()
    async with Session(models=scripted(), trace=trace) as session:
        outcome = await session.solve(Sample(n=2), PROBLEM)
    (event,) = [e for e in trace.events if e["event"] == "solved"]
    assert (event["problem"], event["answer"]) == ("p", outcome.answer)
    assert Usage.from_json(event["usage"]).requests == 2
