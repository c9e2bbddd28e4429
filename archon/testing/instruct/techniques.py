"""The rules of the techniques whose prompts say more than which form they want."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from archon.testing.instruct.mind import FLAW, FLAWLESS, Mind
from archon.testing.instruct.reading import Form
from archon.testing.instruct.rules import (
    Rule,
    criticise,
    fuse,
    in_sections,
    judged,
    obey,
    plan,
    revise,
    solve,
)
from archon.testing.instruct.sums import Sum, asked_in, described, operations, plans_in, shortened, value_of
from archon.testing.instruct.thoughts import (
    carried_out,
    most_promising,
    next_thought,
    next_thoughts,
    promising,
)

# --- choosing --------------------------------------------------------------------------------------


def most_consistent(mind: Mind) -> str:
    """The answer that most of the others give: where ranking fails, any."""
    form = _form(mind)
    texts = mind.question.listed(form.n)
    counts = Counter(map(value_of, texts))
    most = max(range(form.n), key=lambda i: (counts[value_of(texts[i])], -i), default=0)
    chosen = most if mind.succeeds("ranking") else mind.rng("choice").randrange(form.n or 1)
    return f"I counted who agrees with whom.\nChoice {form.mark}: {chosen + 1}"


def right_or_not(mind: Mind) -> str:
    """A verdict, or a word where no form is asked for."""
    return judged(mind, ("yes", "no")) if mind.question.form is None else obey(mind)


# --- planning --------------------------------------------------------------------------------------


def observe(mind: Mind) -> str:
    """Observations, each with a way to go about it."""
    return _list([f"Seen so: {plan(mind, i)}" for i in range(max(1, _form(mind).n))])


def keep_right(mind: Mind) -> str:
    """Those of the observations that hold; where judging fails, those that do not."""
    shown = mind.question.all("OBSERVATION")
    kept = [text for i, text in enumerate(shown) if mind.plans_rightly(text) == mind.succeeds("judging", i)]
    return _list((kept or [*shown] or ["Nothing holds."])[: max(1, _form(mind).n)])


def sketch(mind: Mind) -> str:
    """How to go about it, as what is shown has it; else as it is seen now."""
    return f"This is the idea. {mind.plan.plan if mind.plan else plan(mind)}"


def mended_sketch(mind: Mind) -> str:
    """The idea that was criticised, mended."""
    found = FLAW in mind.question.one("CRITICISM")
    return plan_of(mind, mind.sum) if found and mind.succeeds("revising") else sketch(mind)


def plan_of(mind: Mind, sum_: Sum | None) -> str:
    """A plan for a sum; words where there is none."""
    return mind.prose(8) if sum_ is None else sum_.plan


def outline(mind: Mind) -> str:
    """Two sections of the length that is asked for: how to go about it, and carrying it out."""
    words = asked_words(mind.question.question) if mind.succeeds("planning") else 40
    sections = [
        {"point": plan(mind), "words": words // 2},
        {"point": "The result.", "words": words - words // 2},
    ]
    return f"This is how I would do it.\n```json\n{json.dumps({'sections': sections})}\n```"


def section(mind: Mind) -> str:
    """So many words; the last section works out what the plan says."""
    words = mind.question.number("words", 40)
    last = mind.question.number("number", 1) == mind.question.number("sections", 1)
    if not last or mind.sum is None:
        return mind.prose(words)
    return f"{mind.prose(words)}\n{solve(mind)}"


def asked_words(text: str) -> int:
    """How many words a text asks for: the last number before `words`, or 400."""
    found = re.findall(r"(\d{1,5}) words", text)
    return int(found[-1]) if found else 400


def described_in_words(mind: Mind) -> str:
    """What a solution does, also where that is wrong; a bad description leaves a number out."""
    found = described(mind.question.one("SOLUTION"))
    if found is None:
        return mind.prose(8)
    return (found if mind.succeeds("planning") else shortened(found, mind.rng("described"))).plan


def same_idea(mind: Mind) -> str:
    """Whether two ideas come to the same."""
    form = _form(mind)
    ideas = {tuple(plan.value for plan in plans_in(text)) or text for text in mind.shown}
    same = (len(ideas) < 2) == mind.succeeds("judging")
    return f"I compared them.\nVerdict {form.mark}: {'yes' if same else 'no'}"


# --- mending ---------------------------------------------------------------------------------------


def remark(mind: Mind) -> str:
    """What is to be mended, and whether anything is."""
    form = mind.question.form
    if form is None or form.kind != "verdict":
        return judged(mind, ("yes", "no"))
    said = criticise(mind)
    return f"{said}\nVerdict {form.mark}: {'done' if said == FLAWLESS else 'mend'}"


def checks(mind: Mind) -> str:
    """What the steps of the answer come to, asked one by one; a bad plan asks what does not matter."""
    most = max(1, _form(mind).n)
    if mind.sum is None or not mind.succeeds("planning"):
        return _list(["Is the answer long enough?"])
    return _list([part.question for part in _parts(mind.sum)][-most:])


def joint_checks(mind: Mind) -> str:
    """The same with answers, as JSON."""
    parts = _parts(mind.sum) if mind.sum and mind.succeeds("planning") else []
    pairs = [{"question": part.question, "answer": mind.worked(part)} for part in parts]
    return json.dumps({"checks": pairs or [{"question": "Is the answer long enough?", "answer": "It is."}]})


def checked(mind: Mind) -> str:
    """The answer to a verification question."""
    found = asked_in(mind.question.one("CHECK"), mind.question.text)
    return "It is." if found is None else mind.worked(found)


def consistent(mind: Mind) -> str:
    """Whether an answer agrees with a finding: what was found is among the numbers that it comes to on its way."""
    form = _form(mind)
    verdict = _agrees(mind.question.one("ANSWER"), mind.question.one("FINDING"))
    if not mind.succeeds("judging"):
        verdict = not verdict
    return f"I compared them.\nVerdict {form.mark}: {'consistent' if verdict else 'inconsistent'}"


def verified(mind: Mind) -> str:
    """The answer, worked out anew where a finding contradicts it."""
    answer = mind.question.one("ANSWER")
    said = re.findall(r"^Check \d+: (\w+)\.", mind.question.outside, re.MULTILINE)
    holds = all(_agrees(answer, finding) for finding in mind.question.all("FINDING"))
    fine = "inconsistent" not in said if said else holds
    return answer if fine or not mind.succeeds("revising") else mind.worked()


def _agrees(answer: str, finding: str) -> bool:
    found = value_of(finding)
    return found is None or found in map(int, re.findall(r"(?:=|####) (-?\d{1,9})\b", answer))


def _parts(sum_: Sum) -> list[Sum]:
    """The sum of the first two numbers, of the first three, ...; of all."""
    return [
        sum_._replace(terms=sum_.terms[:end]) for end in range(1 if sum_.code else 2, len(sum_.terms) + 1)
    ]


# --- taking apart ----------------------------------------------------------------------------------


def graph_of_solution(mind: Mind) -> str:
    """The steps of a solution with what it says of each; one that is taken apart badly says something else."""
    questions, fine = _steps(mind), mind.succeeds("decomposing")
    answers = [str(total if fine else total + 1) for total in _totals(mind.question.one("SOLUTION"))]
    answers = [*answers, *["not said"] * len(questions)][: len(questions)]
    return _graph(mind, [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True)])


def graph_of_question(mind: Mind) -> str:
    """The steps to an answer; a question that is taken apart badly has only itself."""
    questions = _steps(mind) if mind.succeeds("decomposing") else _steps(mind)[-1:]
    return _graph(mind, [{"question": question} for question in questions])


def part(mind: Mind) -> str:
    """The answer to a part of a question."""
    return mind.worked(asked_in(mind.question.one("PART"), mind.question.text) or mind.sum)


def contracted(mind: Mind) -> str:
    """A question in which the first numbers are put together; a bad one leaves a number out."""
    values = re.findall(r"-?\d+", mind.question.one("KNOWN").rpartition("\n")[2])
    if mind.sum is None or not values or operations(mind.sum) < 2:
        text = mind.question.question
    elif mind.succeeds("decomposing"):
        text = mind.sum._replace(terms=(int(values[-1]), *mind.sum.terms[2:])).question
    else:
        text = shortened(mind.sum, mind.rng("contracted")).question
    form = mind.question.form
    return text if form is None else in_sections(form, dict.fromkeys(form.options, text))


def _steps(mind: Mind) -> list[str]:
    """What the first two numbers come to, what the first three do, ..., and the question itself."""
    if mind.sum is None:
        return [mind.question.question]
    questions = [part.question for part in _parts(mind.sum._replace(code=False))]
    return [*questions, mind.sum.question] if mind.sum.code or not questions else questions


def _totals(solution: str) -> list[int]:
    """What a solution has after each of its numbers but the first."""
    found = described(solution)
    lines = re.findall(r"= (-?\d{1,9})$", solution, re.MULTILINE)
    if lines or found is None:
        return [*map(int, lines)]
    return [sum(found.terms[:end]) for end in range(2, len(found.terms) + 1)] or [found.value]


def _graph(mind: Mind, parts: list[dict[str, Any]]) -> str:
    """Parts of which each needs the one before; of more than are allowed the last."""
    parts = parts[-mind.question.number("most", len(parts)) :]
    linked = [{**part, "needs": [i] if i else []} for i, part in enumerate(parts)]
    return f"Taken apart.\n```json\n{json.dumps({'parts': linked})}\n```"


# --- Archon's layers -------------------------------------------------------------------------------


def critiques(mind: Mind) -> str:
    """A critique of each answer, in sections of its own."""
    mark = _form(mind).mark
    said = [criticise(mind, answer, i) for i, answer in enumerate(mind.answers)]
    return "\n\n".join(
        f"CRITIQUE {i} {mark}\n{text}\nEND OF CRITIQUE {i} {mark}" for i, text in enumerate(said, 1)
    )


def statements(mind: Mind) -> str:
    """What a right answer comes to, said in several ways; a bad test says something else."""
    return _list([f"{way} {_expected(mind, i)}." for i, way in enumerate(_WAYS[: max(1, _form(mind).n)])])


def assertions(mind: Mind) -> str:
    """What a right function returns; a bad test expects something else."""
    tests = (f"assert f({x}) == {x + _expected(mind, i)}" for i, x in enumerate((0, 1, 7, 50, -3)))
    return "\n".join(("```python", *tests, "```"))


def holds(mind: Mind) -> str:
    """Whether each statement holds of an answer."""
    form = _form(mind)
    value = value_of(mind.question.one("ANSWER"))
    scores = []
    for i, test in enumerate(mind.question.listed(form.n)):
        expected = re.findall(r"-?\d+", test)
        fits = expected[-1:] == [str(value)]
        scores.append(form.high if fits == mind.succeeds("judging", i) else form.low)
    return f"One after the other.\nScores {form.mark}: {', '.join(f'{score:g}' for score in scores)}"


def _expected(mind: Mind, which: int) -> int:
    value = 0 if mind.sum is None else mind.sum.value
    return value if mind.succeeds("testing", which) else value + mind.rng(f"test {which}").randint(1, 30)


_WAYS = (
    "It comes to",
    "The result that it gives is",
    "It ends with",
    "The last line says",
    "What it arrives at is",
)

# --- looking up ------------------------------------------------------------------------------------


def next_step(mind: Mind) -> str:
    """Ask for a name that is not in the documents; answer where there is none, or where taking apart fails."""
    mark = _form(mind).mark
    unknown = [name for name in mind.names if asked_in(f"What is {name}?", mind.question.text) is None]
    if unknown and mind.succeeds("decomposing"):
        return f"One thing is missing.\nFollow up {mark}: What is {unknown[0]}?"
    return f"ANSWER {mark}\n{solve(mind)}\nEND OF ANSWER {mark}"


def looked_up(mind: Mind) -> str:
    """The answer to a follow-up question."""
    found = asked_in(mind.question.one("FOLLOW UP"), mind.question.text)
    return "The documents do not say." if found is None else mind.worked(found)


def _form(mind: Mind) -> Form:
    """The form that the prompt asks for; a prompt of another form than its technique's is obeyed as a list."""
    return mind.question.form or Form("items", n=1)


