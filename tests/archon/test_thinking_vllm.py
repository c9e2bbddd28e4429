"""Thinking budgets on a real vLLM: the lines of the nano model's work are its thinking, the last line is the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.nano.backend import Nano
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.replicas import VLLMBackend
from archon.benchmarks.lab.arith import Arith
from archon.candidate import Outcome
from archon.engine import EngineFigures
from archon.errors import AllCandidatesFailed
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.sample import Sample
from archon.strategies.thinking_budget import ThinkingBudget
from tests.archon.engines import idle

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TASK = Arith().draw(random.Random(3), 3)
"""Four operations: three lines of work, then the number."""
FIRST, SECOND, THIRD, NUMBER = TASK.solution.split("\n")
MARKS = {"open": "", "close": "\n", "wait": "\n", "temperature": 0, "max_tokens": 60}


async def solved(stage: Stage, model: Model) -> tuple[Outcome, EngineFigures | None]:
    """The outcome, and what the engine says that it did for it."""
    async with Session(models=model, seed=1) as session:
        outcome = await session.solve(stage, Problem.ask(TASK.question, id="p"))
        backend = session.caller("default").backend
        return outcome, await idle(backend) if isinstance(backend, VLLMBackend) else None


CASES: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "its own": ({"thinking": 99}, FIRST, f"{SECOND}\n{THIRD}\n{NUMBER}"),
    "extended": ({"thinking": 99, "waits": 1}, f"{FIRST}\n{SECOND}", f"{THIRD}\n{NUMBER}"),
    "extended twice": ({"thinking": 99, "waits": 2, "max_tokens": 9}, f"{FIRST}\n{SECOND}\n{THIRD}", NUMBER),
    "capped": ({"thinking": 5, "waits": 2, "max_tokens": 9, "cue": "="}, FIRST[:5], "="),
    "capped when extended": (
        {"thinking": len(FIRST) + 1 + 4, "waits": 2, "max_tokens": 9, "cue": ""},
        f"{FIRST}\n{SECOND[:4]}",
        "",
    ),
}
"""The settings, the thinking, and what the answer is or (of those capped) begins with."""


@pytest.mark.parametrize("case", CASES)
async def test_thinking_is_capped_and_made_to_go_on_and_the_engine_counts_as_we_do(
    case: str, vllm: VLLM
) -> None:
    settings, thought, said = CASES[case]
    stage = ThinkingBudget(**{**MARKS, **settings})
    outcome, figures = await solved(stage, vllm)
    (answer,) = outcome.final
    capped = case.startswith("capped")
    assert answer.reasoning == thought
    assert answer.text.startswith(said) if capped else answer.text == said

    # A token is a character. A line that ends by itself costs its mark, too, and a reply its end.
    waited = thought.count("\n")
    written = len(answer.text.removeprefix(settings.get("cue", "")).lstrip())
    thinking = settings["thinking"] if capped else len(thought) + 1
    assert thinking == len(thought) + (not capped)
    assert answer.usage.requests == 2 + waited
    if answer.finish == "stop":
        assert answer.usage.completion_tokens == thinking + written + 1
    else:
        assert answer.usage.completion_tokens == thinking + settings["max_tokens"]

    assert figures is not None and figures.finished == 2 + waited
    assert figures.completion_tokens == outcome.usage.completion_tokens == answer.usage.completion_tokens
    assert figures.prompt_tokens == outcome.usage.prompt_tokens
    here, _ = await solved(stage, Nano(workers=1))
    assert [(c.reasoning, c.text, c.finish) for c in here.final] == [(thought, answer.text, answer.finish)]
    assert here.usage.completion_tokens == outcome.usage.completion_tokens


async def test_several_answers_are_in_the_engine_s_books_and_ours(vllm: VLLM) -> None:
    stage = ThinkingBudget(**{**MARKS, "temperature": 1, "n": 6, "thinking": 25, "waits": 2, "max_tokens": 9})
    outcome, figures = await solved(stage, vllm)
    assert len(outcome.final) == 6 and figures is not None
    assert all(len(c.reasoning) <= 25 for c in outcome.final)
    assert figures.completion_tokens == outcome.usage.completion_tokens
    assert figures.completion_tokens == sum(c.usage.completion_tokens for c in outcome.final)


async def test_a_server_caps_thinking_itself_where_it_was_told_the_marks(vllm: VLLM) -> None:
    marks = {"reasoning_start_str": "<|sep|>", "reasoning_end_str": "\n"}
    told = vllm.model_copy(update={"options": {**vllm.options, "reasoning_config": marks}, "keep": 0})
    stage = Sample(temperature=0, max_tokens=40, extra={"thinking_token_budget": 5})
    outcome, figures = await solved(stage, told)
    (reply,) = outcome.final
    thought, mark, answer = reply.text.partition("\n")
    assert (thought, mark) == (FIRST[:5], "\n") and answer
    assert outcome.usage.requests == 1 and figures is not None
    assert figures.completion_tokens == outcome.usage.completion_tokens
    capped = ThinkingBudget(**{**MARKS, "thinking": 5, "cue": "", "max_tokens": 34})
    forced, _ = await solved(capped, Nano(workers=1))
    assert (forced.final[0].reasoning, forced.final[0].text) == (thought, answer), "the same, in two calls"


async def test_a_server_that_was_not_says_so(vllm: VLLM) -> None:
    with pytest.raises(AllCandidatesFailed, match="reasoning_config"):
        await solved(Sample(max_tokens=9, extra={"thinking_token_budget": 5}), vllm)
