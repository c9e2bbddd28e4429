"""Retrieval: BM25 against its formula, worked out anew, and the folder it may read."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon import registry
from archon.errors import ArchonError, DataError
from archon.problem import Problem
from archon.retrieval import BM25, Index, Retriever, terms
from archon.testing import RetrieverCases
from archon.testing.retrievers import retrieved

CATS = "Cats are small carnivores that are often kept as pets."
DOGS = "Dogs were domesticated by hunter-gatherers, long before cats."
PARIS = "Paris is the capital of France."
ROME = "Rome, the capital of Italy, was not built in a day. Rome is old."
TEXTS = (CATS, DOGS, PARIS, ROME)


def about(*documents: str) -> Problem:
    return Problem.ask("a question", id="p", documents=documents)


# --- the formula ------------------------------------------------------------------------------------


def by_hand(texts: Sequence[str], query: str, k1: float, b: float) -> list[float]:
    """Every passage's score, straight from the definition."""
    split = [terms(text) for text in texts]
    mean = sum(map(len, split)) / len(split) if any(split) else 1.0
    scores = []
    for words in split:
        score = 0.0
        for term in terms(query):
            n = sum(term in other for other in split)
            times = words.count(term)
            idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
            if times:
                score += idf * times * (k1 + 1) / (times + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


WORDS = st.lists(st.sampled_from(["a", "b", "c", "Dé", "é", "x1", "人", "?"]), max_size=8).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(WORDS, min_size=1, max_size=8),
    WORDS,
    st.integers(0, 10),
    st.floats(0, 3),
    st.floats(0, 1),
)
def test_scores_are_those_of_the_definition(
    texts: list[str], query: str, k: int, k1: float, b: float
) -> None:
    expected = by_hand(texts, query, k1, b)
    found = Index([(str(i), text) for i, text in enumerate(texts)], k1, b).best(query, k)
    assert len(found) == min(k, len(texts))
    for passage in found:
        assert passage.text == texts[int(passage.source)]
        assert passage.score == pytest.approx(expected[int(passage.source)], rel=1e-9, abs=1e-12)
    left_out = {*range(len(texts))} - {int(p.source) for p in found}
    if found:
        assert all(expected[i] <= found[-1].score + 1e-9 for i in left_out)
        order = [(-p.score, int(p.source)) for p in found]
        assert order == sorted(order), "the best first, the earlier of equal ones"


def test_a_known_score() -> None:
    (passage,) = Index([("d", "a b"), ("e", "c d")], 1.2, 0.75).best("a", 1)
    assert passage.score == pytest.approx(math.log(2) * 2.2 / 2.2)


def test_an_index_of_nothing_finds_nothing() -> None:
    assert Index([], 1.2, 0.75).best("a", 3) == []
    assert [p.score for p in Index([("d", ""), ("e", "?!")], 1.2, 0.75).best("a", 3)] == [0, 0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hunter-gatherers, 3rd!", ["hunter", "gatherers", "3rd"]),
        ("snake_case", ["snake", "case"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("人工 AI智能", ["人", "工", "ai", "智", "能"]),
        ("", []),
    ],
)
def test_terms(text: str, found: list[str]) -> None:
    assert terms(text) == found


# --- the problem's documents ------------------------------------------------------------------------


async def test_the_problem_s_documents_are_ranked_and_named() -> None:
    (found,) = await retrieved(BM25(), about(*TEXTS), "What is the capital of Italy?", k=2)
    assert [(p.text, p.source) for p in found] == [(ROME, "document 4"), (PARIS, "document 3")]


async def test_a_problem_without_documents_has_nothing_to_find() -> None:
    assert await retrieved(BM25(), about(), "anything") == [[]]


async def test_long_texts_are_cut_into_passages_of_so_many_words() -> None:
    text = "one two\nthree  four five"
    (found,) = await retrieved(BM25(words=2), about(text, "six"), "five", k=9)
    assert [p.text for p in found] == ["five", "one two", "three  four", "six"]
    assert [p.source for p in found][:2] == ["document 1, passage 3", "document 1, passage 1"]
    assert found[3].source == "document 2"


def test_only_what_belongs_to_the_problem_is_its_own() -> None:
    assert BM25().own and not BM25(folder=Path("texts")).own
    for wrong in ({"k1": -1}, {"b": 1.5}, {"words": 0}, {"files": ""}, {"folders": "x"}):
        with pytest.raises(ValidationError):
            BM25(**wrong)


# --- a folder ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    (place / "cities").mkdir(parents=True)
    for name, text in (("cats", CATS), ("dogs", DOGS), ("cities/paris", PARIS), ("cities/rome", ROME)):
        (place / f"{name}.txt").write_text(text)
    (place / "notes.md").write_text("The capital of Spain is Madrid.")
    return place


async def test_a_folder_s_texts_are_found_by_their_paths(folder: Path) -> None:
    capitals, spain = await retrieved(BM25(folder=folder), about(CATS), "capital of Italy", "Spain", k=2)
    assert [p.source for p in capitals] == [str(Path("cities/rome.txt")), str(Path("cities/paris.txt"))]
    assert all(p.score == 0 for p in spain), "not a .txt"
    ((found, *_),) = await retrieved(BM25(folder=folder, files="*.md"), about(), "Spain")
    assert found.source == "notes.md"


async def test_a_change_of_a_file_is_seen(folder: Path) -> None:
    retriever = BM25(folder=folder)
    ((before, *_),) = await retrieved(retriever, about(), "Lisbon")
    assert before.score == 0
    (folder / "new.txt").write_text("Lisbon is the capital of Portugal.")
    ((after, *_),) = await retrieved(retriever, about(), "Lisbon")
    assert after.source == "new.txt" and after.score > 0
    (folder / "new.txt").write_text("Nothing about it.")
    os.utime(folder / "new.txt", ns=(1, 1))
    ((again, *_),) = await retrieved(retriever, about(), "Lisbon")
    assert again.score == 0


async def test_bytes_that_are_no_text_do_no_harm(folder: Path) -> None:
    (folder / "odd.txt").write_bytes(b"\xff\xfe Oslo \x00")
    ((found, *_),) = await retrieved(BM25(folder=folder), about(), "Oslo")
    assert found.source == "odd.txt" and found.text.encode()


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"folder": "nowhere"}, "is no folder"),
        ({"files": "*.pdf"}, "no file of"),
        ({"files": "/x"}, "listed"),
    ],
)
async def test_a_folder_without_texts_is_a_mistake_that_is_told(
    folder: Path, settings_: dict[str, str], said: str
) -> None:
    retriever = BM25(**{"folder": folder, **settings_})
    with pytest.raises(DataError, match=said):
        await retrieved(retriever, about(), "x")


# --- the contract -----------------------------------------------------------------------------------


def test_it_is_registered_under_its_name() -> None:
    assert registry.find("retriever", "bm25") is BM25 and BM25.kind == "retriever"
    with pytest.raises(ArchonError, match="bm25"):
        registry.find("retriever", "bm52")


class TestBM25(RetrieverCases):
    def make_retriever(self) -> Retriever:
        return BM25(k1=1.5, words=50)

    def problem(self) -> Problem:
        return about(*TEXTS)

    def queries(self) -> Sequence[tuple[str, str]]:
        return [("capital of France", "Paris"), ("built in a day", "Rome"), ("domesticated", "Dogs")]
