"""What the nano models are trained on: tasks of the training split alone, and lessons from samples."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.nano.tokens import BOS, EOS, PAD, SEP, decode
from archon.benchmarks.lab import chain, formats
from archon.benchmarks.lab.training.attempts import Attempt, graded, task_set
from archon.benchmarks.lab.training.data import (
    FAMILIES,
    Exchange,
    batches,
    exchange,
    exchanges,
    laid_out,
    training_tasks,
)
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.lessons import lessons
from archon.benchmarks.lab.training.rollouts import by_outcome

SEEDS = st.integers(0, 2**32)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_every_task_to_train_on_is_of_the_training_split(seed: int) -> None:
    drawn = itertools.islice(training_tasks(random.Random(seed)), 20)
    assert {task.split for task in drawn} == {"train"}


def test_a_tasks_split_does_not_depend_on_how_it_is_asked() -> None:
    rng = random.Random(0)
    for task in itertools.islice(training_tasks(rng), 300):
        asked = exchange(task, rng)
        whole = task.question in asked.question
        assert whole or task.family == "chain", "parts of chains are questions of their own"


def test_the_same_seed_gives_the_same_exchanges() -> None:
    first, second = ([*itertools.islice(exchanges(7), 50)] for _ in range(2))
    assert first == second != [*itertools.islice(exchanges(8), 50)]


def test_batches_keep_to_their_size_and_lose_nothing() -> None:
    source = list(itertools.islice(exchanges(1), 16 * 4096 // 100))
    cut, left = [], len(source)
    for batch in batches(iter(source), 4096):
        cut += batch
        assert len(batch) * max(e.length for e in batch) <= 4096
        left -= len(batch)
        if not left:
            break
    assert sorted(cut) == sorted(source)


def test_an_exchange_is_laid_out_as_the_models_read_it() -> None:
    rows, starts = laid_out([Exchange("ab", "xyz"), Exchange("a", "x")])
    assert [len(row) for row in rows] == [8, 8]
    assert rows[0][0] == BOS and rows[0][3] == SEP and rows[0][7] == EOS
    assert decode(rows[0][starts[0] : 7]) == "xyz"
    assert rows[1][3:] == [*rows[1][3:4], EOS, PAD, PAD, PAD]
    assert decode(rows[1][starts[1] : starts[1] + 1]) == "x"


def test_the_parts_of_a_chain_give_its_answer() -> None:
    family = FAMILIES["chain"]
    rng = random.Random(3)
    for level in family.levels:
        task = family.draw(rng, level)
        question, answer = chain.part(task, task.given["order"][-1])
        assert answer == task.answer
        assert chain.split(task).split("\n")[-1].startswith(f"{task.given['wanted']}=")
        assert len(chain.reduced(task, task.given["order"][:-1])) <= len(task.question) + 4
        assert question.endswith(f"Find {task.given['wanted']}.")


async def test_attempts_are_graded_with_the_first_thing_that_is_wrong() -> None:
    tasks = {t.family: t for t in task_set(1, "train", 5) if t.level == 3}
    arith, listfn, chained = tasks["arith"], tasks["listfn"], tasks["chain"]
    lines = arith.solution.split("\n")
    late = "\n".join([*lines[:-1], str(int(lines[-1]) + 1)])
    attempts = [
        Attempt(arith, arith.solution),
        Attempt(arith, late),
        Attempt(arith, "nonsense\n("),
        Attempt(arith, ""),
        Attempt(listfn, listfn.solution),
        Attempt(listfn, "def f(x):\n return None"),
        Attempt(listfn, "def f(x):\n while 1: pass"),
        Attempt(chained, chained.answer),
        Attempt(chained, "-1"),
    ]
    await graded(attempts)
    assert [a.right for a in attempts] == [True, False, False, False, True, False, False, True, False]
    assert [a.wrong for a in attempts] == [0, len(lines), 1, 1, 0, 1, 1, 0, 1]


def test_lessons_are_about_right_and_wrong_replies_alike() -> None:
    task = next(t for t in task_set(1, "train", 5) if t.family == "arith" and t.level == 2)
    attempts = [Attempt(task, task.solution, True), *[Attempt(task, f"{i}", False, 1) for i in range(9)]]
    said = [lesson for lesson in itertools.islice(lessons(attempts, 0), 2000) if "Right?" in lesson.question]
    shares = sum(lesson.reply == "yes" for lesson in said) / len(said)
    assert 0.4 < shares < 0.6
    assert {lesson.reply for lesson in said} == {"yes", "no"}


def test_a_place_is_where_so_many_characters_of_the_reply_are_read() -> None:
    one = Labelled("ab", "x\ny", {2: 0.5})
    assert decode([one.tokens[one.place(1)]]) == "x"
    assert decode([one.tokens[one.place(2)]]) == "\n"
    assert one.tokens[one.place(0)] == SEP
    assert one.tokens[one.place(4)] == EOS


def test_an_attempts_own_outcome_is_a_single_roll_out_from_each_of_its_places() -> None:
    task = task_set(1, "train", 5)[0]
    right, wrong = Attempt(task, "1+2\n3", True), Attempt(task, "1+2\n4", False, 2)
    assert by_outcome(right, everywhere=True).labels == {0: 1.0, 4: 1.0, 5: 1.0}
    assert by_outcome(wrong, everywhere=True).labels == {0: 0.0, 4: 0.0, 5: 0.0}
    assert by_outcome(wrong, everywhere=False).labels == {5: 0.0}
    assert by_outcome(Attempt(task, ""), everywhere=True).labels == {0: 0.0}


def test_replies_to_fuse_are_numbered() -> None:
    asked = formats.fuse("q", ["a", "b"])
    assert asked == "q\nReply 1:\na\nReply 2:\nb\nBest?"
