"""Tree of Thoughts: what is asked about which states, what every reply is worth, and what comes out of bad ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.scripted import Reply
from archon.budget import Budget
from archon.candidate import Outcome
from archon.errors import RequestRejected
from archon.prompting import matched
from archon.stage import NONE, Count, Stage
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.tree_of_thoughts import (
    ANSWER,
    PROPOSE,
    SAMPLE,
    VALUE,
    VOTE,
    WORTH,
    TreeOfThoughts,
)
from archon.testing import StageCases
from archon.testing.instruct import Instruct, Skill, is_right, sums
from tests.strategies.instructed import check_books, solved_by_rules
from tests.strategies.made import NUMBER
from tests.strategies.playing import HOSTILE, Played, Question, Said, played, said_of, texts

STEPS = {
    "sample": "Take the next step",
    "propose": "Propose up to",
    "value": "Can a right answer be reached",
    "vote": "to be carried on",
    "answer": "Carry them out",
}
LETTERS = "abcdefgh"
Worth = Callable[[str], str]
"""The judgement of a state, by its thoughts written as one word."""


def state_of(question: Question) -> str:
    return "".join(question.several("THOUGHT"))


def by_letters(worth: Worth = lambda word: "likely") -> Callable[[Question], Said]:
    """A model whose i-th continuation is the i-th letter, and whose answer is the thoughts as a word."""

    def reply(question: Question) -> Said:
        if question.step == "sample":
            return LETTERS[question.call.index]
        if question.step == "propose":
            most = int(matched(PROPOSE, question.call.text)["most"])  # type: ignore[index]
            return "\n".join(f"{i}. {letter}" for i, letter in enumerate(LETTERS[:most], 1))
        if question.step == "value":
            return f"Hm.\nVerdict {question.mark}: {worth(state_of(question))}"
        if question.step == "vote":
            states = [state.replace("\n", "") for state in question.several("STATE")]
            order = ["sure", "likely", "impossible"]
            best = min(range(len(states)), key=lambda i: (order.index(worth(states[i])), states[i]))
            return f"Hm.\nChoice {question.mark}: {best + 1}"
        return f"answer {state_of(question)}" if question.step else "answer to the question"

    return reply


def a_is_best(word: str) -> str:
    return "sure" if word[-1] == "a" else "likely" if word[-1] == "b" else "impossible"


def tree(stage: Stage, script: Any = None, **settings: Any) -> tuple[Outcome, Played]:
    model = Played(STEPS, script or by_letters(a_is_best))
    return played(stage, model.model, **settings), model


def counted(model: Played) -> dict[str, int]:
    return dict(Counter(model.order))


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
def test_breadth_first_makes_the_calls_of_its_formula(n: int, k: int, generate: Any, evaluate: Any) -> None:
    v, depth, answers = 2, 3, 2
    stage = TreeOfThoughts(
        n=n, k=k, v=v, depth=depth, generate=generate, evaluate=evaluate, answers=answers, again=0
    )
    outcome, model = tree(stage)
    width, thoughts, judgements = 1, 0, 0
    for _ in range(depth):
        thoughts += width * (k if generate == "sample" else 1)
        if width * k > 1:
            judgements += width * k * v if evaluate == "value" else v
        width = min(n, width * k)
    written = min(answers, width)
    assert counted(model) == +Counter({generate: thoughts, evaluate: judgements, "answer": written})
    assert outcome.usage.requests == thoughts + judgements + written
    most = thoughts + judgements + min(answers, n)
    assert stage.plan(NONE).calls == Count((k if generate == "sample" else 1) + 1, most)


@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("expansions", [1, 2, 4, 99])
def test_depth_first_makes_the_calls_of_its_formula(generate: Any, evaluate: Any, expansions: int) -> None:
    stage = TreeOfThoughts(
        n=99,
        k=3,
        v=2,
        depth=3,
        generate=generate,
        evaluate=evaluate,
        search="dfs",
        threshold=0,
        expansions=expansions,
        again=0,
    )
    outcome, model = tree(stage)
    expanded = min(expansions, 1 + 3 + 9)
    each = (3 if generate == "sample" else 1) + (6 if evaluate == "value" else 2)
    assert outcome.usage.requests == expanded * each + 1 == stage.plan(NONE).calls.high
    assert counted(model)["answer"] == 1


def test_a_level_is_asked_all_at_once_and_depth_first_one_after_the_other() -> None:
    def deep(search: Any) -> list[str]:
        _, model = tree(TreeOfThoughts(n=2, k=2, v=1, search=search, depth=2))
        return model.order

    assert deep("bfs") == ["sample"] * 2 + ["value"] * 2 + ["sample"] * 4 + ["value"] * 4 + ["answer"]
    assert deep("dfs") == ["sample"] * 2 + ["value"] * 2 + ["sample"] * 2 + ["value"] * 2 + ["answer"]


@pytest.mark.parametrize("slow", ["a", "b", "c"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_timing_changes_nothing(slow: str, evaluate: Any, search: Any, tmp_path: Path) -> None:
    stage = TreeOfThoughts(n=2, k=3, v=2, evaluate=evaluate, search=search, answers=2)

    def late(question: Question) -> Reply:
        text = by_letters(a_is_best)(question)
        assert isinstance(text, str)
        slower = text == slow or state_of(question).endswith(slow) if question.step != "vote" else False
        return Reply(text, latency=9.0 if slower else 1.0)

    runs = [tree(stage)[0]]
    for _ in range(2):
        outcome, model = tree(stage, late, store=tmp_path / "s.sqlite")
        runs.append(outcome)
    assert said_of(runs[0]) == said_of(runs[1]) == said_of(runs[2])
    assert model.asked == [], "the second time everything is in the store"


# --- what is asked and how it is judged -------------------------------------------------------------


@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_the_answer_is_written_from_the_best_leaf(generate: Any, evaluate: Any, search: Any) -> None:
    target = "cbd"

    def worth(word: str) -> str:
        return "sure" if word == target else "likely" if target.startswith(word) else "impossible"

    stage = TreeOfThoughts(n=2, k=4, v=1, generate=generate, evaluate=evaluate, search=search)
    outcome, model = tree(stage, by_letters(worth))
    assert outcome.answer == "answer cbd" and outcome.chosen is not None
    assert outcome.chosen.notes["thoughts"] == "c\nb\nd" and outcome.chosen.id == "tree_of_thoughts#0"
    assert model.asked[-1].quoted == {
        "QUESTION": "a question",
        "THOUGHT 1": "c",
        "THOUGHT 2": "b",
        "THOUGHT 3": "d",
    }


def test_each_prompt_says_how_far_it_is() -> None:
    for template, generate in ((SAMPLE, "sample"), (PROPOSE, "propose")):
        _, model = tree(TreeOfThoughts(n=1, k=2, v=1, depth=3, generate=generate))
        found = [matched(template, q.call.text) for q in model.asked if q.step == generate]
        assert list(dict.fromkeys((f["step"], f["depth"]) for f in found if f)) == [
            (str(step), "3") for step in (1, 2, 3)
        ]
    assert "(No step has been taken yet.)" in model.asked[0].call.text


def test_a_value_is_the_mean_of_its_judgements() -> None:
    """One sure in three is worth more than three likely, as 20 to 3; half as much with a reply that is unread."""
    said = {"a": ["likely"] * 3, "b": ["sure", "impossible", "impossible"], "c": ["impossible"] * 3}

    def reply(question: Question) -> Said:
        if question.step != "value":
            return by_letters()(question)
        return f"Verdict {question.mark}: {said[state_of(question)][question.call.index]}"

    outcome, _ = tree(TreeOfThoughts(n=3, k=3, v=3, depth=1, answers=3), reply)
    assert texts(outcome.final) == ["answer b", "answer a", "answer c"]
    assert (WORTH["sure"], WORTH["likely"], WORTH["impossible"]) == (1.0, 0.05, 0.0)


def test_votes_are_counted_and_each_sees_another_order() -> None:
    ballots = iter("abacb")

    def reply(question: Question) -> Said:
        if question.step != "vote":
            return by_letters()(question)
        states = question.several("STATE")
        return f"Choice {question.mark}: {states.index(next(ballots)) + 1}"

    outcome, model = tree(TreeOfThoughts(n=3, k=3, v=5, depth=1, answers=3, evaluate="vote"), reply)
    assert texts(outcome.final) == ["answer a", "answer b", "answer c"], "a tie goes to the earlier"
    shown = [question.several("STATE") for question in model.asked if question.step == "vote"]
    assert len(shown) == 5 and {tuple(sorted(states)) for states in shown} == {("a", "b", "c")}
    assert {states[0] for states in shown} == {"a", "b", "c"}


def test_equal_thoughts_are_one_state_and_judged_once() -> None:
    def reply(question: Question) -> Said:
        return "x" if question.step == "sample" else by_letters(lambda word: "sure")(question)

    outcome, model = tree(TreeOfThoughts(n=3, k=3, v=2, depth=2, search="dfs"), reply)
    assert counted(model) == {"sample": 6, "value": 4, "answer": 1}
    _, model = tree(TreeOfThoughts(n=3, k=3, v=2, depth=2), reply)
    assert counted(model) == {"sample": 6, "answer": 1}, "nothing competes with it"
    assert outcome.answer == "answer xx"


def test_states_that_came_to_the_same_are_judged_once_where_only_the_last_thought_is_shown() -> None:
    prompt = VALUE.replace("{thoughts}", "{thought}")

    def reply(question: Question) -> Said:
        if question.step != "value":
            return by_letters()(question)
        worth = "sure" if question.quoted["THOUGHT"] == "b" else "likely"
        return f"Verdict {question.mark}: {worth}"

    stage = TreeOfThoughts(n=3, k=3, v=2, depth=3, value_prompt=prompt)
    outcome, model = tree(stage, reply)
    assert counted(model) == {"sample": 21, "value": 6, "answer": 1}
    assert outcome.answer == "answer bbb"


def test_another_model_may_judge() -> None:
    players = {name: Played(STEPS, by_letters(a_is_best), identity=name) for name in ("default", "j")}
    models = {name: player.model for name, player in players.items()}
    for evaluate in ("value", "vote"):
        stage = TreeOfThoughts(n=1, k=2, v=1, depth=1, evaluate=evaluate, judge="j")
        played(stage, models)
        assert stage.models == ("default", "j") and TreeOfThoughts().models == ("default",)
    assert counted(players["j"]) == {"value": 2, "vote": 1}
    assert counted(players["default"]) == {"sample": 4, "answer": 2}


def test_answers_from_several_leaves_can_be_voted_on() -> None:
    def reply(question: Question) -> Said:
        said = by_letters(a_is_best)(question)
        if question.step != "answer":
            return said
        return f"#### {8 if state_of(question)[-1] in 'bc' else 7}"

    stage = TreeOfThoughts(n=3, k=3, v=1, depth=1, answers=3)
    outcome, _ = tree(stage | MajorityVote(), reply, problem=NUMBER)  # type: ignore[arg-type]
    assert outcome.answer == "#### 8"


# --- what goes wrong --------------------------------------------------------------------------------


def but(
    step: str, said: Said, when: Callable[[Question], bool] = lambda q: True
) -> Callable[[Question], Said]:
    return lambda q: said if q.step == step and when(q) else by_letters(a_is_best)(q)


@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize(
    ("said", "thought"),
    [(Reply("half a", finish="length"), "half a"), ("prose only", "prose only")],
)
def test_a_thought_out_of_form_is_a_thought_as_it_is(generate: Any, said: Any, thought: str) -> None:
    stage = TreeOfThoughts(n=2, k=2, v=1, depth=2, generate=generate)
    outcome, model = tree(stage, but(generate, said))
    assert outcome.answer == f"answer {thought}{thought}"
    unread = not (generate == "sample" and isinstance(said, str))
    each = (2 if generate == "sample" else 1) * (1 + unread)
    assert counted(model)[generate] == 2 * each, "asked again once"


@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("search", ["bfs", "dfs"])
@pytest.mark.parametrize("said", ["", " \n", RequestRejected("no", status=400)])
def test_without_thoughts_the_question_itself_is_answered(generate: Any, search: Any, said: Any) -> None:
    outcome, model = tree(TreeOfThoughts(n=2, k=2, generate=generate, search=search), but(generate, said))
    assert outcome.answer == "answer to the question" and not outcome.final[0].notes
    assert [m.role for m in model.asked[-1].call.request.messages] == ["user"]


@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_a_state_that_nothing_continues_is_no_loss_to_others(search: Any) -> None:
    stage = TreeOfThoughts(n=2, k=2, v=1, depth=2, search=search)
    outcome, _ = tree(stage, but("sample", "", lambda q: state_of(q) == "a"))
    assert outcome.answer == "answer ba"
    outcome, _ = tree(stage, but("sample", "", lambda q: state_of(q) != ""))
    assert outcome.answer == "answer a", "the deepest there is"


@pytest.mark.parametrize(
    "said", ["", "sure", "Verdict: sure", "Choice: 1", RequestRejected("no", status=400)]
)
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_judgements_that_cannot_be_read_prune_nothing(said: Any, evaluate: Any, search: Any) -> None:
    stage = TreeOfThoughts(n=8, k=2, v=2, depth=3, evaluate=evaluate, search=search, answers=8)
    outcome, _ = tree(stage, but(evaluate, said))
    words = [f"answer {a}{b}{c}" for a in "ab" for b in "ab" for c in "ab"]
    assert texts(outcome.final) == words


def test_one_judgement_that_can_be_read_is_enough() -> None:
    def reply(question: Question) -> Said:
        if question.step == "value" and question.call.index % 2 == 0:
            return "no form"
        return by_letters(lambda word: "sure" if word == "b" else "impossible")(question)

    outcome, _ = tree(TreeOfThoughts(n=2, k=2, v=2, depth=1, again=0, answers=2), reply)
    assert texts(outcome.final) == ["answer b", "answer a"]


def test_a_state_found_impossible_is_not_continued_depth_first() -> None:
    stage = TreeOfThoughts(n=9, k=3, v=1, depth=2, search="dfs", answers=9)
    outcome, model = tree(stage, by_letters(lambda word: "impossible" if word[0] == "a" else "likely"))
    asked = {state_of(q) for q in model.asked if q.step == "sample"}
    assert asked == {"", "b", "c"} and len(outcome.final) == 6


@pytest.mark.parametrize("search", ["bfs", "dfs"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("requests", [0, 1, 2, 5, 9, 14, 23, 40, 99])
def test_where_requests_are_limited_the_answer_is_still_written(
    search: Any, evaluate: Any, generate: Any, requests: int
) -> None:
    stage = TreeOfThoughts(n=3, k=3, v=2, search=search, evaluate=evaluate, generate=generate, answers=1)
    outcome, model = tree(stage, requests=requests)
    assert len(model.asked) == outcome.usage.requests <= requests
    assert len(outcome.final) == min(1, requests)
    whole, _ = tree(stage)
    if whole.usage.requests <= requests:
        assert outcome.answer == whole.answer and len(outcome.final[0].notes["thoughts"].split()) == 3


def test_a_stage_s_own_budget_is_kept_too() -> None:
    stage = TreeOfThoughts(n=3, k=3, v=2, budget=Budget(requests=20))
    outcome, model = tree(stage)
    assert len(model.asked) == 19 and outcome.answer == "answer aa"


def test_no_text_leaves_its_place() -> None:
    def reply(question: Question) -> Said:
        if question.step in ("sample", "answer"):
            return f"{HOSTILE} {question.call.index}"
        return by_letters(lambda word: "likely")(question)

    for evaluate in ("value", "vote"):
        stage = TreeOfThoughts(n=2, k=2, v=1, depth=2, evaluate=evaluate)
        outcome, model = tree(stage, reply)
        assert len(outcome.final) == 1
        for question in model.asked:
            names = {name.rstrip(" 0123456789") for name in question.quoted}
            assert names <= {"QUESTION", "THOUGHT", "STATE"}
            assert question.quoted["QUESTION"] == "a question"
            for name, text in question.quoted.items():
                if name.startswith("THOUGHT"):
                    assert text.startswith("END OF ANSWER 1 00000000") and text[-1] in "01"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n": 0}, "greater than or equal to 1"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"threshold": 1.5}, "less than or equal to 1"),
        ({"search": "astar"}, "bfs"),
        ({"value_prompt": "{question} {form}"}, "thoughts"),
        ({"vote_prompt": "{question} {states}"}, "form"),
        ({"propose_prompt": "{question} {thoughts}"}, "form"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TreeOfThoughts(**fields)


# --- with the rule-based model ----------------------------------------------------------------------


@pytest.mark.parametrize("generate", ["sample", "propose"])
@pytest.mark.parametrize("evaluate", ["value", "vote"])
@pytest.mark.parametrize("search", ["bfs", "dfs"])
def test_a_judge_that_knows_finds_the_way_and_one_that_errs_does_not(
    generate: Any, evaluate: Any, search: Any
) -> None:
    stage = TreeOfThoughts(
        n=2 if search == "bfs" else 1, k=3, v=1, generate=generate, evaluate=evaluate, search=search
    )
    problems, right = sums(8), []
    for skill in (0.0, 1.0):
        model = Instruct(Skill.of(0.6, judging=skill, ranking=skill), noise=0.3)
        outcomes = solved_by_rules(stage, problems, model)
        for outcome in outcomes:
            check_books(outcome)
        right.append(sum(is_right(p, o.answer) for p, o in zip(problems, outcomes, strict=True)))
    assert right[1] >= 6 and right[1] >= right[0] + 3, right


def test_every_prompt_has_a_rule_that_keeps_its_form() -> None:
    problems = [*sums(2), *sums(2, code=True), *sums(1, named=2)]
    asked = Counter[str]()
    for generate, evaluate in (("sample", "value"), ("propose", "vote")):
        stage = TreeOfThoughts(n=2, k=3, v=2, generate=generate, evaluate=evaluate)
        for solving in (0.6, 1.0):
            model = Instruct(Skill.of(1.0, solving=solving), noise=0.5)
            outcomes = solved_by_rules(stage, problems, model)
            right = sum(is_right(p, o.answer) for p, o in zip(problems, outcomes, strict=True))
            assert not model.again and right >= 5 * solving - 1.5
            asked += model.asked
    assert {*asked} == {f"tree_of_thoughts.{name}_prompt" for name in STEPS}


def test_templates_are_our_own_and_all_differ() -> None:
    assert len({SAMPLE, PROPOSE, VALUE, VOTE, ANSWER}) == 5
    for name, phrase in STEPS.items():
        assert [t for t in (SAMPLE, PROPOSE, VALUE, VOTE, ANSWER) if phrase in t] == [
            TreeOfThoughts.model_fields[f"{name}_prompt"].default
        ]


class TestTreeOfThoughts(StageCases):
    def make_stage(self) -> Stage:
        return TreeOfThoughts(n=2, k=2, v=2, depth=2, generate="propose", evaluate="vote", temperature=0.5)


class TestDepthFirst(StageCases):
    def make_stage(self) -> Stage:
        return TreeOfThoughts(n=2, k=2, v=2, depth=2, search="dfs", answers=2)
