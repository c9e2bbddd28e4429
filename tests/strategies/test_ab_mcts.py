"""AB-MCTS: posteriors by hand, wide and deep worlds, and what is asked, shown and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from archon.backends.scripted import Reply
from archon.candidate import Scale, Verdict
from archon.config import load
from archon.errors import RequestRejected
from archon.stage import NONE, Count, Stage
from archon.strategies.ab_mcts import ABMCTS, calibrated, remark, value_of
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.stepping.branching import (
    Asked,
    Beta,
    Branched,
    Branching,
    Normal,
    Observed,
    Variant,
    branch,
    deeper,
    wider,
    within,
)
from archon.strategies.stepping.search import dumped, generator, loaded
from archon.strategies.stepping.tree import EMPTY_TREE, UNIT, Born, Span, Tree, added, closed
from archon.testing import StageCases
from archon.verifiers.execution_agreement import ExecutionAgreement
from archon.verifiers.regex import Regex
from archon.verifiers.reward import Reward
from archon.verifiers.unit_tests import UnitTests
from tests.strategies.made import Table, ids, table
from tests.strategies.playing import HOSTILE, Played, Question, played, said_of, texts

STEPS = {"refine": "Then write the answer anew"}
VARIANTS: tuple[Variant, ...] = get_args(Variant)
either = pytest.mark.parametrize("variant", VARIANTS)


def seen(*values: float) -> Observed:
    return Observed(len(values), math.fsum(values), math.fsum(value * value for value in values))


# --- posteriors -------------------------------------------------------------------------------------


def test_the_normal_posterior_by_hand() -> None:
    # Prior m 0, κ 1, ν 1, τ² 0.1. Of 0.2, 0.4, 0.9: mean 0.5, squares about it 0.09 + 0.01 + 0.16 = 0.26.
    # κ 4, ν 4, m 1.5 / 4; ν τ² = 0.1 + 0.26 + 3 · 1 / 4 · 0.25 = 0.5475.
    assert Normal().given(seen(0.2, 0.4, 0.9)) == pytest.approx((0.375, 4.0, 4.0, 0.5475 / 4))
    # Of 1 alone: κ 2, ν 2, m 0.5; ν τ² = 0.1 + 0 + 1 / 2.
    assert Normal().given(seen(1.0)) == pytest.approx((0.5, 2.0, 2.0, 0.3))
    assert Normal().given(Observed()) == Normal() == (0.0, 1.0, 1.0, 0.1)
    one_by_one = Normal().given(seen(0.2)).given(seen(0.4)).given(seen(0.9))
    assert one_by_one == pytest.approx(Normal().given(seen(0.2, 0.4, 0.9))), "order does not matter"


def test_the_beta_posterior_by_hand() -> None:
    assert Beta().given(seen(0.2, 0.4, 0.9)) == pytest.approx((2.0, 2.0))
    assert Beta().given(seen(1.0, 1.0, 0.0)) == pytest.approx((2.5, 1.5))
    assert Beta().given(Observed()) == (0.5, 0.5)


def test_means_are_drawn_from_the_posterior() -> None:
    rng = np.random.default_rng(5)
    posterior = Normal().given(seen(*([0.6, 0.8] * 20)))
    draws = [posterior.draw(rng) for _ in range(4000)]
    # Student's t with ν degrees of freedom: scale² τ² / κ, variance ν / (ν - 2) times that.
    expected = posterior.tau2 / posterior.kappa * posterior.nu / (posterior.nu - 2)
    assert np.mean(draws) == pytest.approx(posterior.mean, abs=4 * math.sqrt(expected / 4000))
    assert np.var(draws) == pytest.approx(expected, rel=0.12)
    a, b = Beta().given(seen(1.0, 0.5, 0.5))
    fractions = [Beta(a, b).draw(rng) for _ in range(4000)]
    assert np.mean(fractions) == pytest.approx(a / (a + b), abs=0.015)
    assert np.var(fractions) == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1), rel=0.12)
    assert all(math.isfinite(Normal(nu=1e-9).draw(rng)) for _ in range(50)), "whatever is drawn"


def grown() -> Tree:
    """Two answers; the first was refined twice, and one of those again; one has no value."""
    tree = added(EMPTY_TREE, [(0, [Born(0.5), Born(0.25)])])
    tree = added(tree, [(1, [Born(0.75), Born(None)])])
    return added(tree, [(3, [Born(1.0)])])


def test_what_is_known_where() -> None:
    tree = grown()
    assert wider(tree, 0) == seen(0.5, 0.25) and deeper(tree, 0) == seen(0.75, 1.0)
    assert wider(tree, 1) == seen(0.75) and deeper(tree, 1) == seen(1.0)
    assert within(tree, 1) == seen(0.5, 0.75, 1.0) and within(tree, 2) == seen(0.25)
    assert within(tree, 4) == wider(tree, 4) == deeper(tree, 2) == Observed()


def test_values_are_scaled_as_if_each_were() -> None:
    values, scale = (3.0, 7.0, 11.0), Span(3.0, 11.0)
    assert seen(*values).scaled(scale) == pytest.approx(seen(0.0, 0.5, 1.0))
    assert seen(*values).scaled(UNIT) == seen(*values)
    assert seen(4.0, 4.0).scaled(Span(4.0, 4.0)) == seen(0.5, 0.5)


def test_the_choice_is_as_likely_as_by_its_definition() -> None:
    """Thompson sampling, against the same draws made by hand."""
    tree, times = grown(), 3000
    chosen = [branch(tree, "gaussian", generator(1, i)) for i in range(times)]
    rng, expected = np.random.default_rng(2), dict.fromkeys(range(6), 0)

    def draw(*values: float) -> float:
        return Normal().given(seen(*values)).draw(rng)

    for _ in range(times):
        if draw(0.5, 0.25) >= draw(0.75, 1.0):
            expected[0] += 1
        elif draw(0.5, 0.75, 1.0) < draw(0.25):
            expected[2] += 1
        elif draw(0.75) >= draw(1.0):
            expected[1] += 1
        elif draw(0.75, 1.0) < draw():
            expected[4] += 1
        else:
            expected[3 if draw(1.0) >= draw() else 5] += 1
    for place, count in expected.items():
        share = count / times
        assert chosen.count(place) / times == pytest.approx(
            share, abs=5 * math.sqrt(0.5 * share / times) + 0.002
        )


def test_closed_nodes_get_no_children() -> None:
    tree = closed(grown(), [2, 4, 5])
    chosen = {branch(tree, "beta", generator(3, i)) for i in range(300)}
    assert chosen == {0, 1, 3}
    only = closed(tree, [0, 1])
    assert {branch(only, "gaussian", generator(3, i)) for i in range(50)} == {3}


# --- worlds -----------------------------------------------------------------------------------------

World = Callable[[float | None, float], float]
"""The value of a new answer, or of a refinement of one with this value, by a random number from 0 to 1."""


def varied(before: float | None, drawn: float) -> float:
    """First answers differ much; to refine one makes it somewhat worse."""
    return drawn if before is None else before * 0.5


def mending(before: float | None, drawn: float) -> float:
    """First answers are all poor, and every refinement is better."""
    return 0.1 + 0.1 * drawn if before is None else min(before + 0.12 + 0.05 * drawn, 1.0)


def scripted(
    world: World, search: Branching, seed: int, scale: tuple[float, float] | None = None
) -> Branched:
    """The whole search; with a scale its values are so many times what the world says, and more, and uncalibrated."""
    state, (width, shift) = search.start(seed), scale or (1.0, 0.0)
    said: list[float | None] = [None]
    while wanted := search.ask(state):
        came = [
            [world(said[place], generator(seed, 7, len(said), place, i).random()) for i in range(times)]
            for place, times in wanted
        ]
        said.extend(value for some in came for value in some)
        born = [[Born(width * value + shift) for value in some] for some in came]
        state = search.tell(state, born, scale is None)
    return state


def width(state: Branched) -> int:
    """How many first answers there are."""
    return len(state.tree[0].children)


def depth(state: Branched) -> int:
    """How often the most refined answer was refined."""
    depths = [0]
    for node in state.tree[1:]:
        assert node.parent is not None
        depths.append(depths[node.parent] + 1)
    return max(depths) - 1


@pytest.mark.parametrize("posterior", ["gaussian", "beta"])
def test_it_goes_wide_where_answers_vary_and_deep_where_refinements_help(posterior: Any) -> None:
    search, seeds = Branching(32, 1, posterior), range(12)
    wide = [scripted(varied, search, seed) for seed in seeds]
    deep = [scripted(mending, search, seed) for seed in seeds]
    first = [np.mean([width(state) for state in states]) for states in (wide, deep)]
    assert first[0] > 2 * first[1] and 32 - first[1] > 2 * (32 - first[0]), (
        "so many are new, and so many refined"
    )
    assert np.mean([depth(state) for state in deep]) > np.mean([depth(state) for state in wide]) + 0.5
    best = [max(node.value or 0 for node in state.tree) for state in deep]
    assert np.mean(best) > 0.5, "no first answer is above 0.2"
    assert all(len(state.tree) == 33 for state in (*wide, *deep))


@either
@pytest.mark.parametrize("world", [varied, mending])
def test_uncalibrated_scores_are_taken_relative_to_each_other(world: World, variant: Variant) -> None:
    search = Branching(20, 2, variant=variant)
    one, other = (scripted(world, search, 3, scale) for scale in ((1.0, 0.0), (64.0, -32.0)))
    assert [node.parent for node in one.tree] == [node.parent for node in other.tree]


@either
def test_it_is_the_same_for_the_same_seed_and_goes_on_from_its_dumped_state(variant: Variant) -> None:
    search = Branching(24, 3, "beta", variant)
    assert scripted(varied, search, 4) == scripted(varied, search, 4)
    shapes = {tuple(node.parent for node in scripted(varied, search, seed).tree) for seed in range(5)}
    assert len(shapes) > 1
    state, copy = search.start(4), search.start(4)
    while wanted := search.ask(state):
        came = [
            [Born(generator(9, state.made, place, i).random()) for i in range(times)]
            for place, times in wanted
        ]
        copy = loaded(Branched, dumped(copy))
        state, copy = search.tell(state, came), search.tell(copy, came)
        assert state == copy and sum(asked.times for asked in state.flying) in (0, 3)
    assert len(state.tree) == 25


def failing(at_root: bool, variant: Variant) -> tuple[Branched, list[int]]:
    """The end of a search whose first answers fail every second time, and refinements never or always."""
    search, asked = Branching(30, variant=variant), list[int]()
    state = search.start(1)
    while wanted := search.ask(state):
        ((place, _),) = wanted
        asked.append(place)
        fails = asked.count(0) % 2 == 0 if place == 0 else not at_root
        state = search.tell(state, [[] if fails else [Born(0.1 if place else 0.9)]])
    return state, asked


@either
def test_what_gives_nothing_is_not_asked_again_but_the_root_is(variant: Variant) -> None:
    state, asked = failing(False, variant)
    assert len(asked) == 30 and all(asked.count(place) == 1 for place in asked if place)
    assert len(state.tree) - 1 == (asked.count(0) + 1) // 2
    state, asked = failing(True, variant)
    assert len(asked) == 30 and asked.count(0) > 10 and set(asked) - {0}


# --- the stage --------------------------------------------------------------------------------------


def stroking(question: Question) -> str:
    """Answer i is `ai`; a refinement is the answer and a stroke, numbered by its sample."""
    shown = question.several("ANSWER")
    return f"{shown[-1]}'{question.call.index}" if shown else f"a{question.call.index}"


class Strokes(Table):
    """The more strokes, the better."""

    table: Mapping[str, tuple[bool | None, float | None]] = {}

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        return [
            Verdict(self.name, False, min(c.text.count("'") / 8, 1.0), "fraction", "wrong", f"see {c.text}")
            for c in candidates
        ]


@either
@pytest.mark.parametrize("batch", [1, 4])
def test_n_answers_are_written_and_judged_each_from_the_one_it_was_shown(
    batch: int, variant: Variant
) -> None:
    model = Played(STEPS, stroking)
    outcome = played(ABMCTS(n=14, batch=batch, variant=variant, verifier=Strokes()) | BestOf(), model.model)
    assert outcome.usage.requests == len(model.asked) == 14 == len(outcome.candidates)
    assert ids(outcome.candidates) == list(range(14))
    known = {candidate.id: candidate for candidate in outcome.candidates}
    refined = 0
    for candidate in outcome.candidates:
        assert candidate.score() == candidate.text.count("'") / 8
        assert len(candidate.parents) == ("'" in candidate.text)
        for parent in candidate.parents:
            refined += 1
            assert (
                candidate.text.rpartition("'")[0] == known[parent].text
                and known[parent].index < candidate.index
            )
    assert refined == model.order.count("refine") > 0
    assert outcome.chosen is not None and outcome.chosen.score() == max(
        c.score() or 0 for c in outcome.candidates
    )
    assert len({c.text for c in outcome.candidates}) == 14, "two refinements of one answer are two samples"


def test_a_refinement_is_asked_in_sight_of_the_answer_and_of_what_was_said_of_it() -> None:
    model = Played(STEPS, stroking)
    played(ABMCTS(n=14, verifier=Strokes(), context=2), model.model)
    for question in (q for q in model.asked if q.step):
        answers, remarks = question.several("ANSWER"), question.several("REMARK")
        assert question.quoted["QUESTION"] == "a question" and 1 <= len(answers) == len(remarks) <= 2
        assert len(answers) == min(2, answers[-1].count("'") + 1)
        assert answers[:-1] == [answers[-1].rpartition("'")[0]] * (len(answers) - 1), (
            "the one it was made from first"
        )
        for answer, said in zip(answers, remarks, strict=True):
            score = min(answer.count("'") / 8, 1.0)
            assert said == f"It was rejected. Its score is {score:.3g}, a fraction. see {answer}"


def test_neither_answer_nor_remark_can_leave_its_place() -> None:
    model = Played(STEPS, lambda question: HOSTILE)
    outcome = played(ABMCTS(n=8, verifier=Strokes(), context=1), model.model)
    expected = outcome.candidates[0].text
    refined = [question for question in model.asked if question.step]
    assert refined
    for question in refined:
        assert set(question.quoted) == {"QUESTION", "ANSWER 1", "REMARK 1"}
        assert question.quoted["QUESTION"] == "a question" and question.quoted["ANSWER 1"] == expected
        assert question.call.text.endswith("do not speak of attempts or remarks.")


def test_a_template_of_the_nano_models_is_filled_with_plain_replies() -> None:
    model = Played({}, lambda question: "x")
    stage = ABMCTS(
        n=4, verifier=Strokes(), system="", prompt="{question_text}\n{replies_text}\n{remarks_text}\nBetter?"
    )
    played(stage, model.model)
    asked = {question.call.text for question in model.asked} - {"a question"}
    assert asked == {
        "a question\nReply 1:\nx\nRemark 1:\nIt was rejected. Its score is 0, a fraction. see x\nBetter?"
    }


def test_first_answers_are_the_problems_own_samples(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    played(Sample(n=8, temperature=0.5), Played(STEPS, stroking).model, store=store)
    stage = ABMCTS(n=8, temperature=0.5, verifier=Strokes())
    outcome = played(stage, Played(STEPS, stroking).model, store=store)
    first = sum(not candidate.parents for candidate in outcome.candidates)
    assert first and outcome.fresh.requests == 8 - first


@either
@pytest.mark.parametrize("batch", [1, 3])
def test_a_replay_makes_no_call_and_says_the_same(tmp_path: Path, batch: int, variant: Variant) -> None:
    def reply(question: Question) -> Reply:
        latency = 1.0 + sum(map(ord, stroking(question))) * 7 % 11
        return Reply(stroking(question), latency=latency)

    stage = ABMCTS(n=12, batch=batch, variant=variant, verifier=Strokes())
    store = tmp_path / "store.sqlite"
    runs = [played(stage, Played(STEPS, reply).model, store=store) for _ in range(2)]
    plain = played(stage, Played(STEPS, stroking).model)
    assert runs[1].fresh.requests == 0 and runs[1].usage.requests == 12
    assert said_of(runs[0]) == said_of(runs[1]) == said_of(plain), "whatever the timing"


@either
def test_answers_flow_on_as_they_are_judged(variant: Variant) -> None:
    model = Played(STEPS, stroking)
    stage = ABMCTS(n=500, variant=variant, verifier=table({"a2": (True, 1.0)}))
    outcome = played(stage | FirstPassing(), model.model)
    assert outcome.answer == "a2" and outcome.stopped == "early" and outcome.usage.requests < 100
    assert outcome.usage.requests == len(model.asked) == outcome.chosen.index + 1  # type: ignore[union-attr]


# --- what goes wrong --------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("requests", [0, 1, 5, 9])
def test_where_the_budget_ends_what_was_written_flows_on(requests: int, variant: Variant) -> None:
    model = Played(STEPS, stroking)
    stage = ABMCTS(n=1000, variant=variant, verifier=Strokes(), batch=2)
    outcome = played(stage, model.model, requests=requests)
    assert len(outcome.final) == outcome.usage.requests == len(model.asked) == requests
    assert outcome.stopped == "budget"


@either
def test_a_call_that_fails_ends_nothing_else(variant: Variant) -> None:
    def reply(question: Question) -> str | Exception:
        text = stroking(question)
        return RequestRejected("no", status=400) if text.startswith(("a1", "a0'")) else text

    model = Played(STEPS, reply)
    outcome = played(ABMCTS(n=20, variant=variant, verifier=Strokes()), model.model)
    assert len(model.asked) == 20 == len(outcome.final) + len(outcome.failures)
    assert ids(outcome.final) == list(range(len(outcome.final))), "numbers have no gaps"
    assert sum(question.several("ANSWER") == ["a0"] for question in model.asked) <= 1


@either
def test_a_blank_answer_is_an_answer_and_is_not_refined(variant: Variant) -> None:
    model = Played(STEPS, lambda question: " \n" if question.call.index % 2 else stroking(question))
    outcome = played(ABMCTS(n=16, variant=variant, verifier=Strokes()), model.model)
    assert len(outcome.final) == 16 and " \n" in texts(outcome.final)
    assert all(answer.strip() for question in model.asked for answer in question.several("ANSWER"))
    stage = ABMCTS(n=4, variant=variant, verifier=Strokes())
    blank = played(stage, Played(STEPS, lambda question: "").model)
    assert len(blank.final) == 4 and not any(candidate.parents for candidate in blank.final)


def verdict(accepted: bool | None, score: float | None, scale: Scale = "score", detail: str = "") -> Verdict:
    return Verdict("v", accepted, score, scale, detail=detail)


@pytest.mark.parametrize(
    ("said", "value", "known"),
    [
        (verdict(None, 0.3, "probability"), 0.3, True),
        (verdict(True, 1.5, "fraction"), 1.0, True),
        (verdict(None, 0.0, "logit"), 0.5, True),
        (verdict(True, None), 1.0, True),
        (verdict(False, None), 0.0, True),
        (verdict(None, None), None, True),
        (verdict(True, 17.0), 17.0, False),
        (verdict(None, 3.0, "rank"), -3.0, False),
        (verdict(None, 5.0, "count"), 5.0, False),
        (verdict(True, math.inf), None, False),
        (verdict(False, -math.inf, "probability"), 0.0, True),
        (verdict(None, 1e300), 1e100, False),
    ],
)
def test_a_verdict_as_a_number(said: Verdict, value: float | None, known: bool) -> None:
    assert value_of(said) == (value if value is None else pytest.approx(value)) and calibrated(said) is known


def test_a_verdict_in_words() -> None:
    assert remark(verdict(True, 0.5, "probability", "2 steps")) == (
        "It was accepted. Its score is 0.5, a probability. 2 steps"
    )
    assert remark(verdict(None, None)) == "It was not decided whether it is right."


@pytest.mark.parametrize("kind", [{}, {"posterior": "beta"}, {"variant": "mixed_model"}])
def test_scores_of_no_scale_and_undecided_verdicts_are_lived_with(kind: dict[str, Any]) -> None:
    entries: dict[str, tuple[bool | None, float | None]] = {f"a{i}": (None, 10.0 * i) for i in range(5)}
    odd = (math.nan, math.inf, -math.inf, 1e308, -1e308, None)
    entries |= {f"a{i}'{i}": (None, score) for i, score in enumerate(odd)}
    for known in (entries, {f"a{i}": (None, score) for i, score in enumerate(odd)}, {}):
        stage = ABMCTS(n=12, verifier=table(known), **kind)
        assert len(played(stage, Played(STEPS, stroking).model).final) == 12


# --- configuration ----------------------------------------------------------------------------------


def test_its_plan_and_models() -> None:
    assert ABMCTS(n=9, verifier=UnitTests()).plan(NONE) == (Count(9, 9), Count(9, 9))
    stage = ABMCTS(n=9, model="writer", verifier=Reward(model="critic"))
    assert stage.plan(NONE) == (Count(9, 18), Count(9, 9)) and stage.models == ("writer", "critic")
    text = "- ab_mcts: {n: 9, model: writer, verifier: {reward: {model: critic}}}\n- best_of\n"
    assert load(text, "yaml").pipeline == stage | BestOf()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValidationError, match="compares all answers"):
        ABMCTS(verifier=ExecutionAgreement())
    for wrong in (
        {"n": 0},
        {"batch": 0},
        {"context": 0},
        {"posterior": "x"},
        {"variant": "x"},
        {"variant": "mixed_model", "posterior": "beta"},
        {"again": 1},
        {"prompt": "{question}"},
    ):
        with pytest.raises(ValidationError):
            ABMCTS(verifier=UnitTests(), **wrong)
    with pytest.raises(ValidationError):
        ABMCTS()  # type: ignore[call-arg]


def test_verdicts_go_by_what_they_are_called() -> None:
    stage = ABMCTS(n=3, verifier=Strokes(), called="form")
    outcome = played(stage | BestOf(by="form"), Played(STEPS, stroking).model)
    assert all(set(candidate.verdicts) == {"form"} for candidate in outcome.candidates)


class TestNodeAggregation(StageCases):
    def make_stage(self) -> Stage:
        return ABMCTS(n=6, batch=2, posterior="beta", verifier=Regex(pattern="a|b"))

    async def test_one_candidate_is_enough(self) -> None:
        outcome = await self.run_stage(self.make_stage(), ("only",) * 6)
        assert texts(outcome.final) == ["only"] * 6


class TestMixedModel(TestNodeAggregation):
    def make_stage(self) -> Stage:
        return ABMCTS(n=6, batch=2, variant="mixed_model", verifier=Regex(pattern="a|b"))


def test_asked_is_a_place_and_how_often() -> None:
    state = Branching(5, 5).start(1)
    assert state.flying == (Asked(0, 5),), "nothing is known, so all are new"
