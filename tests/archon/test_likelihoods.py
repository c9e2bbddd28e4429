"""How likely given text is: told by backends that can, paid once, remembered, and refused where it cannot be had."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

from archon.backends.base import Backend, LikelihoodRequest, Progress, Sampling
from archon.backends.nano.backend import Nano
from archon.backends.openai import OpenAI
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome, TokenLogprob
from archon.errors import BadScore, CallTimedOut, CapabilityError, ContextOverflow, RequestRejected
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Message, Problem
from archon.run import Likelihood, Run
from archon.session import Session
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.testing import LikelihoodCases

END = -0.25


def likely(before: str, step: str, ends: bool) -> float:
    """A word is the less likely the longer it is and the more stands before it."""
    words = len(before.split())
    logs = [-len(word) / 8 - place / 16 for place, word in enumerate(step.split(), words)]
    return math.fsum(logs) + (END if ends else 0.0)


def write(call: Call) -> Reply:
    text = " ".join(["a", "bcd", "ef"][: 1 + call.index % 3])
    before = call.request.prefix
    tokens = []
    for word in text.split():
        tokens.append(TokenLogprob(word, likely(before, word, False)))
        before += f"{word} "
    return Reply(text, logprobs=(*tokens, TokenLogprob("", END)))


class TestScripted(LikelihoodCases):
    beginnings = ("one\n", "two three\n")
    following = "four\n"

    async def open_backend(self) -> Backend:
        return Scripted(reply=write, likelihood=likely, identity="words", max_n=3).connect()


class TestNano(LikelihoodCases):
    async def open_backend(self) -> Backend:
        return Nano(workers=1).connect()

    async def test_what_it_cannot_read_is_an_error(self) -> None:
        backend: Any = await self.open_backend()
        try:
            asked = self.request([("1" * 3000,)])
            with pytest.raises(ContextOverflow, match="do not fit"):
                await backend.likelihoods(asked, Progress())
            asked = LikelihoodRequest(asked.messages, (("1",),), extra={"min_tokens": 3})
            with pytest.raises(RequestRejected, match="min_tokens"):
                await backend.likelihoods(asked, Progress())
        finally:
            await self.close_backend(backend)

    async def test_raw_text_is_read_as_it_is_completed(self) -> None:
        backend: Any = await self.open_backend()
        try:
            (raw,) = await backend.likelihoods(
                LikelihoodRequest((), (("2+3", "*4"),), False, prompt="1+"), Progress()
            )
            (other,) = await backend.likelihoods(
                LikelihoodRequest((), (("1+2+3", "*4"),), False, prompt=""), Progress()
            )
            assert raw.steps[1] == pytest.approx(other.steps[1], abs=1e-4)
            assert raw.steps[0] > other.steps[0] and raw.counts == (3, 2)
        finally:
            await self.close_backend(backend)


# --- through the run ---------------------------------------------------------------------------------

PROBLEM = Problem.ask("one two three", id="p")
TOLD: list[list[tuple[Likelihood, ...] | None]] = []


class Ask(Stage):
    """A stage that asks how likely replies are and keeps what it is told in `TOLD`."""

    takes: ClassVar[bool] = False

    replies: tuple[tuple[str, ...], ...] = ()
    rounds: int = 1
    finished: bool = True
    system: str | None = None
    extra: bool = False

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        sampling = Sampling(temperature=0.3, extra={"chat_template_kwargs": {"a": 1}}) if self.extra else None
        for _ in range(self.rounds):
            TOLD.append(
                await run.likelihoods(
                    "lm", self.replies, system=self.system, sampling=sampling, finished=self.finished
                )
            )
        yield Candidate(f"{run.stage}#0", "told", run.stage)

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(len(self.replies), len(self.replies)), Count(0, 1))

    @property
    def models(self) -> tuple[str, ...]:
        return ("lm",)


def scripted(**settings: Any) -> Scripted:
    return Scripted(**{"likelihood": likely, "identity": "words", **settings})


async def ask(
    *replies: tuple[str, ...], model: Any = None, problem: Problem = PROBLEM, **settings: Any
) -> tuple[list[tuple[Likelihood, ...] | None], Outcome, Any]:
    names = ("rounds", "finished", "system", "extra")
    stage = {name: settings.pop(name) for name in names if name in settings}
    budget = Budgets(problem=Budget(**settings.pop("limits", {})))
    TOLD.clear()
    async with Session(models={"lm": model or scripted()}, budget=budget, **settings) as session:
        outcome = await session.solve(Pipeline([Ask(replies=replies, **stage)]), problem)
        return TOLD[-1], outcome, session.caller("lm").backend


async def test_each_step_has_its_own_after_those_before_it() -> None:
    told, outcome, backend = await ask(("a b ", "cd "), ("a b ", "", "cd "), ("x",))
    assert told[0] == (Likelihood(-2 / 8 - 1 / 16, 2), Likelihood(-2 / 8 - 2 / 16 + END, 2))
    assert told[1] == (told[0][0], Likelihood(0.0, 0), told[0][1])
    assert told[2] == (Likelihood(-1 / 8 + END, 2),)
    assert isinstance(backend, ScriptedBackend) and len(backend.read) == 3 and not backend.calls
    assert outcome.usage.requests == 3 and outcome.usage.prompt_tokens == 3 * 3 + 3 + 3 + 1


async def test_several_go_in_one_request_and_nothing_is_asked_twice() -> None:
    replies = tuple((f"{n}\n", "x") for n in range(6))
    told, outcome, backend = await ask(*replies, *replies, model=scripted(max_n=4), rounds=3)
    assert told[:6] == told[6:] and [len(request.replies) for request in backend.read] == [4, 2]
    assert outcome.usage.requests == 2


async def test_a_beginning_is_not_a_finished_reply() -> None:
    whole, _, _ = await ask(("a ", "b"))
    begun, _, _ = await ask(("a ", "b"), finished=False)
    assert whole[0] is not None and begun[0] is not None
    assert whole[0][1].logprob == pytest.approx(begun[0][1].logprob + END)


async def test_what_is_replied_to_is_what_a_sample_would_answer() -> None:
    _, _, backend = await ask(("a",), system="be brief", extra=True)
    (request,) = backend.read
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "be brief"),
        ("user", "one two three"),
    ]
    assert request.extra == {"chat_template_kwargs": {"a": 1}} and request.prompt is None


async def test_a_store_remembers_them_with_their_cost_and_offline_nobody_is_asked(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    model = scripted(price=Price(input=1_000_000, output=0))
    first, paid, _ = await ask(("a ", "b"), ("c",), model=model, store=store)
    again, replayed, backend = await ask(("a ", "b"), ("c",), model=model, store=store, offline=True)
    assert first == again and not backend.read
    assert replayed.usage == paid.usage and replayed.fresh.requests == 0 and paid.usage.usd == 3 + 2 + 3 + 1
    other, _, _ = await ask(("a ", "b"), ("d",), model=model, store=store, offline=True)
    assert other[0] == first[0] and other[1] is None


async def test_scores_and_likelihoods_of_the_same_reply_are_kept_apart(tmp_path: Path) -> None:
    both = scripted(score=lambda text: 0.5, identity="both")
    async with Session(models={"lm": both}, store=tmp_path / "s.sqlite") as session:
        TOLD.clear()

        class Both(Ask):
            async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
                scores = await run.score("lm", self.replies)
                TOLD.append(await run.likelihoods("lm", self.replies))
                yield Candidate(f"{run.stage}#0", str(scores), run.stage)

        outcome = await session.solve(Pipeline([Both(replies=(("a",),))]), PROBLEM)
    assert outcome.candidates[0].text == "[(0.5,)]"
    assert [[(Likelihood(-1 / 8 + END, 2),)]] == TOLD


@pytest.mark.parametrize("limits", [{"requests": 2}, {"tokens": 30}])
async def test_a_budget_holds_and_what_is_left_out_is_none(limits: dict[str, int]) -> None:
    told, outcome, _ = await ask(*((f"{n} " * 5,) for n in range(9)), limits=limits)
    assert outcome.stopped == "budget" and None in told
    assert outcome.usage.requests <= limits.get("requests", 99)
    assert outcome.usage.tokens <= limits.get("tokens", 999)


async def test_a_call_that_fails_is_tried_again_and_one_that_goes_on_failing_is_none() -> None:
    tries = 0

    def failing(before: str, step: str, ends: bool) -> float:
        nonlocal tries
        tries += 1
        if step == "never" or tries == 1:
            raise CallTimedOut("no reply")
        return likely(before, step, ends)

    told, outcome, _ = await ask(("a",), model=scripted(likelihood=failing, retries=1))
    assert told[0] is not None and outcome.usage.requests == 2
    once = scripted(likelihood=failing, retries=0, concurrency=1, max_concurrency=1)
    told, outcome, _ = await ask(("a",), ("never",), model=once)
    assert told[0] is not None and told[1] is None and len(outcome.failures) == 1


async def test_minus_infinity_is_no_answer() -> None:
    model = scripted(likelihood=lambda *_: -math.inf, retries=0)
    told, outcome, _ = await ask(("a",), model=model)
    (failure,) = outcome.failures
    assert told == [None] and isinstance(failure.error, BadScore)
    assert "log-probability is -inf" in str(failure.error)


@pytest.mark.parametrize(
    "model",
    [
        OpenAI(model="m", base_url="http://127.0.0.1:9/v1"),
        OpenAI(model="m", base_url="http://127.0.0.1:9/v1", server="vllm"),
        Scripted(reply=write, identity="mute"),
        Nano(weights="prm"),
    ],
    ids=["openai", "openai-vllm", "scripted", "reward-model"],
)
async def test_a_model_that_cannot_is_refused_before_anything_is_sent(model: Any) -> None:
    with pytest.raises(CapabilityError, match=r"'lm' .* cannot tell how likely a given text is.*vllm"):
        await ask(("a",), model=model)


async def test_nano_tells_of_a_sample_what_it_said_of_it(tmp_path: Path) -> None:
    question = "12+3*4-5=?"
    async with Session(models={"lm": Nano(workers=1)}, store=tmp_path / "s.sqlite") as session:

        class Compare(Ask):
            async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
                draw = run.sample("lm", n=8, prefix="3*4=12\n", sampling=Sampling(temperature=1, logprobs=0))
                samples = [sample async for sample in draw]
                told = await run.likelihoods("lm", [("3*4=12\n", sample.text) for sample in samples])
                for sample, one in zip(samples, told, strict=True):
                    assert one is not None and sample.finish == "stop" and sample.logprobs
                    if any(len(token.token) > 1 for token in sample.logprobs[:-1]):
                        continue  # marks are no text
                    said = math.fsum(token.logprob for token in sample.logprobs)
                    assert one[1].logprob == pytest.approx(said, abs=1e-4)
                    assert one[1].tokens == len(sample.logprobs)
                    yield sample

        outcome = await session.solve(Pipeline([Compare()]), Problem.ask(question, id="q"))
    assert len(outcome.final) >= 4


def test_the_key_holds_what_matters() -> None:
    def content(**changed: Any) -> str:
        given: dict[str, Any] = {
            "messages": (Message(role="user", content="q"),), "replies": (("a", "b"),), **changed
        }  # fmt: skip
        return repr(LikelihoodRequest(**given).content(0))

    same = content()
    others = [
        content(replies=(("ab",),)),
        content(finished=False),
        content(extra={"x": 1}),
        content(prompt="q"),
        content(messages=(Message(role="system", content="q"),)),
    ]
    assert len({same, *others}) == 6 and content(problem="elsewhere") == same
