"""Bounds that hold when a pipeline runs, limits that refuse before anything is spent, and costs that are expected."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.base import Tokens
from archon.backends.openai import OpenAI
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.errors import UserError
from archon.graph import Graph
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.search.constraints import Bound, Limits, bounds, exceeds, lacking, largest, whole
from archon.search.expected import Cost, ExpectedCost
from archon.search.space import SearchSpace
from archon.session import Session
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.fuse import Fuse
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.stepping.stage import Tokens as Steps
from archon.strategies.verify import Verify
from archon.usage import Usage
from archon.verifiers.judge import Judge
from archon.verifiers.reward import Reward
from archon.verifiers.unit_tests import UnitTests

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
SHORT, LONG = Problem.ask("2+2?", id="short"), Problem.ask("What is " + "1 + " * 40 + "1?", id="long")
PRICE = Price(input=Decimal(2), output=Decimal(10))


def answers(call: Call) -> Reply:
    """A reply of as many tokens as the limit allows."""
    return Reply("4", tokens=Tokens(prompt=5, completion=call.request.sampling.max_tokens or 1))


def session(**more: Any) -> Session:
    model = Scripted(reply=answers, max_tokens=50, price=PRICE, parameters=1e6, **more)
    return Session(models={"default": model})


def bound_of(pipeline: Any, *problems: Problem, within: Session | None = None) -> Bound:
    graph = Pipeline([pipeline]).graph() if not isinstance(pipeline, Pipeline) else pipeline.graph()
    return whole(bounds(graph, problems or (SHORT,), within or session()).values())


def test_a_bound_counts_calls_replies_by_their_limit_and_prompts_by_their_bytes() -> None:
    prompt = len("2+2?") + 64  # room for the chat's template, as a budget reserves it
    bound = bound_of(Sample(n=3, max_tokens=20) | MajorityVote())
    tokens = 3 * (prompt + 20)
    assert bound == Bound(3, 3 * prompt, 60, tokens, 3 * PRICE.cost(prompt, 0, 20), 2 * 10**6 * tokens)
    assert bound_of(Sample(n=3)).completion_tokens == 150
    assert bound_of(Sample(n=0)) == Bound()


def test_the_dearest_problem_counts_whichever_stands_first() -> None:
    for problems in ((SHORT, LONG), (LONG, SHORT)):
        assert bound_of(Sample(n=2), *problems) == bound_of(Sample(n=2), LONG)
    assert bound_of(Sample(n=2), SHORT) != bound_of(Sample(n=2), LONG)
    raw = SHORT.model_copy(update={"prompt": "x" * 4000})
    assert largest([SHORT, LONG, raw, LONG]) == [LONG, raw]
    assert largest([SHORT, LONG]) == [LONG] and largest([]) == []


@QUICK
@given(
    st.integers(0, 4),
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from([SHORT, LONG]),
)
async def test_no_run_uses_more_than_its_bound(n: int, limit: int, chooses: bool, problem: Problem) -> None:
    pipeline = Sample(n=n, max_tokens=limit) | (FirstPassing() if chooses else MajorityVote())
    if chooses:
        pipeline = Sample(n=n, max_tokens=limit) | Verify(verifier=UnitTests()) | FirstPassing()
    async with session() as opened:
        bound = bound_of(pipeline, SHORT, LONG, within=opened)
        used = (await opened.solve(pipeline, problem)).usage
    assert bound.calls is not None and used.requests <= bound.calls
    for name in ("prompt_tokens", "completion_tokens", "tokens", "usd", "flops"):
        assert getattr(used, name) <= getattr(bound, name)


def test_what_a_stage_asks_about_candidates_has_no_bound_but_by_a_budget() -> None:
    fused = Sample(n=2) | Fuse()
    bound = bound_of(fused)
    assert (bound.calls, bound.completion_tokens) == (3, 150)
    assert (bound.prompt_tokens, bound.tokens, bound.usd, bound.flops) == (None,) * 4
    assert bound.why == "what 'fuse' asks is not known before"
    held = bound_of(Sample(n=2) | Fuse(budget=Budget(tokens=500, usd=Decimal("0.01"))))
    alone = bound_of(Sample(n=2))
    assert alone.tokens is not None and alone.usd is not None
    assert held.tokens == alone.tokens + 500 and held.usd == alone.usd + Decimal("0.01")
    fresh = bound_of(Sample(n=2) | Fuse(budget=Budget(tokens=500, counts="fresh")))
    assert fresh.tokens is None


def test_prompts_that_grow_with_a_reply_have_no_bound() -> None:
    models = {"default": Scripted(), "reward": Scripted(score=lambda text: 0.5)}
    bound = bound_of(BeamSearch(n=4, m=2, max_steps=3), within=Session(models=models))
    assert bound.calls is not None and bound.prompt_tokens is None
    long_steps = BeamSearch(n=4, m=2, max_steps=3, steps=Steps(tokens=9000))
    bound = bound_of(long_steps, within=Session(models=models))
    assert bound.calls is not None and bound.completion_tokens == 9000 * bound.calls


def test_a_verifier_s_own_limit_on_replies_counts() -> None:
    judged = Sample(n=1, max_tokens=10) | Verify(verifier=Judge(max_tokens=700))
    bound = bound_of(judged)
    calls = judged.graph().plan()["verify"].calls.high
    assert calls and bound.completion_tokens == 10 + 700 * calls


def test_a_model_without_a_price_a_size_or_a_limit_has_no_bound_in_it() -> None:
    bare = Session(models={"default": Scripted(max_tokens=50)})
    bound = bound_of(Sample(n=2), within=bare)
    assert bound.tokens is not None and bound.usd is None and bound.flops is None
    assert bound.why == "model 'default' has no price and no known size"
    endless = bound_of(Sample(n=2), within=Session(models={"default": Scripted(max_tokens=None)}))
    assert endless.completion_tokens is None and "have no limit" in endless.why


def test_without_models_only_calls_are_bounded() -> None:
    graph = (Sample(n=3) | MajorityVote()).graph()
    bound = whole(bounds(graph, [SHORT], None).values())
    assert bound.calls == 3 and bound.tokens is None


# --- limits ----------------------------------------------------------------------------------------


def test_limits_allow_what_is_just_within_and_name_the_first_that_is_not() -> None:
    bound = Bound(3, 30, 60, 90, Decimal("0.002"), 500)
    assert exceeds(bound, Limits(calls=3, tokens=90, usd=Decimal("0.002"), flops=500)) is None
    assert (
        exceeds(bound, Limits(calls=2)) == "it may need 3 calls, and at most 2 calls are allowed per problem"
    )
    assert "90 tokens, and at most 89 tokens" in (exceeds(bound, Limits(tokens=89)) or "")
    assert "0.002 dollars, and at most 0.001 dollars" in (exceeds(bound, Limits(usd=Decimal("0.001"))) or "")
    assert "500 FLOPs, and at most 499 FLOPs" in (exceeds(bound, Limits(flops=499)) or "")


def test_what_has_no_bound_is_refused_under_a_limit_and_left_to_a_budget() -> None:
    bound = Bound(3, None, 60, None, None, None, "what 'fuse' asks is not known before")
    said = exceeds(bound, Limits(tokens=1000))
    assert said == (
        "nobody can say how many tokens it needs at most (what 'fuse' asks is not known before), "
        "and at most 1,000 tokens are allowed per problem"
    )
    assert exceeds(bound, Budget(tokens=1000)) is None
    assert exceeds(bound, Budget(requests=2)) is not None
    assert exceeds(bound, Limits(calls=3, completion_tokens=60)) is None


SPACE = """
limits: {LIMITS}
pipeline:
  - sample: {n: {choose: [1, 2, 4]}, max_tokens: {choose: [20, 50]}}
  - optional: fuse
