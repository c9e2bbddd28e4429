"""Equal as mathematics, by math-verify in the sandbox: what is equal, what is not, and what could not be decided."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from archon.errors import ExecutionError, MissingExtra
from archon.execution import Call, Limits, Program, Returned, Suite, TestReport
from archon.session import Session
from archon.verifiers.mathematics import equal_answers


class Table:
    """An executor that looks the answers up, and writes down what it was asked."""

    def __init__(self, **returned: Returned | Exception) -> None:
        self.returned = returned
        self.asked: list[list[str]] = []

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        self.asked.append([call.args[1] for call in calls])
        assert len(self.asked) < 20, "it goes round in circles"
        results: list[Returned] = []
        for call in calls:
            one = self.returned[call.args[1]]
            if isinstance(one, Exception):
                raise one
            results.append(one)
            if one.status in ("timed_out", "violation") or "process ended" in one.detail:
                break  # as the sandbox does: the process is gone
        return [*results, *[Returned("skipped")] * (len(calls) - len(results))]

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        raise AssertionError("not asked")

    async def close(self) -> None:
        pass


YES, NO = Returned("returned", True), Returned("returned", False)
LATE = Returned("timed_out", detail="more than 60 s")
GONE = Returned("failed", detail="its process ended by itself, with exit code 0")


async def ask(table: Table, *answers: str, gold: str = "gold", store: str | None = None) -> list[bool | None]:
    async with Session(executor=table, store=store) as session:
        return await equal_answers(gold, answers, session)


async def test_verdicts_come_in_the_order_of_the_answers() -> None:
    table = Table(a=YES, b=NO, c=YES)
    assert await ask(table, "b", "a", "c") == [False, True, True]
    assert await ask(table) == []


async def test_equal_answers_are_compared_once() -> None:
    table = Table(a=YES, b=NO)
    assert await ask(table, "a", "b", "a", "b", "a") == [True, False, True, False, True]
    assert table.asked == [["a", "b"]]


async def test_verdicts_are_remembered_by_both_sides() -> None:
    table = Table(a=YES, b=NO)
    await ask(table, "a", store="s.sqlite")
    assert await ask(table, "a", "b", store="s.sqlite") == [True, False]
    assert await ask(table, "a", gold="another", store="s.sqlite") == [True]
    assert table.asked == [["a"], ["b"], ["a"]]


async def test_what_was_not_decided_in_time_is_neither_equal_nor_unequal() -> None:
    assert await ask(Table(a=YES, slow=LATE, b=NO), "a", "slow", "b") == [True, None, False]


async def test_who_runs_when_the_time_of_all_is_up_gets_a_time_of_its_own() -> None:
    table = Table(a=YES, slow=LATE, b=NO)
    await ask(table, "a", "slow", "b")
    assert table.asked == [["a", "slow", "b"], ["slow", "b"], ["b"]]


async def test_an_answer_that_ends_the_process_does_not_take_the_others_with_it() -> None:
    table = Table(a=YES, bomb=GONE, slow=LATE, b=YES)
    verdicts = await ask(table, "a", "bomb", "slow", "b")
    assert verdicts[0] is True and verdicts[3] is True and verdicts[1] is not True
    assert table.asked == [["a", "bomb", "slow", "b"], ["slow", "b"], ["b"]]


@pytest.mark.parametrize("how", [GONE, Returned("violation", detail="it returned more than 16 MB")])
async def test_a_comparison_that_crashed_has_decided_nothing(how: Returned) -> None:
    assert await ask(Table(bomb=how), "bomb") == [None]


async def test_without_math_verify_it_says_what_to_install() -> None:
    missing = Returned("failed", detail="ModuleNotFoundError: No module named 'math_verify'")
    with pytest.raises(MissingExtra, match="math-verify"):
        await ask(Table(a=missing), "a")


async def test_a_broken_machine_is_an_error_and_is_not_remembered() -> None:
    with pytest.raises(ExecutionError):
        await ask(Table(a=ExecutionError("no more processes")), "a", store="s.sqlite")
    assert await ask(Table(a=YES), "a", store="s.sqlite") == [True]


# --- the real thing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "equal", "other"),
    [
        ("\\frac{1}{2}", ["1/2", "0.5", "\\frac12", "\\dfrac{2}{4}", "$0.50$", "\\boxed{\\frac{1}{2}}"],
         ["2", "0.51", "-\\frac{1}{2}", "\\frac{2}{1}", "", " ", "half", "1", "None"]),
        ("x^2+1", ["1+x^2", "(x+1)^2-2x", "x \\cdot x + 1"], ["x^2-1", "x^2+2", "y^2+1", "x^3+1", "2x+1"]),
        ("(1, 2)", ["(1,2)", "\\left(1, 2\\right)"], ["(2, 1)", "1", "(1, 2, 3)", "[1, 2]"]),
        ("2\\sqrt{3}", ["\\sqrt{12}", "2\\sqrt3", "\\frac{6}{\\sqrt{3}}"], ["\\sqrt{6}", "3\\sqrt{2}", "12"]),
    ],
)  # fmt: skip
async def test_what_is_equal_and_what_is_not(gold: str, equal: list[str], other: list[str]) -> None:
    async with Session() as session:
        verdicts = dict(
            zip([*equal, *other], await equal_answers(gold, [*equal, *other], session), strict=True)
        )
    assert verdicts == {**dict.fromkeys(equal, True), **dict.fromkeys(other, False)}


async def test_no_answer_however_odd_raises_or_is_equal() -> None:
    odd = [
        *(
            "\0",
            "\ud800",
            "$",
            "$$",
            "\\",
            "{",
            "}",
            "\\frac",
            "\\frac{1}{0}",
            "\\sqrt{",
            "{" * 100,
            "\\frac{" * 50,
        ),
        *(
            "9" * 4500,
            "1e400",
            "nan",
            "\\infty",
            "😀",
            "\n",
            "''",
            '""',
            "x" * 500,
            "\\text{" + "a" * 100 + "}",
        ),
        *(
            "__import__('os').system('true')",
            "\\begin{pmatrix} 1 & 2",
            "0" * 100,
            "=",
            "x=",
            "=3",
            "1==1",
            "True",
        ),
    ]
    async with Session() as session:
        verdicts = await equal_answers("42", odd, session)
    assert len(verdicts) == len(odd)
    assert {text[:20]: verdict for text, verdict in zip(odd, verdicts, strict=True) if verdict} == {}


@pytest.mark.slow
async def test_a_comparison_that_math_verify_gives_up_on_is_undecided() -> None:
    async with Session() as session:
        assert await equal_answers("1", ["9^{9^{9^{9}}}"], session) == [None]
