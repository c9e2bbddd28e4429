"""Asking until a reply can be read: what is asked again, what it costs, what is told when nothing was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import ConfigDict

from archon.backends.base import Sampling
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.errors import AuthenticationFailed, RequestRejected, StageFailed, UnknownName
from archon.problem import Problem
from archon.prompting import (
    Asked,
    Said,
    Unread,
    ask,
    ask_several,
    asked,
    chat,
    choice_form,
    mark_of,
    read_choice,
)
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Stage, Stream

PROBLEM = Problem.ask("Which?", id="p")
MARK = mark_of("Which?")
FORM = choice_form(3, MARK)
QUESTION = Asked("default", chat(f"Which of three? {FORM}"), form=FORM)
CHOICE = f"Choice {MARK}: 2"
read = partial(read_choice, n=3, mark=MARK)


class Does(Stage):
    """Does one thing with its run."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    takes = False
    work: Callable[..., Any]

    async def run(self, problem: Problem, candidates: Stream, run: Any) -> Candidates:
        for candidate in await self.work(run):
            yield candidate


async def does(
    work: Callable[..., Any], reply: Any, *, store: Any = None, requests: int | None = None
) -> tuple[Any, Outcome]:
    """What the work returns, and the outcome, in which the reply's script was called."""
    found = []

    async def noted(run: Any) -> tuple[Candidate, ...]:
        found.append(await work(run))
        return (Candidate("made#0", "made", "does"),)

    budget = Budgets(run=Budget(requests=requests))
    models = Scripted(reply=reply, identity="asked")
    async with Session(models=models, store=store, budget=budget) as session:
        outcome = await session.solve(Does(work=noted), PROBLEM)
    return (found[0] if found else None), outcome


def one(**fields: Any) -> Callable[..., Any]:
    return lambda run: ask(run, QUESTION._replace(**fields), read)


def script(*replies: str | Reply) -> tuple[Callable[[Call], str | Reply], list[Call]]:
    """A model that says one thing after the other, and what it was asked."""
    calls: list[Call] = []

    def reply(call: Call) -> str | Reply:
        calls.append(call)
        return replies[len(calls) - 1]

    return reply, calls


async def test_a_reply_that_can_be_read_costs_one_call() -> None:
    reply, calls = script(CHOICE)
    said, outcome = await does(one(), reply)
    assert (said.value, said.text, said.why, said.read) == (1, CHOICE, "", True)
    assert [c.id for c in said.candidates] == ["does#0"]
    assert outcome.usage.requests == len(calls) == 1
    assert calls[0].request.messages == QUESTION.messages


async def test_what_cannot_be_read_is_asked_again_by_a_next_turn_that_says_why() -> None:
    reply, calls = script("The second.", CHOICE)
    said, outcome = await does(one(), reply)
    assert (said.value, said.text, said.why) == (1, CHOICE, "")
    assert [c.text for c in said.candidates] == ["The second.", CHOICE]
    assert len({c.id for c in said.candidates}) == 2 and outcome.usage.requests == 2
    *before, answer, told = calls[1].request.messages
    assert tuple(before) == QUESTION.messages
    assert (answer.role, answer.content) == ("assistant", "The second.")
    assert told.role == "user" and "its last line is not" in told.content and told.content.endswith(FORM)
    assert "\n" not in told.content


@pytest.mark.parametrize("again", [0, 1, 3])
async def test_it_is_asked_again_so_often_and_no_more(again: int) -> None:
    reply, calls = script(*["no", "nor", "never", "nothing"])
    said, outcome = await does(one(again=again), reply)
    assert (said.value, said.read) == (None, False)
    assert said.text == said.candidates[-1].text and "last line" in said.why
    assert outcome.usage.requests == len(calls) == len(said.candidates) == 1 + again
    assert asked(Count(1, 1), again) == Count(1, len(calls))


async def test_a_reply_that_was_cut_off_is_asked_again_even_if_it_reads_well() -> None:
    reply, calls = script(Reply(CHOICE, finish="length"), f"Choice {MARK}: 3")
    said, _ = await does(one(), reply)
    assert said.value == 2
    assert "cut off" in calls[1].text
    reply, _ = script(Reply(CHOICE, finish="length"))
    said, _ = await does(one(cut_off=True), reply)
    assert said.value == 1


async def test_a_long_reply_is_shown_again_by_both_its_ends() -> None:
    reply, calls = script("a" * 5_000 + "b" * 5_000, CHOICE)
    await does(one(), reply)
    shown = calls[1].request.messages[-2].content
    assert len(shown) < 4_100 and shown.startswith("a" * 1_000) and shown.endswith("b" * 3_000)


@pytest.mark.parametrize("text", ["", " \n", "\ud800", "\0"])
async def test_an_odd_reply_can_be_shown_again(text: str) -> None:
    reply, calls = script(text, CHOICE)
    said, _ = await does(one(), reply)
    assert said.value == 1
    assert calls[1].request.messages[-2].content.encode().strip()


async def test_where_the_budget_has_no_call_there_is_no_reply() -> None:
    said, outcome = await does(one(), lambda call: CHOICE, requests=0)
    assert said == Said(None, "", "there is no reply", ()) and not said.read
    assert outcome.stopped == "budget"


async def test_where_the_budget_ends_what_was_said_last_is_kept() -> None:
    said, outcome = await does(one(again=5), lambda call: "no", requests=2)
    assert (said.value, said.text) == (None, "no") and "last line" in said.why
    assert len(said.candidates) == outcome.usage.requests == 2 and outcome.stopped == "budget"


