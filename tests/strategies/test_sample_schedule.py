"""A schedule of settings: which sample is drawn at which, and what growing it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Request
from archon.backends.scripted import Reply
from archon.prompting import SYSTEM
from archon.stage import NONE, Count, Stage
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.sample_schedule import SampleSchedule, Setting
from archon.strategies.verify import Verify
from archon.testing import StageCases
from tests.strategies.made import ids, table
from tests.strategies.playing import Played, Question, played, said_of, texts

THREE = ("", "Be brief.", "Think: {question_text}")


def setting_of(request: Request) -> tuple[str, float | None, float | None]:
    """The prompt, the temperature and top-p of a request, as a test can read them."""
    system, asked = "", request.messages[-1].content
    if request.messages[0].role == "system" and not asked.startswith("Think"):
        system = request.messages[0].content
    prompt = THREE[2] if asked.startswith("Think") else system
    return prompt, request.sampling.temperature, request.sampling.top_p


def telling(question: Question) -> str:
    """The setting, and which sample of its pool this is."""
    return f"{setting_of(question.call.request)} {question.call.index}"


@pytest.mark.parametrize("n", [0, 1, 5, 12, 29])
@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"prompts": THREE},
        {"temperatures": (0.0, 0.7), "top_ps": (0.5, 1.0)},
        {"prompts": THREE, "temperatures": (0.2, 0.9), "top_ps": (0.8, 1.0)},
        {"prompts": THREE, "temperatures": (0.2, 0.9), "combine": "together"},
    ],
)
def test_sample_i_is_drawn_at_setting_i(n: int, axes: Mapping[str, Any]) -> None:
    stage = SampleSchedule(n=n, **axes)
    model = Played({}, telling)
    outcome = played(stage, model.model)
    settings = stage.settings()
    expected = [f"{tuple(settings[i % len(settings)])} {i // len(settings)}" for i in range(n)]
    assert texts(outcome.candidates) == expected and ids(outcome.candidates) == list(range(n))
    assert len(model.asked) == outcome.usage.requests == n
    assert stage.plan(NONE) == (Count(n, n), Count(n, n))


def test_every_prompt_meets_every_temperature_and_prompts_change_fastest() -> None:
    stage = SampleSchedule(n=8, prompts=("a", "b"), temperatures=(0.1, 0.9), top_ps=(0.5, 1.0))
    assert [tuple(s) for s in stage.settings()] == [
        ("a", 0.1, 0.5),
        ("b", 0.1, 0.5),
        ("a", 0.9, 0.5),
        ("b", 0.9, 0.5),
        ("a", 0.1, 1.0),
        ("b", 0.1, 1.0),
        ("a", 0.9, 1.0),
        ("b", 0.9, 1.0),
    ]


def test_together_the_axes_move_on_as_one() -> None:
    stage = SampleSchedule(n=8, prompts=("a", "b"), temperatures=(0.1, 0.9), combine="together")
    assert stage.settings() == [Setting("a", 0.1, None), Setting("b", 0.9, None)]
    uneven = SampleSchedule(prompts=("a", "b"), temperatures=(0.1, 0.5, 0.9), combine="together")
    assert [(s.prompt, s.temperature) for s in uneven.settings()] == [
        ("a", 0.1),
        ("b", 0.5),
        ("a", 0.9),
        ("b", 0.1),
        ("a", 0.5),
        ("b", 0.9),
    ]


def test_growing_draws_only_what_is_new(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    fields: dict[str, Any] = {"prompts": THREE, "temperatures": (0.2, 0.9)}
    small = played(SampleSchedule(n=7, **fields), Played({}, telling).model, store=store)
    large = played(SampleSchedule(n=16, **fields), Played({}, telling).model, store=store)
    assert (large.usage.requests, large.fresh.requests) == (16, 9)
    assert texts(large.candidates)[:7] == texts(small.candidates)
    fewer = played(SampleSchedule(n=4, **fields), Played({}, telling).model, store=store)
    assert fewer.fresh.requests == 0 and texts(fewer.candidates) == texts(small.candidates)[:4]


def test_a_setting_is_the_pool_of_the_same_samples_drawn_alone(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    played(Sample(n=4, system="Be brief.", temperature=0.5), Played({}, telling).model, store=store)
    stage = SampleSchedule(n=6, prompts=("Be brief.", ""), temperatures=(0.5,))
    assert played(stage, Played({}, telling).model, store=store).fresh.requests == 3


def test_what_arrives_first_flows_on_first_and_keeps_its_number() -> None:
    def slow(question: Question) -> Reply:
        text = telling(question)
        return Reply(text, latency=9.0 if "Be brief" in text else 1.0)

    stage = SampleSchedule(n=9, prompts=THREE)
    assert said_of(played(stage, Played({}, slow).model)) == said_of(played(stage, Played({}, telling).model))
    late = Verify(verifier=table({"('', None, None) 2": (True, 1.0)}))
    outcome = played(stage | late | FirstPassing(), Played({}, slow).model)
    assert outcome.chosen is not None and outcome.chosen.index == 6
    assert outcome.stopped == "early"


def test_a_prompt_with_a_place_is_the_whole_question() -> None:
    model = Played({}, lambda question: "x")
    prompts = ("Plan first. {question}", 'Reply as {"answer": ...} {question_text}', 'Say {"a": 1}')
    played(SampleSchedule(n=3, prompts=prompts), model.model)
    quoting, plain, system = (question.call.request.messages for question in model.asked)
    assert [m.role for m in quoting] == ["system", "user"] and quoting[0].content == SYSTEM
    assert quoting[1].content.startswith("Plan first. QUESTION ") and "\na question\n" in quoting[1].content
    assert plain[-1].content == 'Reply as {"answer": ...} a question'
    assert [m.content for m in system] == ['Say {"a": 1}', "a question"]
    model = Played({}, lambda question: "x")
    played(SampleSchedule(prompts=("{question_text}!",), system=""), model.model)
    assert [m.content for m in model.asked[0].call.request.messages] == ["a question!"]


def test_every_setting_reaches_the_calls() -> None:
    model = Played({}, lambda question: "x")
    extra: Mapping[str, Any] = {
        "max_tokens": 7,
        "stop": ("END",),
        "seed": 3,
        "logprobs": 2,
        "extra": {"a": 1},
    }
    played(SampleSchedule(n=2, temperatures=(0.0, 1.0), **extra), model.model)
    for question, temperature in zip(model.asked, (0.0, 1.0), strict=True):
        assert question.call.request.sampling.given() == {"temperature": temperature, **extra}


def test_equal_settings_draw_different_samples() -> None:
    outcome = played(SampleSchedule(n=6, temperatures=(0.5, 0.5)), Played({}, telling).model)
    assert Counter(text.split()[-1] for text in texts(outcome.candidates)) == Counter("012345")


@pytest.mark.parametrize("requests", [0, 1, 4, 6])
def test_where_the_budget_ends_what_came_flows_on(requests: int) -> None:
    outcome = played(SampleSchedule(n=7, prompts=THREE), Played({}, telling).model, requests=requests)
    assert len(outcome.final) == outcome.usage.requests == requests and outcome.stopped == "budget"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": -1}, "greater than or equal to 0"),
        ({"temperatures": (-1.0,)}, "greater than or equal to 0"),
        ({"top_ps": (0.0,)}, "greater than 0"),
        ({"prompts": ("{qestion}",)}, "question"),
        ({"temperature": 0.5}, "xtra"),
        ({"combine": "zip"}, "together"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SampleSchedule(**fields)


class TestSampleSchedule(StageCases):
    def make_stage(self) -> Stage:
        return SampleSchedule(n=1, prompts=THREE, temperatures=(0.5,))


class TestSeveral(StageCases):
    def make_stage(self) -> Stage:
        return SampleSchedule(n=6, prompts=THREE, temperatures=(0.5, 1.0), combine="together")

    async def test_one_candidate_is_enough(self) -> None:
        assert len((await self.run_stage(self.make_stage(), ("only",))).final) == 6