"""


def space(limits: str, extra: str = "") -> SearchSpace:
    text = extra + SPACE.replace("LIMITS", limits)
    return SearchSpace.from_data(text, problems=[SHORT, LONG], session=session())


def accepted(searched: SearchSpace) -> list[tuple[Any, ...]]:
    return [tuple(c.values()) for c in searched.axes.every() if searched.refusal(c) is None]


def test_a_space_refuses_by_every_limit_before_anything_is_spent() -> None:
    assert accepted(space("calls: 2")) == [
        (1, 20, False), (1, 20, True), (1, 50, False), (1, 50, True), (2, 20, False), (2, 50, False)
    ]  # fmt: skip
    assert accepted(space("completion_tokens: 80")) == [
        (1, 20, False), (1, 20, True), (1, 50, False), (2, 20, False), (4, 20, False)
    ]  # fmt: skip
    one = bound_of(Sample(n=1, max_tokens=20), LONG)
    assert accepted(space(f"tokens: {one.tokens}")) == [(1, 20, False)]
    assert accepted(space(f"usd: {one.usd}")) == [(1, 20, False)]
    assert accepted(space(f"flops: {one.flops}")) == [(1, 20, False)]
    assert accepted(space(f"prompt_tokens: {one.prompt_tokens}")) == [(1, 20, False), (1, 50, False)]


def test_what_the_budget_of_a_problem_holds_is_within_a_limit_on_it() -> None:
    searched = space("tokens: 2000", "budget: {problem: {tokens: 2000}}\n")
    assert searched.refusal({"sample.n": 1, "sample.max_tokens": 20, "fuse": True}) is None
    assert "nobody can say" in (
        space("tokens: 2000").refusal({"sample.n": 1, "sample.max_tokens": 20, "fuse": True}) or ""
    )


def test_limits_beyond_calls_need_models_and_problems() -> None:
    searched = SearchSpace.from_data(SPACE.replace("LIMITS", "tokens: 100"))
    with pytest.raises(UserError, match="need models and problems"):
        searched.refusal({"sample.n": 1, "sample.max_tokens": 20, "fuse": False})
    bound = searched.bound_to(problems=[SHORT], session=session())
    assert bound.refusal({"sample.n": 1, "sample.max_tokens": 20, "fuse": False}) is None
    assert bound.axes is searched.axes


# --- what models can do ----------------------------------------------------------------------------


def served() -> OpenAI:
    """A server that can do little; nothing is sent to it."""
    return OpenAI.model_validate(
        {
            "model": "m",
            "base_url": "http://127.0.0.1:9/v1",
            "capabilities": {"logprobs": False, "truncation_params": False, "prefix": False},
        }
    )


def unable(pipeline: Any, **models: Any) -> str:
    graph: Graph = (pipeline if isinstance(pipeline, Pipeline) else Pipeline([pipeline])).graph()
    return lacking(graph, Session(models=models)) or ""


def test_what_a_model_cannot_do_is_known_before() -> None:
    plain = served()
    assert unable(Sample(), default=plain) == ""
    assert "cannot return log-probabilities" in unable(Sample(logprobs=2), default=plain)
    assert "cannot take `top_k`" in unable(Sample(top_k=3), default=plain)
    assert "cannot continue a given beginning" in unable(BeamSearch(reward=None), default=plain)
    scored = Sample() | Verify(verifier=Reward()) | BestOf()
    assert "cannot score replies" in unable(scored, default=Scripted(), reward=Scripted())
    assert unable(scored, default=Scripted(), reward=Scripted(score=lambda text: 0.5)) == ""
    only_wholes = Scripted(score=lambda text: 0.5, scores="outcome")
    assert "cannot score the beginning" in unable(BeamSearch(), default=Scripted(), reward=only_wholes)
    assert "uses model 'default', which is not defined" in unable(Sample(), other=Scripted())


def test_a_space_refuses_what_its_models_cannot_do() -> None:
    text = "pipeline: [{sample: {model: {choose: [a, b]}, logprobs: 2}}]"
    models = {"a": Scripted(), "b": served()}
    searched = SearchSpace.from_data(text, problems=[SHORT], session=Session(models=models))
    assert searched.refusal({"sample.model": "a"}) is None
    assert "cannot return log-probabilities" in (searched.refusal({"sample.model": "b"}) or "")


# --- expected cost ---------------------------------------------------------------------------------

CHAIN = Sample(n=4, max_tokens=50) | MajorityVote()


def usage(calls: int, prompt: int, completion: int, **more: Any) -> Usage:
    return Usage(calls, prompt, 0, completion, usd=Decimal("0.01") * calls, flops=7 * calls, **more)


def expected(known: ExpectedCost, pipeline: Pipeline) -> Cost:
    graph = pipeline.graph()
    return known.of(graph, bounds(graph, [SHORT], session()))


def test_what_was_never_measured_is_expected_to_cost_its_bound() -> None:
    cost, bound = expected(ExpectedCost(), CHAIN), bound_of(CHAIN)
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.tokens) == bound[:4]
    assert cost.seconds is None and not cost.measured
    assert expected(ExpectedCost(), Sample(n=4) | Fuse()).tokens is None


def test_what_was_measured_itself_is_expected_to_cost_its_mean() -> None:
    first = ExpectedCost().refined(CHAIN.graph(), {"sample": usage(8, 80, 160, seconds=4.0)}, 2)
    assert expected(first, CHAIN) == Cost(4, 40, 80, 0.04, 28, 2.0)
    second = first.refined(CHAIN.graph(), {"sample": usage(4, 40, 380)})
    assert expected(second, CHAIN).completion_tokens == 180
    assert expected(first, CHAIN).completion_tokens == 80  # a value: what was there stays as it was


def test_a_stage_like_it_is_expected_to_cost_as_much_per_call() -> None:
    known = ExpectedCost().refined(CHAIN.graph(), {"sample": usage(4, 40, 80)})
    cost = expected(known, Sample(n=10, max_tokens=50) | MajorityVote())
    assert cost == Cost(10, 100, 200, 0.1, 70, 0.0)


def test_calls_are_expected_by_the_share_of_the_bound_that_was_made() -> None:
    stops = Sample(n=8) | Verify(verifier=UnitTests()) | FirstPassing()
    known = ExpectedCost().refined(stops.graph(), {"sample": usage(6, 60, 120)}, 3)
    again = Sample(n=4) | Verify(verifier=UnitTests()) | FirstPassing()
    cost = expected(known, again)
    assert cost.calls == pytest.approx(4 * 6 / 24) and cost.completion_tokens == pytest.approx(20)


def test_the_same_stage_after_others_goes_by_its_own_calls_before_those_of_its_technique() -> None:
    near = Sample(n=2) | Fuse(n=2)
    far = Sample(n=2) | Fuse(n=1, temperature=0.5)
    known = ExpectedCost().refined(near.graph(), {"sample": usage(2, 2, 2), "fuse": usage(2, 20, 200)})
    known = known.refined(far.graph(), {"sample": usage(2, 2, 2), "fuse": usage(1, 30, 900)})
    graph = (Sample(n=6) | Fuse(n=2)).graph()
    by_stage = known.by_stage(graph, bounds(graph, [SHORT], session()))
    assert by_stage["fuse"].completion_tokens == 200
    assert by_stage["fuse"].measured and by_stage["sample"].completion_tokens == 6


def test_unknown_money_stays_unknown_and_what_a_stage_solves_with_counts_to_it() -> None:
    from archon.strategies.test_first import TestFirst

    solver = TestFirst(solver=Pipeline([Sample(n=2)]))
    graph = Pipeline([solver]).graph()
    used = {
        "test_first": usage(1, 10, 10),
        "test_first/solver/sample": usage(2, 20, 30)._replace(unpriced=2, usd=Decimal(0)),
    }
    cost = ExpectedCost().refined(graph, used).of(graph, bounds(graph, [SHORT], session()))
    assert (cost.calls, cost.completion_tokens, cost.usd, cost.flops) == (3, 40, None, 21)


async def test_a_run_refines_what_is_expected_to_what_it_used() -> None:
    async with session() as opened:
        outcome = await opened.solve(CHAIN, SHORT)
        graph = CHAIN.graph()
        known = ExpectedCost().refined(graph, outcome.by_stage)
        cost = known.of(graph, bounds(graph, [SHORT], opened))
    assert cost.calls == outcome.usage.requests == 4
    assert cost.tokens == outcome.usage.tokens and cost.usd == pytest.approx(float(outcome.usage.usd))


def test_a_space_tells_what_is_expected() -> None:
    searched = space("calls: 9")
    chosen = {"sample.n": 4, "sample.max_tokens": 50, "fuse": False}
    known = ExpectedCost().refined(searched.graph(chosen), {"sample": usage(4, 40, 60)})
    assert searched.expected(chosen, known).completion_tokens == 60
    assert searched.expected({**chosen, "sample.n": 2}, known).completion_tokens == 30
