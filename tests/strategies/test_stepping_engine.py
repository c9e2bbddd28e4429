"""The step engine: what it asks, what it never asks again, and what a search leaves whatever goes wrong."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.backends.base import Capabilities, Model
from archon.backends.openai import OpenAI
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Outcome, TokenLogprob
from archon.errors import AllCandidatesFailed, CapabilityError, RequestRejected, UnpricedModel
from archon.problem import Message, Problem
from archon.session import Session
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import Wish
from archon.strategies.stepping.stage import Stepping, Tokens
from archon.strategies.verify import Verify
from archon.testing import Answer, Asked, StageCases, StubServer
from tests.archon.instant import InstantStore, patiently
from tests.strategies.chaining import Chains, Grown, Said, apart, length, lines, models, ran
from tests.strategies.made import PROBLEM, table

# --- steps and ends ---------------------------------------------------------------------------------


async def test_steps_are_written_one_by_one_and_the_text_is_what_the_model_wrote() -> None:
    found = await ran(Chains(n=2), models(lines("a", "", "b", "c")))
    assert found.texts == ["a\n\nb\nc"] * 2
    assert found.outcome.candidates[0].steps == ("a\n", "\n", "b\n", "c")
    assert found.asked == {"": 2, "a\n": 2, "a\n\n": 2, "a\n\nb\n": 2}
    assert all(call.request.sampling.stop == ("\n",) for call in found.calls)


@pytest.mark.parametrize(
    ("said", "settings", "finish", "steps"),
    [
        (Reply("a"), {}, "stop", 1),
        (Reply("a", "length"), {}, "length", 1),
        (Reply("a", "stop_string", "END"), {"stop": ("END",)}, "stop", 1),
        (Reply("a", "content_filter"), {}, "content_filter", 1),
        (Reply("a", "stop_string", "\n"), {"max_steps": 3}, "length", 3),
        (Reply("a", "stop_string", "\n"), {"until": "a\na"}, "stop", 2),
        (Reply("abc", "length"), {"steps": Tokens(tokens=3), "max_steps": 2}, "length", 2),
        (Reply("abc", "length"), {"steps": Tokens(tokens=3), "until": "ca"}, "stop", 2),
        (Reply("ab"), {"steps": Tokens(tokens=3)}, "stop", 1),
    ],
)
async def test_ways_to_end(said: Reply, settings: dict[str, Any], finish: str, steps: int) -> None:
    found = await ran(Chains(n=1, **settings), models(lambda call: said))
    (candidate,) = found.outcome.candidates
    assert (candidate.finish, len(candidate.steps)) == (finish, steps)
    assert len(found.calls) == steps


async def test_the_settings_reach_every_step_and_not_only_the_first() -> None:
    stage = Chains(n=1, temperature=0.3, top_p=0.9, max_tokens=7, stop=("END",), system="Think.")
    found = await ran(stage, models(apart), seed=5)
    for call in found.calls:
        given = call.request.sampling
        assert (given.temperature, given.top_p, given.max_tokens, given.seed) == (0.3, 0.9, 7, 5)
        assert given.stop == ("END", "\n")
        assert [m.role for m in call.request.messages] == ["system", "user"]
    by_tokens = await ran(Chains(n=1, steps=Tokens(tokens=5), max_tokens=99), models(lambda call: "x"))
    assert [c.request.sampling.max_tokens for c in by_tokens.calls] == [5]


class Base(Scripted):
    """It continues text."""

    @property
    def continues_text(self) -> bool:
        return True


async def test_a_base_models_problem_ends_at_its_own_stop_strings_though_they_span_steps() -> None:
    raw = Problem(id="p", messages=(Message(role="user", content="f"),), prompt="def f():\n", stop=("\ndef",))
    named = {
        **models(apart),
        "default": Base(reply=lines("  return 1", "def g():", "  pass"), identity="base"),
    }
    (answer,) = (await ran(Chains(n=1), named, raw)).outcome.candidates
    assert (answer.text, answer.finish) == ("  return 1", "stop")


# --- what is asked once -----------------------------------------------------------------------------


async def test_equal_beginnings_are_one_draw_and_one_request() -> None:
    found = await ran(Chains(n=6), models(lines("a", "b", "c"), max_n=6))
    assert found.outcome.by_model["default"].requests == 3, "six samples each"
    assert len(found.calls) == 18
    assert [len({c.index for c in found.calls if c.request.prefix == p}) for p in ("", "a\n", "a\nb\n")] == [
        6
    ] * 3
    assert Counter(found.scored) == {
        (("a\n",), False): 1,
        (("a\n", "b\n"), False): 1,
        (("a\n", "b\n", "c"), True): 1,
    }, "equal ones are scored once"


def uneven(call: Call) -> Reply:
    """Sample i ends after i more lines."""
    done = call.request.prefix.count("\n")
    first = int(call.request.prefix[:1] or call.index)
    return Reply(f"{first}") if done >= first else Reply(f"{first}", "stop_string", "\n")


async def test_what_is_finished_is_never_extended_nor_scored_again() -> None:
    found = await ran(Chains(n=4), models(uneven))
    assert found.texts == ["0", "1\n1", "2\n2\n2", "3\n3\n3\n3"]
    assert len(found.calls) == 1 + 2 + 3 + 4
    assert not any(call.request.prefix in found.texts for call in found.calls)
    assert set(Counter(found.scored).values()) == {1}
    assert sorted("".join(steps) for steps, finished in found.scored if finished) == sorted(found.texts)


async def test_all_new_partial_answers_are_scored_in_shared_batches() -> None:
    found = await ran(Chains(n=8), models(apart))
    sizes = [len(request.replies) for request in found.reward.scored]  # type: ignore[attr-defined]
    assert sizes == [8, 8, 8]


async def test_two_problems_share_the_server_and_never_see_each_other() -> None:
    other = Problem.ask("another question", id="q")
    stage = Chains(n=4)
    named = models(apart, latency=0.05)
    async with Session(models=named) as session, asyncio.TaskGroup() as group:
        first = group.create_task(session.solve(stage, PROBLEM))
        second = group.create_task(session.solve(stage, other))
        await asyncio.wait([first, second])
        writer = session.caller("default").backend
        assert isinstance(writer, ScriptedBackend)
        assert writer.most_in_flight == 8, "the steps of both are in flight together"
    alone = await ran(stage, models(apart))
    for outcome in (first.result(), second.result()):
        assert [c.text for c in outcome.candidates] == alone.texts
        assert outcome.usage.requests == alone.outcome.usage.requests
    assert {call.request.messages for call in writer.calls if call.problem == "q"} == {other.messages}


# --- judging ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "score", "expected"),
    [
        ("probability", 0.25, 0.25),
        ("logit", math.log(0.25 / 0.75), 0.25),
        ("score", -3.5, -3.5),
    ],
)
async def test_scores_on_every_scale(scale: str, score: float, expected: float) -> None:
    named = models(lines("a", "b"), rewards={"score": lambda text: score, "score_scale": scale})
    found = await ran(Chains(n=1), named)
    (verdict,) = found.outcome.candidates[0].verdicts.values()
    assert verdict.score == pytest.approx(expected)
    assert verdict.scale == ("score" if scale == "score" else "probability")


@pytest.mark.parametrize(
    ("by", "expected"), [("last", 0.04), ("min", 0.02), ("mean", 0.03), ("product", 0.0008)]
)
async def test_every_aggregation_is_of_all_steps(by: Any, expected: float) -> None:
    found = await ran(Chains(n=1, aggregate=by), models(lines("a", "bc"), rewards={"score": length}))
    assert found.values == [pytest.approx({"mean": 0.03, "product": 0.02 * 0.04}.get(by, expected))]


async def test_a_model_that_scores_prefixes_is_asked_for_each_once() -> None:
    named = models(lines("a", "b", "c"), rewards={"scores": "prefix", "max_n": 1})
    found = await ran(Chains(n=1), named)
    assert Counter(found.scored) == {
        (("a\n",), False): 1,
        (("a\n", "b\n"), False): 1,
        (("a\n", "b\n", "c"), True): 1,
    }


def sure(call: Call) -> Reply:
    """Two lines, of which the first is the less likely the later its sample."""
    first = call.request.prefix == ""
    probability = 1 / (call.index + 1) if first else 0.9
    tokens = (TokenLogprob("x", math.log(probability)),)
    return Reply("x", "stop_string" if first else "stop", "\n" if first else None, logprobs=tokens)


async def test_without_a_reward_model_the_writers_own_certainty_judges() -> None:
    found = await ran(Chains(n=3, reward=None, aggregate="min"), models(sure))
    assert found.values == pytest.approx([0.9, 0.5, 1 / 3])
    assert not found.scored and found.outcome.by_model.keys() == {"default"}
    assert all(call.request.sampling.logprobs == 0 for call in found.calls)
    assert all(set(c.verdicts) == {"certainty"} for c in found.outcome.candidates)


@pytest.mark.parametrize("scale", ["score", "logit"])
async def test_a_product_is_of_probabilities_else_refused_before_anything_is_spent(scale: str) -> None:
    """A product of uncalibrated scores has no meaning: of two negative ones it is the higher the worse they are."""
    named = models(lines("a", "b"), rewards={"score": lambda text: -1.0, "score_scale": scale})
    if scale == "logit":
        found = await ran(Chains(n=1, aggregate="product"), named)
        assert found.values == [pytest.approx((1 / (1 + math.e)) ** 2)]
        return
    with pytest.raises(CapabilityError, match="product"):
        await ran(Chains(n=1, aggregate="product"), named)


# --- what is no answer ------------------------------------------------------------------------------


def early(call: Call) -> Reply:
    """Every second answer ends at once; the others would go on for ever."""
    first = call.request.prefix[:1] or str(call.index % 2)
    return Reply("0") if first == "0" else Reply(first, "stop_string", "\n")


def promising(text: str) -> float:
    """The reward model likes those that never end."""
    return 0.9 if text.startswith("1") else 0.4


async def test_a_beginning_that_is_liked_better_is_not_chosen_over_an_answer() -> None:
    search = Chains(n=4, max_steps=3)
    found = await ran(search | BestOf(), models(early, rewards={"score": promising}))
    finishes = {c.text: c.finish for c in found.outcome.candidates}
    assert finishes == {"0": "stop", "1\n1\n1\n": "length"}
    assert found.outcome.answer == "0"
    scores = {c.text: c.score() for c in found.outcome.candidates}
    assert scores == {"0": 0.4, "1\n1\n1\n": None}


async def test_answers_are_as_many_as_there_are_and_each_says_what_its_own_steps_used() -> None:
    """None is repeated to make n of them, and none used an unknown amount."""

    def reply(call: Call) -> Said:
        return RequestRejected("no") if call.index == 1 and not call.request.prefix else apart(call)

    for search in (Chains(n=3), BeamSearch(n=3, m=1)):
        found = await ran(search, models(reply))
        assert len(found.texts) == len(set(found.texts)) == 2
        each = [c.usage.completion_tokens for c in found.outcome.candidates]
        assert min(each) > 0 and sum(each) == found.outcome.by_model["default"].completion_tokens


async def test_where_nothing_is_an_answer_the_beginning_that_is_liked_best_is_chosen() -> None:
    named = models(lambda call: Reply(str(call.index), "length"), rewards={"score": lambda t: int(t[0]) / 10})
    found = await ran(Chains(n=4) | BestOf(), named)
    assert found.outcome.answer == "3" and found.values == [0.0, 0.1, 0.2, 0.3]


async def test_what_was_cut_off_passes_no_threshold() -> None:
    for reply, answer in ((lambda call: Reply("a", "length"), None), (lambda call: Reply("a"), "a")):
        named = models(reply, rewards={"score": lambda text: 0.9})
        verify = Verify(verifier=table({"a": (True, None)}))
        found = await ran(Chains(n=2, threshold=0.5) | verify | FirstPassing(), named)
        assert found.outcome.answer == answer


async def test_an_empty_reply_is_no_answer() -> None:
    def reply(call: Call) -> Reply:
        return Reply("" if call.index < 2 else "x")

    def score(text: str) -> float:
        return 0.1 if text else 0.9  # a reward model that has never seen an empty answer

    found = await ran(Chains(n=4) | BestOf(), models(reply, rewards={"score": score}))
    assert found.outcome.answer == "x"
    beams = await ran(BeamSearch(n=4, m=2) | BestOf(), models(reply, rewards={"score": score}))
    assert beams.outcome.answer == "x" and beams.texts == ["x", "x", "", ""]


# --- roll-outs --------------------------------------------------------------------------------------


async def test_a_step_is_judged_by_a_greedy_roll_out_that_is_no_part_of_the_answer() -> None:
    found = await ran(
        Chains(n=2, ahead=2, max_steps=9, temperature=0.8), models(lines("a", "b", "c", "d", "e"))
    )
    assert found.texts == ["a\nb\nc\nd\ne"] * 2
    judged = [steps for steps, _ in found.scored]
    assert judged[0] == ("a\n", "b\n", "c\n") and judged[-1] == ("a\n", "b\n", "c\n", "d\n", "e")
    greedy = [call for call in found.calls if call.request.sampling.temperature == 0]
    assert Counter(call.request.prefix for call in greedy) == {
        "a\n": 1,
        "a\nb\n": 1,
        "a\nb\nc\n": 1,
        "a\nb\nc\nd\n": 1,
    }, "the likeliest step after a beginning is the same whenever it is asked for"
    assert {c.request.sampling.temperature for c in found.calls} == {0.0, 0.8}


async def test_a_roll_out_to_the_end_is_one_call_with_room_for_all_steps() -> None:
    stage = Chains(n=1, ahead=None, greedy=False, max_tokens=10, max_steps=6, temperature=0.8)
    found = await ran(stage, models(lines("a", "b", "c")))
    ends = [c for c in found.calls if "\n" not in c.request.sampling.stop]
    assert [(c.request.prefix, c.request.sampling.max_tokens) for c in ends] == [("a\n", 50), ("a\nb\n", 40)]
    assert {c.request.sampling.temperature for c in found.calls} == {0.8}
    assert found.scored[0] == (("a\n", "b\n", "c"), True)
    assert len(found.calls) == 3 + 2, "what is finished is not rolled out"


async def test_roll_outs_that_are_sampled_are_independent_though_their_beginnings_are_equal() -> None:
    def reply(call: Call) -> Reply:
        if "\n" not in call.request.sampling.stop:
            return Reply(f"end {call.index}")
        return Reply("a", "stop_string", "\n")

    found = await ran(Chains(n=3, ahead=None, greedy=False, max_steps=2), models(reply))
    judged = [steps for steps, finished in found.scored if finished and len(steps) == 2 and "end" in steps[1]]
    assert sorted(judged) == [("a\n", f"end {i}") for i in range(3)]


async def test_a_roll_out_that_fails_leaves_the_step_judged_as_far_as_it_came() -> None:
    def reply(call: Call) -> Said:
        if call.request.sampling.temperature == 0:
            return RequestRejected("no")
        return apart(call)

    found = await ran(Chains(n=2, ahead=3), models(reply))
    assert len(found.texts) == 2 and None not in found.values


# --- refusals, before anything is spent -------------------------------------------------------------


class Lacking(Scripted):
    """A server that lacks something."""

    lacks: tuple[str, ...] = ("prefix",)

    def connect(self) -> ScriptedBackend:
        backend = super().connect()
        backend.__dict__["capabilities"] = Capabilities(
            **{**backend.capabilities.model_dump(), **dict.fromkeys(self.lacks, False)}
        )
        return backend


@pytest.mark.parametrize(
    ("lacks", "settings", "match"),
    [
        ("prefix", {}, "continue a given beginning"),
        ("tells_stop", {}, "does not say which stop string"),
        ("logprobs", {"reward": None}, "return log-probabilities"),
    ],
)
async def test_a_server_that_cannot_do_it_is_refused_before_anything_is_spent(
    lacks: str, settings: dict[str, Any], match: str
) -> None:
    named = {**models(apart), "default": Lacking(reply=apart, identity="lacking", lacks=(lacks,))}
    async with Session(models=named) as session:
        with pytest.raises(CapabilityError, match=match):
            await session.solve(Chains(**settings), PROBLEM)
        assert session.caller("default").backend.calls == []  # type: ignore[attr-defined]


async def test_a_server_that_tells_no_stop_strings_can_write_steps_of_tokens() -> None:
    writer = Lacking(reply=lambda call: Reply("ab"), identity="lacking", lacks=("tells_stop",))
    found = await ran(Chains(n=1, steps=Tokens(tokens=9)), {**models(apart), "default": writer})
    assert found.texts == ["ab"]


@pytest.mark.parametrize("rewards", [{"scores": "outcome"}, {"score": None, "reply": apart}])
async def test_a_reward_model_that_scores_no_beginnings_is_refused_before_anything_is_spent(
    rewards: dict[str, Any],
) -> None:
    async with Session(models=models(apart, rewards=rewards)) as session:
        with pytest.raises(CapabilityError, match=r"cannot score"):
            await session.solve(Chains(), PROBLEM)
        assert session.caller("default").backend.calls == []  # type: ignore[attr-defined]


async def test_a_budget_in_money_refuses_a_writer_or_a_reward_model_without_a_price() -> None:
    async with Session(models=models(apart), budget=Budgets(run=Budget(usd=1))) as session:
        with pytest.raises(UnpricedModel):
            await session.solve(Chains(), PROBLEM)
        assert session.caller("default").backend.calls == []  # type: ignore[attr-defined]


# --- failures ---------------------------------------------------------------------------------------


async def test_a_call_that_fails_ends_that_continuation_alone() -> None:
    def reply(call: Call) -> Said:
        if call.request.prefix == "01\n":
            return RequestRejected("too long")
        return apart(call)

    found = await ran(Chains(n=3), models(reply))
    assert found.texts == ["00\n10\n20", "02\n10\n20", "01\n"], "the one that failed is as far as it came"
    assert [c.finish for c in found.outcome.candidates] == ["stop", "stop", "length"]
    assert [str(f.error) for f in found.outcome.failures] == ["too long"]


async def test_where_every_call_fails_the_search_ends_with_what_it_has() -> None:
    def reply(call: Call) -> Said:
        return RequestRejected("no") if call.request.prefix else apart(call)

    found = await ran(Chains(n=3), models(reply))
    assert found.texts == ["00\n", "01\n", "02\n"]
    with pytest.raises(AllCandidatesFailed):
        await ran(Chains(n=3), models(lambda call: RequestRejected("no")))


async def test_a_round_in_which_everything_fails_does_not_end_a_search_that_has_other_ways() -> None:
    class OneByOne(Chains):
        """It asks for one beginning at a time."""

        def ask(self, state: Grown) -> Sequence[Wish]:
            return [Wish(partial, count) for partial, count in state.live[:1]]

        def tell(self, state: Grown, grown: Sequence[Sequence[Partial]]) -> Grown:
            after = super().tell(Grown(state.live[:1], state.ended, state.barren), grown)
            return Grown((*after.live, *state.live[1:]), after.ended, after.barren)

    def reply(call: Call) -> Said:
        return RequestRejected("no") if call.request.prefix == "00\n" else apart(call)

    found = await ran(OneByOne(n=3), models(reply))
    assert found.texts == ["01\n10\n20", "02\n10\n20", "00\n"]


async def test_a_search_that_asks_for_a_dead_beginning_for_ever_is_ended() -> None:
    class Stubborn(Chains):
        """It does not take no for an answer."""

        def tell(self, state: Grown, grown: Sequence[Sequence[Partial]]) -> Grown:
            return super().tell(state, grown) if any(grown) else state

    found = await ran(
        Stubborn(n=1), models(lambda call: RequestRejected("no") if call.request.prefix else apart(call))
    )
    assert found.texts == ["00\n"] and len(found.calls) < 20


async def test_what_cannot_be_scored_goes_on_without_a_value() -> None:
    def score(text: str) -> float:
        if text.startswith("01"):
            raise RequestRejected("not this one")
        return 0.5

    found = await ran(Chains(n=3), models(apart, rewards={"score": score}))
    assert found.texts == ["00\n10\n20", "01\n10\n20", "02\n10\n20"]
    assert found.values == [0.5, None, 0.5]
    assert len(found.outcome.failures) == 3, "each step of it"


# --- budgets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 30, 90, 110, 140])
@pytest.mark.parametrize("ahead", [0, 1])
async def test_a_token_budget_holds_and_the_outcome_says_that_it_ended_the_search(
    tokens: int, ahead: int
) -> None:
    stage = Chains(n=8, ahead=ahead, max_tokens=4)
    budget = Budgets(problem=Budget(tokens=tokens))
    found = await ran(stage, models(apart, latency=0.001, max_n=3), budget=budget)
    assert found.outcome.usage.tokens <= tokens
    assert (found.outcome.stopped, found.outcome.exhausted) == ("budget", "problem.tokens")
    whole = await ran(stage, models(apart, latency=0.001, max_n=3))
    assert whole.outcome.stopped == "complete" and whole.outcome.usage.tokens > tokens
    if tokens >= 110:
        assert found.texts, "what there is leaves"


def test_a_deadline_ends_the_search_with_what_it_has() -> None:
    def reply(call: Call) -> Reply:
        return Reply("a", "stop_string", "\n", latency=600 if call.request.prefix else 0.0)

    searching = ran(
        Chains(n=2), models(reply), budget=Budgets(problem=Budget(seconds=1)), store=InstantStore()
    )
    found = patiently(searching)
    assert (found.texts, found.outcome.stopped) == (["a\n", "a\n"], "deadline")


# --- beside other stages, again, and cut off --------------------------------------------------------


async def test_the_first_passing_answer_of_a_search_is_chosen() -> None:
    verifier = table({"01\n10\n20": (True, None), "02\n10\n20": (True, None)})
    for threshold, answer in ((0.08, "01\n10\n20"), (0.09, None), (None, None)):
        search = Chains(n=4, threshold=threshold)
        found = await ran(search | Verify(verifier=verifier) | FirstPassing(), models(apart))
        assert found.outcome.answer == answer


def seen(outcome: Outcome) -> Any:
    return (
        [(c.id, c.text, c.steps, c.finish, c.usage, dict(c.verdicts)) for c in outcome.candidates],
        outcome.usage,
        outcome.stopped,
    )


@pytest.mark.parametrize("stage", [Chains(n=3), Chains(n=3, ahead=1), BeamSearch(n=4, m=2, lookahead=1)])
@pytest.mark.parametrize("tokens", [None, 4400])
async def test_run_again_from_the_store_nothing_is_asked_and_the_outcome_is_the_same(
    stage: Stepping, tokens: int | None, tmp_path: Path
) -> None:
    budget = Budgets(problem=Budget(tokens=tokens))
    settings: dict[str, Any] = {"store": tmp_path / "s.sqlite", "budget": budget, "seed": 3}
    first = await ran(stage, models(apart, latency=0.002), **settings)
    again = await ran(stage, models(apart, latency=0.001), **settings)
    assert first.calls and not again.calls and not again.scored
    assert seen(first.outcome) == seen(again.outcome)
    assert again.outcome.fresh.requests == 0


@pytest.mark.parametrize("after", [1, 7, 11, 20])
async def test_a_cancelled_search_goes_on_where_it_was(after: int, tmp_path: Path) -> None:
    stage = BeamSearch(n=4, m=2)
    begun = 0
    reached = asyncio.Event()

    def reply(call: Call) -> Reply:
        nonlocal begun
        begun += 1
        if begun == after:
            reached.set()
        return apart(call)

    settings: dict[str, Any] = {"store": tmp_path / "s.sqlite", "seed": 3}
    async with Session(models=models(reply, latency=0.01), **settings) as session:
        task = asyncio.create_task(session.solve(stage, PROBLEM))
        if after <= 12:
            await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        stored = {pool.id: pool.samples for pool in await session.store.summaries()}
    rest = await ran(stage, models(apart), **settings)
    whole = await ran(stage, models(apart), seed=3)
    assert rest.texts == whole.texts and rest.values == whole.values
    assert len(rest.calls) == len(whole.calls) - sum(stored.values()), (
        "what was paid for is not paid for again"
    )


# --- over HTTP --------------------------------------------------------------------------------------


def served(asked: Asked) -> Answer:
    """Three lines, by what is written and the seed; as vLLM tells what ended them."""
    messages = asked.body["messages"]
    prefix = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    assert asked.body.get("continue_final_message", False) is bool(prefix)
    assert asked.body["stop"] == ["\n"]
    text = f"{prefix.count(chr(10))}{asked.body['seed'] % 10}"
    if prefix.count("\n") == 2:
        return Answer(text, delay=0.05, extra={"stop_reason": None})
    return Answer(text, delay=0.05, extra={"stop_reason": "\n"})


async def test_over_http_the_beginnings_of_two_problems_are_at_the_server_together() -> None:
    async with StubServer(served) as server:
        writer = OpenAI(model="m", base_url=server.url, server="vllm", samples_per_request=1)
        named: dict[str, Model] = {**models(apart), "default": writer}
        async with Session(models=named, seed=1) as session:
            problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(2)]
            outcomes = await asyncio.gather(*(session.solve(Chains(n=4), p) for p in problems))
        assert server.most_in_flight == 8
        assert len(server.asked) == 24
    for outcome in outcomes:
        assert [len(c.steps) for c in outcome.candidates] == [3] * 4
        assert all(c.finish == "stop" for c in outcome.candidates)
        assert outcome.by_model["default"].requests == 12


class TestChains(StageCases):
    def make_stage(self) -> BeamSearch:
        return BeamSearch(n=2, m=1, steps=Tokens(tokens=3), until="x+", aggregate="min", max_steps=4)

    def models(self) -> Mapping[str, Model]:
        return {"reward": Scripted(score=length, identity="reward")}
