"""The conformance suite of retrievers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Candidate
from archon.config.build import component, plain
from archon.problem import Problem
from archon.retrieval import Passage, Retriever
from archon.session import Session
from archon.stage import Candidates, Stage, Stream


class Retrieving(Stage):
    """A stage for tests: retrieves for each of its queries, and passes on what was found as candidates."""

    takes = False
    retriever: Retriever
    queries: tuple[str, ...]
    k: int

    async def run(self, problem: Problem, candidates: Stream, run: Any) -> Candidates:
        """One candidate per passage; its note holds the query's number, the source and the score."""
        number = 0
        for place, query in enumerate(self.queries):
            for passage in await self.retriever.retrieve(problem, query, self.k, run):
                found = Candidate(f"found#{number}", passage.text, run.stage, number)
                yield found.with_note("found", f"{place}\n{passage.score!r}\n{passage.source}")
                number += 1


async def retrieved(
    retriever: Retriever,
    problem: Problem,
    *queries: str,
    k: int = 3,
    models: Mapping[str, Model] | None = None,
) -> list[list[Passage]]:
    """What a retriever finds for each query, within one run."""
    stage = Retrieving(retriever=retriever, queries=queries, k=k)
    async with Session(models=models or {"default": Scripted(replies={})}) as session:
        outcome = await session.solve(stage, problem)
    found: list[list[Passage]] = [[] for _ in queries]
    for candidate in outcome.final:
        place, score, source = candidate.notes["found"].split("\n", 2)
        found[int(place)].append(Passage(candidate.text, source, float(score)))
    return found


class RetrieverCases:
    """What every retriever must do. Subclass it, and say how to make one and what it must find."""

    @abstractmethod
    def make_retriever(self) -> Retriever:
        """The retriever."""
        raise NotImplementedError

    @abstractmethod
    def problem(self) -> Problem:
        """A problem for which it finds something; with documents, where it looks in those."""
        raise NotImplementedError

    @abstractmethod
    def queries(self) -> Sequence[tuple[str, str]]:
        """Queries, each with words of the passage that must come first."""
        raise NotImplementedError

    def models(self) -> Mapping[str, Model]:
        """Models it calls."""
        return {}

    async def found(self, *queries: str, k: int = 3) -> list[list[Passage]]:
        """What it finds."""
        return await retrieved(self.make_retriever(), self.problem(), *queries, k=k, models=self.models())

    async def test_the_passage_that_fits_comes_first(self) -> None:
        queries = self.queries()
        for (_, words), passages in zip(queries, await self.found(*(q for q, _ in queries)), strict=True):
            assert words in passages[0].text

    async def test_the_best_come_first_and_more_begin_with_fewer(self) -> None:
        query = self.queries()[0][0]
        (three,) = await self.found(query, k=3)
        assert [p.score for p in three] == sorted((p.score for p in three), reverse=True)
        for k in (0, 1, 2):
            (fewer,) = await self.found(query, k=k)
            assert fewer == three[:k]

    async def test_no_passage_is_found_twice_and_each_has_a_source(self) -> None:
        (found,) = await self.found(self.queries()[0][0], k=1000)
        assert len({p.source for p in found}) == len(found) and all(p.source for p in found)

    async def test_equal_queries_find_the_same(self) -> None:
        query = self.queries()[0][0]
        first, second = await self.found(query, query)
        assert first == second == (await self.found(query))[0]

    async def test_no_query_crashes_it(self) -> None:
        odd = ("", " ", "\0", "\ud800", "x" * 20_000, "[" * 500, "😀" * 50, "{query}", "'; DROP TABLE")
        for passages in await self.found(*odd):
            assert len(passages) <= 3

    def test_it_is_its_configuration(self) -> None:
        retriever = self.make_retriever()
        assert component("retriever", plain(retriever)) == retriever
        assert hash(retriever) == hash(self.make_retriever())
