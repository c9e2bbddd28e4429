"""Thinking budgets: what is written in the model's place, how many tokens that leaves, and what every call costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Tokens
from archon.backends.openai import OpenAI
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.errors import AllCandidatesFailed, CapabilityError, RequestRejected
from archon.pipeline import Pipeline
from archon.session import Session
from archon.shelf import ready
from archon.stage import NONE, Count, Stage
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.thinking_budget import ThinkingBudget
from archon.testing import StageCases
from archon.testing.server import Answer, StubServer
from archon.usage import total
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import NUMBER, PROBLEM, ids
from tests.strategies.playing import said_of, texts

TOKEN = re.compile(r"\s*\S+|\s+$")
"""A token is a word with the white space before it."""

OWN = Scripted().max_tokens
"""The limit of a model whose call is given none."""
Mind = Callable[[str, Call], str]
"""What a model would write on a given beginning, as if nothing ever stopped it."""


def tokens(text: str) -> int:
    return len(TOKEN.findall(text))


def thinker(prefix: str, call: Call) -> str:
    """Thinks four words, and two more each time it is made to; answers by how often it was, and its index."""
    thought, mark, _ = prefix.partition("</think>")
    if mark:
        return f" {40 + thought.count('Wait')}\nSTOP here"
    if prefix.endswith("Wait"):
        return ", no: STOP.\n</think>\n\nat once"
    written = thought.removeprefix("<think>\n").split()
    return " ".join(["one", "two", "three", "four"][len(written) :]) + "\n</think>\n\nat once"


class Server:
    """A model that continues what it is given, and obeys stop strings and limits to the token, as servers do: what it
    reports counts the stop string."""

    def __init__(
        self, mind: Mind = thinker, *, stops: bool = True, latency: Callable[[Call], float] | None = None
    ):
        self.calls: list[Call] = []
        self.replies: list[Reply] = []
        self._mind = mind
        self._stops = stops
        self._latency = latency or (lambda call: 1.0)

    @property
    def model(self) -> Scripted:
        return Scripted(reply=self.reply, identity="thinker", max_concurrency=600)

    def reply(self, call: Call) -> Reply:
        self.calls.append(call)
        sampling = call.request.sampling
        text = self._mind(call.request.prefix, call)
        at = min((text.find(s) for s in sampling.stop if s in text), default=-1) if self._stops else -1
        stop = next((s for s in sampling.stop if at >= 0 and text.startswith(s, at)), None)
        until = text if stop is None else text[: at + len(stop)]
        words = TOKEN.findall(until)
        limit = sampling.max_tokens
        if limit is not None and len(words) > limit:
            reply = Reply("".join(words[:limit]), "length", tokens=Tokens(7, completion=limit))
        else:
            text = until if stop is None else until.removesuffix(stop)
            finish: Any = "stop" if stop is None else "stop_string"
            reply = Reply(text, finish, stop, tokens=Tokens(7, completion=len(words)))
        self.replies.append(reply)
        return Reply(**{**vars_of(reply), "latency": self._latency(call)})

    @property
    def prefixes(self) -> list[str]:
        return [call.request.prefix for call in self.calls]

    @property
    def limits(self) -> list[int | None]:
        return [call.request.sampling.max_tokens for call in self.calls]


def vars_of(reply: Reply) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in reply.__dataclass_fields__}


def think(
    stage: Stage | Pipeline,
    server: Server,
    *,
    budget: Budget | None = None,
    store: Path | None = None,
    problem: Any = PROBLEM,
) -> Outcome:
    """The outcome, on a clock that jumps; the books must balance."""

    async def work() -> Outcome:
        kept = InstantStore(store)
        budgets = Budgets(problem=budget or Budget())
        async with Session(models=server.model, budget=budgets, store=kept) as session:
            outcome = await session.solve(stage, problem)
        await kept.close()
        return outcome

    return patiently(work())


def only(outcome: Outcome) -> Candidate:
    (answer,) = outcome.final
    return answer


# --- cap and extend ---------------------------------------------------------------------------------


def test_thinking_that_ends_by_itself_is_closed_and_the_answer_follows() -> None:
    server = Server()
    answer = only(think(ThinkingBudget(thinking=100, max_tokens=9), server))
    assert server.prefixes == ["<think>\n", "<think>\none two three four\n</think>"]
    assert server.limits == [100, 9]
    assert [call.request.sampling.stop for call in server.calls] == [("</think>",), ()]
    assert (answer.text, answer.reasoning, answer.finish) == ("40\nSTOP here", "one two three four\n", "stop")
    assert answer.usage.completion_tokens == 5 + 3 and answer.usage.requests == 2


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_thinking_at_its_limit_is_closed_in_the_model_s_place(limit: int) -> None:
    server = Server()
    answer = only(think(ThinkingBudget(thinking=limit, waits=3), server))
    thought = " ".join(["one", "two", "three", "four"][:limit])
    assert server.prefixes == ["<think>\n", f"<think>\n{thought}\n</think>\n\nFinal answer:"]
    assert (answer.text, answer.reasoning) == ("Final answer: 40\nSTOP here", thought)
    assert answer.usage.completion_tokens == limit + 3


@pytest.mark.parametrize("waits", range(5))
def test_thinking_that_ends_is_made_to_go_on_so_many_times(waits: int) -> None:
    server = Server()
    answer = only(think(ThinkingBudget(thinking=100, waits=waits), server))
    further = "".join("Wait, no: STOP.\n" for _ in range(waits))
    assert len(server.calls) == 2 + waits
    assert answer.reasoning == f"one two three four\n{further}"
    assert server.prefixes[-1] == f"<think>\n{answer.reasoning}</think>"
    assert answer.text == f"{40 + waits}\nSTOP here"
    assert server.limits == [100, *(95 - 4 * i for i in range(waits)), OWN]
    assert answer.usage.completion_tokens == 5 + 4 * waits + 3


@pytest.mark.parametrize(
    ("limit", "calls", "spent", "forced"),
    [
        (5, 2, 5, False),  # ended with its last token: nothing is left to go on with
        (6, 3, 6, True),
        (7, 3, 7, True),
        (8, 3, 8, True),
        (9, 3, 9, False),
        (10, 4, 10, True),
        (13, 4, 13, False),
        (100, 4, 13, False),
    ],
)
def test_what_goes_on_has_the_tokens_that_are_left(limit: int, calls: int, spent: int, forced: bool) -> None:
    server = Server()
    answer = only(think(ThinkingBudget(thinking=limit, waits=2), server))
    assert len(server.calls) == calls
    thought = [reply.tokens.completion for reply in server.replies[:-1] if reply.tokens]
    assert sum(thought) == spent <= limit
    assert answer.text.startswith("Final answer:") is forced
    for given, used in zip(server.limits, [0, *thought], strict=False):
        limit -= used
        assert given in (limit, OWN)


def test_without_a_limit_every_call_has_the_model_s_own() -> None:
    server = Server()
    think(ThinkingBudget(thinking=None, waits=1), server)
    assert server.limits == [OWN] * 3


def test_thinking_may_be_empty() -> None:
    server = Server(lambda prefix, call: "" if "</think>" in prefix else "</think>\n\n7")
    answer = only(think(ThinkingBudget(), server))
    assert server.prefixes == ["<think>\n", "<think>\n</think>"]
    assert (answer.text, answer.reasoning) == ("", "")
    server = Server(lambda prefix, call: " 7" if "</think>" in prefix else "</think>\n\n7")
    answer = only(think(ThinkingBudget(waits=2), server))
    assert server.prefixes[1:] == ["<think>\nWait", "<think>\nWait\nWait", "<think>\nWait\nWait</think>"]
    assert (answer.text, answer.reasoning) == ("7", "Wait\nWait")


def test_stop_strings_end_the_answer_and_not_the_thinking() -> None:
    server = Server()
    answer = only(think(ThinkingBudget(waits=1, stop=("STOP",)), server))
    assert [call.request.sampling.stop for call in server.calls] == [("</think>",)] * 2 + [("STOP",)]
    assert "STOP" in answer.reasoning and (answer.text, answer.finish) == ("41\n", "stop_string")
    assert answer.stop == "STOP"


def test_the_marks_and_words_are_data() -> None:
    server = Server(lambda prefix, call: " it is" if "<end>" in prefix else "hm <end> x")
    stage = ThinkingBudget(open="", close="<end>", wait="But", waits=1, cue="So", thinking=3, system="s")
    answer = only(think(stage, server))
    assert server.prefixes == ["", "hm But", "hm Buthm\n<end>\n\nSo"]
    assert [m.role for m in server.calls[0].request.messages] == ["system", "user"]
    assert (answer.reasoning, answer.text) == ("hm Buthm", "So it is")
    capped = Server(lambda prefix, call: "x y z")
    assert only(think(ThinkingBudget(thinking=2, cue=""), capped)).text == "x y z"
    assert capped.prefixes == ["<think>\n", "<think>\nx y\n</think>"]


# --- servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [5, 6, 100])
def test_a_server_that_does_not_stop_at_the_mark_is_cut_off_there(limit: int) -> None:
    server = Server(stops=False)
    answer = only(think(ThinkingBudget(thinking=limit), server))
    assert answer.reasoning == "one two three four\n" and answer.text == "40\nSTOP here"
    assert server.prefixes[1] == "<think>\none two three four\n</think>"


def test_a_model_that_ends_its_reply_in_the_thinking_has_ended_it() -> None:
    server = Server(
        lambda prefix, call: " 5" if "</think>" in prefix else "done" + " more" * prefix.count("Wait")
    )
    answer = only(think(ThinkingBudget(waits=1), server))
    assert server.prefixes[1:] == ["<think>\ndone\nWait", "<think>\ndone\nWaitdone more</think>"]
    assert answer.text == "5"


def test_marks_may_bring_their_own_white_space() -> None:
    server = Server(lambda prefix, call: " it is" if "<end>" in prefix else "x y z")
    stage = ThinkingBudget(close="\n\n<end>", wait=" but", waits=1, thinking=4, cue="")
    assert only(think(stage, server)).text == "it is"
    assert server.prefixes[1:] == ["<think>\nx y z but", "<think>\nx y z butx\n\n<end>"]


def test_a_server_that_tells_reasoning_apart_is_read() -> None:
    def reply(call: Call) -> Reply:
        if "</think>" in call.request.prefix:
            return Reply("", reasoning=" 42")
        return Reply("", "stop_string", "</think>", reasoning="so and so\n")

    server = Server()
    server.reply = reply  # type: ignore[method-assign]
    answer = only(think(ThinkingBudget(), server))
    assert (answer.text, answer.reasoning) == ("42", "so and so\n")


@pytest.mark.parametrize("opening", ["<think>\n", ""])
async def test_a_server_that_cannot_continue_a_beginning_is_refused_before_anything_is_sent(
    opening: str,
) -> None:
    async with StubServer(lambda asked: Answer("never")) as stub:
        model = OpenAI(model="m", base_url=stub.url, server="generic")
        async with Session(models=model) as session:
            with pytest.raises(CapabilityError, match="continue a given beginning"):
                await session.solve(ThinkingBudget(open=opening), PROBLEM)
        assert stub.asked == []


async def test_the_beginning_is_sent_as_the_server_wants_it() -> None:
    def answer(asked: Any) -> Answer:
        last = asked.body["messages"][-1]
        assert asked.body["continue_final_message"] is True and last["role"] == "assistant"
        return Answer(" 42" if "</think>" in last["content"] else "hm\n", completion_tokens=2)

    async with StubServer(answer) as stub:
        model = OpenAI(model="m", base_url=stub.url, server="vllm")
        stage = ThinkingBudget(thinking=50, extra={"skip_special_tokens": False})
        async with Session(models=model) as session:
            outcome = await session.solve(stage, PROBLEM)
        assert all(asked.body["skip_special_tokens"] is False for asked in stub.asked)
        assert [asked.body["messages"][-1]["content"] for asked in stub.asked] == [
            "<think>\n",
            "<think>\nhm\n</think>",
        ]
    assert outcome.answer == "42" and outcome.usage.completion_tokens == 4


# --- several ----------------------------------------------------------------------------------------


def test_answers_are_independent_also_where_they_thought_the_same() -> None:
    server = Server(lambda prefix, call: f" {call.index}" if "</think>" in prefix else "hm\n</think>")
    outcome = think(ThinkingBudget(n=5), server)
    assert sorted(texts(outcome.final)) == ["0", "1", "2", "3", "4"]
    assert sorted(ids(outcome.final)) == [0, 1, 2, 3, 4]
    assert len(server.calls) == 10


def test_every_token_is_in_the_books_of_one_answer() -> None:
    server = Server()
    outcome = think(ThinkingBudget(n=4, waits=2, thinking=10), server)
    assert outcome.usage.completion_tokens == total(c.usage for c in outcome.final).completion_tokens
    assert outcome.usage.completion_tokens == sum(r.tokens.completion for r in server.replies if r.tokens)
    assert outcome.usage.requests == total(c.usage for c in outcome.final).requests == len(server.calls) == 16
    assert ThinkingBudget(n=4, waits=2).plan(NONE) == (Count(8, 16), Count(4, 4))


def test_each_flows_on_when_it_is_finished_whatever_the_others_do(tmp_path: Path) -> None:
    def mind(prefix: str, call: Call) -> str:
        return f"{call.index} thinks\n</think>" if prefix == "<think>\n" else prefix.split()[1]

    def late(call: Call) -> float:
        return 9.0 if "0 thinks" in call.request.prefix else 1.0

    outcomes = [think(ThinkingBudget(n=3), Server(mind))]
    for _ in range(2):
        server = Server(mind, latency=late)
        outcomes.append(think(ThinkingBudget(n=3), server, store=tmp_path / "s.sqlite"))
    assert said_of(outcomes[0]) == said_of(outcomes[1]) == said_of(outcomes[2])
    assert [(c.id, c.text) for c in outcomes[0].candidates] == [
        (f"thinking_budget#{i}", str(i)) for i in range(3)
    ]
    assert not server.calls, "the second time everything is in the store"


def test_a_vote_follows_as_after_any_sampling() -> None:
    server = Server(
        lambda prefix, call: f" {8 if call.index else 7}" if "</think>" in prefix else "hm</think>"
    )
    outcome = think(ThinkingBudget(n=3) | MajorityVote(), server, problem=NUMBER)
    assert outcome.answer == "8"


# --- what goes wrong --------------------------------------------------------------------------------


def failing(where: str) -> Mind:
    def mind(prefix: str, call: Call) -> str:
        if prefix.endswith(where):
            raise RequestRejected("no", status=400)
        return thinker(prefix, call)

    return mind


def test_where_going_on_fails_the_answer_follows_what_was_thought() -> None:
    outcome = think(ThinkingBudget(waits=2), Server(failing("four\nWait")))
    assert len(outcome.failures) == 1 and only(outcome).reasoning == "one two three four\n"
    assert only(outcome).text == "40\nSTOP here"


@pytest.mark.parametrize("where", ["<think>\n", "</think>"])
def test_without_a_thought_or_an_answer_there_is_no_candidate(where: str) -> None:
    with pytest.raises(AllCandidatesFailed):
        think(ThinkingBudget(), Server(failing(where)))
    one_of_two = Server(lambda prefix, call: failing(where if call.index else "never")(prefix, call))
    outcome = think(ThinkingBudget(n=2), one_of_two)
    assert len(outcome.failures) == len(outcome.final) == 1


def test_what_a_filter_cut_off_is_not_gone_on_from() -> None:
    for after in (0, 1):
        server = Server()
        reply = server.reply

        def filtered(call: Call, after: int = after, server: Server = server, reply: Any = reply) -> Reply:
            if len(server.calls) == after:
                server.calls.append(call)
                return Reply("half", "content_filter")
            return reply(call)  # type: ignore[no-any-return]

        server.reply = filtered  # type: ignore[method-assign]
        answer = only(think(ThinkingBudget(waits=2), server))
        assert (answer.text, answer.finish) == ("", "content_filter") and answer.reasoning.endswith("half")
        assert answer.usage.requests == len(server.calls) == after + 1


@pytest.mark.parametrize("requests", range(13))
@pytest.mark.parametrize("waits", [0, 1, 2])
def test_requests_that_are_limited_end_in_answers(requests: int, waits: int) -> None:
    server = Server()
    outcome = think(ThinkingBudget(n=3, waits=waits), server, budget=Budget(requests=requests))
    whole, left = divmod(requests, 2 + waits)
    expected = [2 + waits] * min(3, whole) + ([left] if whole < 3 and left >= 2 else [])
    assert sorted(c.usage.requests for c in outcome.final) == sorted(expected)
    assert len(server.calls) == sum(expected) <= requests


@pytest.mark.parametrize(("most", "answers"), [(20, 0), (300, 4), (1000, 16)])
def test_tokens_that_are_limited_are_never_exceeded_and_few_are_spent_for_nothing(
    most: int, answers: int
) -> None:
    server = Server()
    stage = ThinkingBudget(n=50, waits=1, thinking=12, max_tokens=5)
    outcome = think(stage, server, budget=Budget(tokens=most))
    assert outcome.usage.tokens <= most
    assert len(outcome.final) >= answers
    assert all(c.text and c.reasoning for c in outcome.final)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"thinking": 0}, "greater than or equal to 1"),
        ({"waits": -1}, "greater than or equal to 0"),
        ({"close": ""}, "at least 1 character"),
        ({"wait": ""}, "at least 1 character"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ThinkingBudget(**fields)


def test_the_ready_pipeline_forces_the_budget() -> None:
    outcome = think(ready("budget_forcing").pipeline, Server(), problem=NUMBER)
    assert outcome.chosen is not None and outcome.chosen.text.startswith("42")
    assert {c.usage.requests for c in outcome.candidates} == {4}


def test_the_larger_limit_of_a_call_is_told_to_estimates() -> None:
    assert ThinkingBudget(thinking=9, max_tokens=4).sampling.max_tokens == 9
    assert ThinkingBudget(thinking=9, max_tokens=40).sampling.max_tokens == 40
    assert ThinkingBudget(thinking=9).sampling.max_tokens is None


class TestThinkingBudget(StageCases):
    def make_stage(self) -> Stage:
        return ThinkingBudget(n=2, thinking=10, waits=1, temperature=0.5, extra={"top_p": 1})

    def models(self) -> Mapping[str, Any]:
        return {"default": Server(latency=lambda call: 0.0).model}

    async def test_one_candidate_is_enough(self) -> None:
        outcome = await self.run_stage(ThinkingBudget(n=1), ())
        assert len(outcome.final) == 1