def _list(items: list[str]) -> str:
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


RULES: Mapping[str, Rule] = {
    "ab_mcts.prompt": revise,
    "atom_of_thoughts.contract_prompt": contracted,
    "atom_of_thoughts.graph_prompt": graph_of_solution,
    "atom_of_thoughts.part_prompt": part,
    "atom_of_thoughts.split_prompt": graph_of_question,
    "atom_of_thoughts.synthesis_prompt": fuse,
    "atom_of_thoughts.work_prompt": solve,
    "back_translate.describe_prompt": described_in_words,
    "back_translate.solve_prompt": solve,
    "chain_of_verification.answer_prompt": checked,
    "chain_of_verification.check_prompt": consistent,
    "chain_of_verification.joint_prompt": joint_checks,
    "chain_of_verification.plan_prompt": checks,
    "chain_of_verification.rewrite_prompt": verified,
    "critique.prompt": critiques,
    "debate.prompt": fuse,
    "drag.prompt": solve,
    "fuse.prompt": fuse,
    "idea_diversity.compare_prompt": same_idea,
    "idea_diversity.summarise_prompt": described_in_words,
    "idea_search.idea_prompt": sketch,
    "idea_search.solve_prompt": solve,
    "iter_drag.follow_up_prompt": looked_up,
    "iter_drag.prompt": solve,
    "iter_drag.step_prompt": next_step,
    "judge.prompt": right_or_not,
    "judge_verify.prompt": right_or_not,
    "judge_verify.reasons_prompt": criticise,
    "mixture_of_agents.prompt": fuse,
    "plan_search.criticise_prompt": criticise,
    "plan_search.derive_prompt": observe,
    "plan_search.filter_prompt": keep_right,
    "plan_search.fix_prompt": mended_sketch,
    "plan_search.idea_prompt": sketch,
    "plan_search.observe_prompt": observe,
    "plan_search.pseudocode_prompt": sketch,
    "plan_search.sketch_prompt": sketch,
    "plan_search.solve_prompt": solve,
    "plan_then_write.plan_prompt": outline,
    "plan_then_write.prompt": section,
    "revise.prompt": revise,
    "self_aggregate.prompt": fuse,
    "test_evaluate.prompt": holds,
    "test_first.added": solve,
    "test_first.code_prompt": assertions,
    "test_first.prompt": statements,
    "self_refine.feedback_prompt": remark,
    "self_refine.refine_prompt": revise,
    "tree_of_thoughts.answer_prompt": carried_out,
    "tree_of_thoughts.propose_prompt": next_thoughts,
    "tree_of_thoughts.sample_prompt": next_thought,
    "tree_of_thoughts.value_prompt": promising,
    "tree_of_thoughts.vote_prompt": most_promising,
    "universal_self_consistency.prompt": most_consistent,
    "write_tests.code_prompt": assertions,
    "write_tests.prompt": statements,
}
"""Rules by prompt, as `component.field`. Every other prompt is served by its form (rules.py)."""