async def test_a_call_that_fails_is_no_reply_and_the_outcome_says_why() -> None:
    def reply(call: Call) -> Exception:
        return RequestRejected("too long", status=400)

    said, outcome = await does(one(), reply)
    assert said.candidates == () and not said.read
    assert [type(f.error) for f in outcome.failures] == [RequestRejected]


async def test_what_ends_the_run_is_raised() -> None:
    with pytest.raises(AuthenticationFailed):
        await does(one(), lambda call: AuthenticationFailed("no key", status=401))
    with pytest.raises(UnknownName, match="nobody"):
        async with Session(models={"default": Scripted(replies={})}) as session:
            await session.solve(Does(work=one(model="nobody")), PROBLEM)


async def test_equal_questions_are_asked_once_and_draws_apart() -> None:
    async def work(run: Run) -> list[Said[int]]:
        questions = [QUESTION, QUESTION, QUESTION._replace(draw=1), QUESTION._replace(draw=2)]
        return await run.gather(*(ask(run, question, read) for question in questions))

    said, outcome = await does(work, lambda call: f"Choice {MARK}: {call.index + 1}")
    assert [one.value for one in said] == [0, 0, 1, 2]
    assert outcome.usage.requests == 3


async def test_what_is_sampled_otherwise_is_another_question() -> None:
    async def work(run: Run) -> list[Said[int]]:
        samplings = [Sampling(), Sampling(temperature=0.5), Sampling(seed=7)]
        return [await ask(run, QUESTION._replace(sampling=sampling), read) for sampling in samplings]

    reply, calls = script(CHOICE, CHOICE, CHOICE)
    await does(work, reply)
    assert [call.request.sampling.temperature for call in calls] == [None, 0.5, None]
    assert calls[2].request.sampling.seed == 7


async def test_asked_again_no_stored_sample_comes_twice(tmp_path: Any) -> None:
    def reply(call: Call) -> str:
        return CHOICE if len(call.request.messages) == 6 else f"no {call.index}"

    store = tmp_path / "store.sqlite"
    said, first = await does(one(again=2), reply, store=store)
    assert [c.text for c in said.candidates] == ["no 0", "no 0", CHOICE] and said.value == 1
    same, again = await does(one(again=2), reply, store=store)
    assert same == said and again.fresh.requests == 0 and again.usage == first.usage == first.fresh


async def test_two_that_say_the_same_nonsense_are_asked_again_apart() -> None:
    def reply(call: Call) -> str:
        return "no" if len(call.request.messages) == 2 else f"Choice {MARK}: {call.index + 1}"

    said, outcome = await does(lambda run: ask_several(run, QUESTION, read, 3), reply)
    assert [one.value for one in said] == [0, 1, 2], "each an independent draw of the same second question"
    assert outcome.usage.requests == 6


async def test_several_are_drawn_together_and_each_is_asked_again_by_itself() -> None:
    def reply(call: Call) -> Reply:
        if len(call.request.messages) > 2:
            return Reply(f"Choice {MARK}: 3")
        return Reply("no" if call.index == 1 else CHOICE, latency=0.02 if call.index == 0 else 0.0)

    said, outcome = await does(lambda run: ask_several(run, QUESTION, read, 3), reply)
    assert [one.value for one in said] == [1, 2, 1], "in the order of their draws"
    assert outcome.usage.requests == 4


async def test_of_several_those_without_a_reply_say_so() -> None:
    said, _ = await does(lambda run: ask_several(run, QUESTION, read, 4), lambda call: CHOICE, requests=3)
    assert len(said) == 4 and sorted(len(one.candidates) for one in said) == [0, 1, 1, 1]
    said, _ = await does(lambda run: ask_several(run, QUESTION, read, 0), lambda call: CHOICE)
    assert said == ()


async def test_the_replies_have_the_parents_of_the_question() -> None:
    parent = Candidate("sample#3", "x")
    reply, _ = script("no", CHOICE)
    said, _ = await does(one(parents=(parent,)), reply)
    assert [c.parents for c in said.candidates] == [("sample#3",)] * 2


async def test_a_reader_s_own_mistake_is_not_hidden() -> None:
    def broken(text: str) -> int:
        raise ZeroDivisionError

    with pytest.raises(StageFailed):
        await does(lambda run: ask(run, QUESTION, broken), lambda call: CHOICE)


async def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    async def work(run: Run) -> Said[int]:
        impatient = run.spawn(ask(run, QUESTION, read))
        patient = run.spawn(ask(run, QUESTION, read))
        await asyncio.sleep(0)
        impatient.cancel()
        return await patient

    said, outcome = await does(work, lambda call: Reply(CHOICE, latency=0.01))
    assert said.value == 1 and outcome.usage.requests == 1


@pytest.mark.parametrize(
    ("calls", "again", "planned"),
    [
        (Count(2, 4), 0, Count(2, 4)),
        (Count(2, 4), 2, Count(2, 12)),
        (Count(0, 0), 3, Count(0, 0)),
        (Count(1, None), 1, Count(1, None)),
    ],
)
def test_only_the_upper_bound_of_a_plan_grows(calls: Count, again: int, planned: Count) -> None:
    assert asked(calls, again) == planned


def test_unread_says_one_line() -> None:
    with pytest.raises(Unread) as unread:
        read("")
    assert str(unread.value) == "it is empty"
