"""Sequential revision: the chains' calls and their order, what each revision sees, and choosing within chains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.scripted import Reply
from archon.candidate import Candidate
from archon.config import load
from archon.errors import ConfigError, RequestRejected
from archon.problem import Message
from archon.stage import NONE, Count, Stage
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.per_chain import PerChain, chains_of
from archon.strategies.revise import Revise, Shape, shape_of
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.testing import StageCases
from tests.strategies.made import NUMBER, ids, made, table
from tests.strategies.playing import HOSTILE, Played, Question, played, said_of, texts

STEPS = {"revise": "the latest attempts to answer it"}


def longer(question: Question) -> str:
    """Chain c begins with `c`, and every answer is the one before it and a stroke."""
    shown = question.several("ANSWER")
    return f"{shown[-1]}'" if shown else f"c{question.call.index}"


def chain(number: int, length: int) -> list[str]:
    return [f"c{number}" + "'" * place for place in range(length)]


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chains", "length", "context"), [(1, 1, 4), (1, 7, 4), (3, 4, 2), (4, 1, 1), (2, 6, 9)]
)
def test_every_answer_is_a_call_that_shows_the_last_of_its_chain(
    chains: int, length: int, context: int
) -> None:
    model = Played(STEPS, longer)
    stage = Revise(chains=chains, length=length, context=context)
    outcome = played(stage, model.model)
    assert texts(outcome.candidates) == [text for c in range(chains) for text in chain(c, length)]
    assert ids(outcome.candidates) == list(range(chains * length))
    assert len(model.asked) == outcome.usage.requests == chains * length
    assert stage.plan(NONE) == (Count(chains * length, chains * length),) * 2
    for c in range(chains):
        whole = chain(c, length)
        sights = [q.several("ANSWER") for q in model.asked if q.step and q.several("ANSWER")[-1] in whole]
        assert sights == [whole[max(0, place - context) : place] for place in range(1, length)]
    known = {candidate.id: candidate.text for candidate in outcome.candidates}
    for candidate in outcome.candidates:
        place = candidate.index % length
        whole = chain(candidate.index // length, length)
        assert [known[parent] for parent in candidate.parents] == whole[max(0, place - context) : place]


def test_chains_go_on_by_themselves_and_their_answers_flow_on_as_they_come() -> None:
    def reply(question: Question) -> Reply:
        text = longer(question)
        return Reply(text, latency=1.0 if text.startswith("c0") else 10.0)

    model = Played(STEPS, reply)
    outcome = played(Revise(chains=2, length=3), model.model)
    assert texts(outcome.candidates) == [*chain(0, 3), *chain(1, 3)]
    order = [longer(question) for question in model.asked]
    assert order == ["c0", "c1", "c0'", "c0''", "c1'", "c1''"]


@pytest.mark.parametrize("slow", ["c0", "c1", "c2"])
def test_timing_changes_no_name_no_parent_and_no_order(slow: str) -> None:
    def reply(question: Question) -> Reply:
        text = longer(question)
        return Reply(text, latency=7.0 if text.startswith(slow) else 2.0 + len(text))

    plain = played(Revise(chains=3, length=3), Played(STEPS, longer).model)
    timed = played(Revise(chains=3, length=3), Played(STEPS, reply).model)
    assert said_of(timed) == said_of(plain)


def test_first_answers_are_the_problems_own_samples(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    played(Sample(n=3, temperature=0.5), Played(STEPS, longer).model, store=store)
    outcome = played(Revise(chains=3, length=1, temperature=0.5), Played(STEPS, longer).model, store=store)
    assert outcome.fresh.requests == 0 and outcome.usage.requests == 3


def test_longer_chains_pay_only_for_what_is_new(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    played(Revise(chains=2, length=2), Played(STEPS, longer).model, store=store)
    outcome = played(Revise(chains=3, length=4), Played(STEPS, longer).model, store=store)
    assert (outcome.usage.requests, outcome.fresh.requests) == (12, 8)


def test_a_replay_makes_no_call_and_says_the_same(tmp_path: Path) -> None:
    def reply(question: Question) -> Reply:
        seed = sum(map(ord, longer(question))) * 7 % 11
        return Reply(f"{seed % 2}", latency=1.0 + seed)  # equal answers, so equal questions too

    runs = []
    for _ in range(2):
        model = Played(STEPS, reply)
        runs.append(played(Revise(chains=4, length=5), model.model, store=tmp_path / "store.sqlite"))
    assert runs[1].fresh.requests == len(model.asked) == 0
    assert said_of(runs[0]) == said_of(runs[1]) and runs[0].usage.requests == runs[1].usage.requests == 20


@pytest.mark.parametrize("pause", [0.0, 5.0])
def test_nothing_more_is_paid_for_before_what_is_there_is_judged(pause: float) -> None:
    model = Played(STEPS, longer)
    judge = Verify(verifier=table({"c0''": (True, 1.0)}, pause=pause))
    outcome = played(Revise(chains=1, length=50) | judge | FirstPassing(), model.model)
    assert outcome.answer == "c0''" and len(model.asked) == outcome.usage.requests == 3
    assert outcome.stopped == "early"


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [0, 1, 2, 3, 5, 7])
def test_where_the_budget_ends_what_was_written_flows_on(requests: int) -> None:
    model = Played(STEPS, longer)
    outcome = played(Revise(chains=2, length=4), model.model, requests=requests)
    assert len(outcome.final) == outcome.usage.requests == len(model.asked) == requests
    assert outcome.stopped == "budget"
    assert set(texts(outcome.final)) <= {*chain(0, 4), *chain(1, 4)}


def test_a_call_that_fails_ends_its_chain_and_no_other() -> None:
    def reply(question: Question) -> str | Exception:
        text = longer(question)
        return RequestRejected("no", status=400) if text == "c1''" else text

    outcome = played(Revise(chains=3, length=4), Played(STEPS, reply).model)
    assert texts(outcome.final) == [*chain(0, 4), *chain(1, 2), *chain(2, 4)]
    assert [type(f.error) for f in outcome.failures] == [RequestRejected]


def test_a_blank_answer_is_an_answer_and_is_shown_to_none() -> None:
    def reply(question: Question) -> str:
        place = len(model.asked) - 1
        return " \n" if place in (0, 2) else f"{place}"

    model = Played(STEPS, reply)
    outcome = played(Revise(chains=1, length=5), model.model)
    assert texts(outcome.final) == [" \n", "1", " \n", "3", "4"]
    assert [q.several("ANSWER") for q in model.asked] == [[], [], ["1"], ["1"], ["1", "3"]]
    assert model.order == ["", "", "revise", "revise", "revise"]
    outcome = played(Revise(chains=2, length=3), Played(STEPS, lambda question: "").model)
    assert len(outcome.final) == 6 == outcome.usage.requests


def test_an_answer_cannot_leave_its_place() -> None:
    model = Played(STEPS, lambda question: HOSTILE)
    outcome = played(Revise(chains=2, length=3), model.model)
    assert len(outcome.final) == 6
    expected = outcome.final[0].text  # as it can be stored
    for question in model.asked[2:]:
        assert question.quoted["QUESTION"] == "a question"
        assert set(question.several("ANSWER")) == {expected} and len(question.quoted) in (2, 3)
        assert question.call.text.endswith("do not speak of the attempts.")


def test_a_template_of_the_nano_models_is_filled_with_plain_replies() -> None:
    model = Played({}, lambda question: f"{len(model.asked)}")
    played(Revise(length=3, system="", prompt="{question_text}\n{replies_text}\nBest?"), model.model)
    assert [m.content for m in model.asked[2].call.request.messages] == [
        "a question\nReply 1:\n1\nReply 2:\n2\nBest?"
    ]


def test_what_is_set_reaches_the_calls() -> None:
    model = Played(STEPS, longer)
    played(Revise(length=2, system="S", first_system="F", temperature=0.3, max_tokens=9), model.model)
    first, second = (question.call.request for question in model.asked)
    assert [m.content for m in first.messages] == ["F", "a question"]
    assert second.messages[0] == Message(role="system", content="S")
    assert {(r.sampling.temperature, r.sampling.max_tokens) for r in (first, second)} == {(0.3, 9)}


# --- n and ratio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", range(-7, 8, 2))
def test_the_papers_ratios_of_128_answers(power: int) -> None:
    shape = shape_of(128, 2.0**power)
    assert shape.chains * shape.length == 128 and shape.length == shape.chains * 2.0**power
    assert Revise(n=128, ratio=2.0**power).shape == shape


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300))
def test_every_division_in_whole_numbers_has_its_ratio(chains: int, length: int) -> None:
    assert shape_of(chains * length, length / chains) == Shape(chains, length)
    assert shape_of(chains * length, round(length / chains, 9)).chains == chains


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": 128, "ratio": 4}, r"`n` 128 .*`ratio` 4 .*8/16, 16/8, 32/4"),
        ({"n": 7, "ratio": 1}, r"`n` 7 .*`ratio` 1 .*1/7, 7/1"),
        ({"n": 8}, "`ratio` is missing"),
        ({"ratio": 2}, "`n` is missing"),
        ({"n": 8, "ratio": 2, "chains": 1}, "not both"),
        ({"n": 8, "ratio": 0}, "greater than 0"),
        ({"chains": 0}, "greater than or equal to 1"),
        ({"context": 0}, "greater than or equal to 1"),
        ({"again": 1}, "less than or equal to 0"),
        ({"prompt": "{question} {answer}"}, "answers"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Revise(**fields)
    with pytest.raises(ConfigError, match=r"revise"):
        load(f"- revise: {dict(fields)}", "yaml")


# --- choosing within chains -------------------------------------------------------------------------


def lineage(*chains: str, scores: Mapping[str, float] = {}) -> list[Candidate]:
    """Chains of one-letter answers."""
    found: list[Candidate] = []
    for letters in chains:
        parents: tuple[str, ...] = ()
        for letter in letters:
            candidate = made(letter, len(found), scores.get(letter, 0.0), stage="revise")
            found.append(Candidate(**{**fields_of(candidate), "parents": parents[-4:]}))
            parents = (*parents, candidate.id)
    return found


def fields_of(candidate: Candidate) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in Candidate.__slots__}


def test_chains_are_read_off_the_lineage() -> None:
    candidates = lineage("aab", "c", "ddddddd")
    assert [texts(one) for one in chains_of(candidates)] == [list("aab"), ["c"], list("ddddddd")]
    assert [texts(one) for one in chains_of(candidates[1:])] == [list("ab"), ["c"], list("ddddddd")]
    assert chains_of([]) == []


def test_within_chains_and_then_across_is_not_the_same_as_across_all() -> None:
    candidates = lineage("aaaa", "abb", "abb")
    flat = MajorityVote().choose(NUMBER.model_copy(update={"answer": "text"}), candidates)
    within = PerChain(selector=MajorityVote()).choose(
        NUMBER.model_copy(update={"answer": "text"}), candidates
    )
    assert texts(flat) == ["a"] and texts(within) == ["a", "b", "b"]
    assert ids(within) == [0, 5, 8], "the earliest of the winning answer"


def test_a_weighted_vote_within_chains_goes_by_scores() -> None:
    text = NUMBER.model_copy(update={"answer": "text"})
    candidates = lineage("ab", "bba", scores={"a": 0.7, "b": 0.2})
    assert texts(PerChain(selector=WeightedVote()).choose(text, candidates)) == ["a", "a"]
    assert ids(PerChain(selector=TopK(k=2)).choose(text, candidates)) == [0, 1, 4, 2]


def test_a_pipeline_chooses_within_chains_and_then_across() -> None:
    def reply(question: Question) -> str:
        shown = question.several("ANSWER")
        if not shown:
            return "#### 7"
        return "#### 7" if question.quoted["ANSWER 1"] == "#### 7" and chain_of(question) == 0 else "#### 8"

    def chain_of(question: Question) -> int:
        return 0 if "#### 8" not in question.quoted.values() and question.call.index % 3 == 0 else 1

    pipeline = Revise(chains=3, length=4, context=4) | PerChain(selector=MajorityVote()) | MajorityVote()
    outcome = played(pipeline, Played(STEPS, reply).model, NUMBER)
    assert outcome.answer == "#### 8" and outcome.usage.requests == 12
    plan = pipeline.graph().plan()
    assert plan["per_chain"] == (NONE, Count(0, 12))


def test_the_selectors_needs_are_the_stages() -> None:
    with pytest.raises(ConfigError, match=r"per_chain.*'best_of' needs scores"):
        (Revise() | PerChain(selector=BestOf())).graph()
    (Revise() | Verify(verifier=table({})) | PerChain(selector=BestOf())).graph()
    with pytest.raises((ValidationError, ConfigError)):
        PerChain(selector="sample")


class TestRevise(StageCases):
    def make_stage(self) -> Stage:
        return Revise(chains=1, length=1, context=2, temperature=0.5)


class TestSeveralRevisions(StageCases):
    def make_stage(self) -> Stage:
        return Revise(n=8, ratio=2)

    async def test_one_candidate_is_enough(self) -> None:
        outcome = await self.run_stage(self.make_stage(), ("only",) * 8)
        assert texts(outcome.final) == ["only"] * 8


class TestPerChain(StageCases):
    def make_stage(self) -> Stage:
        return PerChain(selector=TopK(k=2, by="every_third"))

    async def test_one_candidate_is_enough(self) -> None:
        assert len((await self.run_stage(self.make_stage(), ("only",))).final) == 1


def test_the_whole_is_one_configuration() -> None:
    text = "- revise: {n: 8, ratio: 0.5}\n- per_chain: {selector: majority_vote}\n- majority_vote\n"
    pipeline = load(text, "yaml").pipeline
    assert pipeline == Revise(n=8, ratio=0.5) | PerChain(selector=MajorityVote()) | MajorityVote()
