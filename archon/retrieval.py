"""The retriever contract, and BM25 as the retriever that needs nothing else.

A retriever finds the passages of text that fit a query. Stages hold one (`retriever: AnyRetriever`); files name it
like any component, and others register in the entry-point group `archon.retrievers`. What is retrieved for equal
queries is equal, so that a stored run is replayed exactly.

Source of BM25: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.
A term's weight is log(1 + (N - n + 0.5) / (n + 0.5)) for n of N passages that hold it, which is never negative.
Cost: no model call; the index is built once per problem, and once per state of a folder.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field

from archon.component import Component, Nested
from archon.errors import DataError
from archon.problem import Problem

if TYPE_CHECKING:
    from archon.run import Run


class Passage(NamedTuple):
    """A piece of text that was found."""

    text: str
    """The passage as it stands in its source."""
    source: str
    """Where it is from: `document 3`, or a file's path within its folder; with its place where that was cut."""
    score: float
    """How well it fits; higher is better. Of one query's passages only."""


class Retriever(Component):
    """Finds passages for a query. All effects on models go through `run` (D3)."""

    kind: ClassVar[str] = "retriever"

    @abstractmethod
    async def retrieve(self, problem: Problem, query: str, k: int, run: Run) -> Sequence[Passage]:
        """The k passages that fit best, the best first; fewer where there are fewer. Equal for equal arguments."""
        raise NotImplementedError

    @property
    def own(self) -> bool:
        """Whether it looks in the problem's own documents, which a question is then shown without."""
        return False

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models it calls."""
        return ()


AnyRetriever = Annotated[Retriever, Nested("retriever")]
"""The type of a stage's field that holds a retriever."""


class BM25(Retriever):
    """Ranks the problem's documents, or the files of a folder, by the words that they share with the query.

    Of passages that fit equally well the earlier comes first; those that share no word come last.
    """

    folder: Path | None = None
    """A folder of texts in UTF-8; the problem's own documents where not given."""
    files: Annotated[str, Field(min_length=1)] = "**/*.txt"
    """Which of the folder's files, as a glob pattern."""
    words: Annotated[int, Field(ge=1)] | None = None
    """Cut texts into passages of so many words; whole where not given."""
    k1: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.2
    """How much it counts that a word comes again."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.75
    """How much long passages are marked down."""

    async def retrieve(self, problem: Problem, query: str, k: int, run: Run) -> Sequence[Passage]:
        """Raises DataError where the folder cannot be read."""
        index = run.kept(f"{run.stage} {self!r}", lambda: run.spawn(self._index(problem)))
        return (await asyncio.shield(index)).best(query, k)

    @property
    def own(self) -> bool:
        """Without a folder."""
        return self.folder is None

    async def _index(self, problem: Problem) -> Index:
        if self.folder is None:
            texts = tuple((f"document {i}", text) for i, text in enumerate(problem.documents, 1))
            return Index(tuple(_passages(texts, self.words)), self.k1, self.b)
        return await asyncio.to_thread(self._of_folder, self.folder)

    def _of_folder(self, folder: Path) -> Index:
        if not folder.is_dir():
            raise DataError(f"`folder` of {self.name!r} is no folder: {str(folder)!r}")
        try:
            found = sorted(path for path in folder.glob(self.files) if path.is_file())
            stamps = [path.stat() for path in found]
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"the files {self.files!r} of {str(folder)!r} cannot be listed: {error}"
            ) from error
        if not found:
            raise DataError(f"no file of {str(folder)!r} matches `files`, which is {self.files!r}")
        state = tuple((path, s.st_mtime_ns, s.st_size) for path, s in zip(found, stamps, strict=True))
        return _indexed(folder, state, self.words, self.k1, self.b)


class Index:
    """An inverted index of passages: for each term, who holds it and what that is worth to a query."""

    def __init__(self, passages: Sequence[tuple[str, str]], k1: float, b: float) -> None:
        self.passages = passages
        """The passages in order: where each is from, and its text."""
        counts = [Counter(terms(text)) for _, text in passages]
        lengths = [sum(count.values()) for count in counts]
        mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
        holders: dict[str, list[tuple[int, int]]] = {}
        for number, count in enumerate(counts):
            for term, times in count.items():
                holders.setdefault(term, []).append((number, times))
        self._worth: dict[str, list[tuple[int, float]]] = {}
        for term, held in holders.items():
            rarity = math.log(1 + (len(passages) - len(held) + 0.5) / (len(held) + 0.5))
            self._worth[term] = [
                (i, rarity * times * (k1 + 1) / (times + k1 * (1 - b + b * lengths[i] / mean)))
                for i, times in held
            ]

    def best(self, query: str, k: int) -> list[Passage]:
        """The k passages that fit a query best, the best first."""
        scores = [0.0] * len(self.passages)
        for term in terms(query):
            for number, worth in self._worth.get(term, ()):
                scores[number] += worth
        chosen = heapq.nsmallest(max(0, k), range(len(scores)), key=lambda i: (-scores[i], i))
        return [Passage(self.passages[i][1], self.passages[i][0], scores[i]) for i in chosen]


_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Kana and Han characters: scripts without spaces, of which each character is a term."""
_TERM = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")


def terms(text: str) -> list[str]:
    """The words of a text, in order, as they are compared."""
    return _TERM.findall(text.casefold())


def _passages(texts: Sequence[tuple[str, str]], words: int | None) -> Iterator[tuple[str, str]]:
    for source, text in texts:
        starts = [m.start() for m in re.finditer(r"\S+", text)][:: words or 1] if words else []
        if len(starts) < 2:
            yield source, text
            continue
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True), 1):
            yield f"{source}, passage {number}", text[start:end].rstrip()


@lru_cache(maxsize=8)
def _indexed(
    folder: Path, state: tuple[tuple[Path, int, int], ...], words: int | None, k1: float, b: float
) -> Index:
    """The index of a folder's files in this state: paths, times of change, sizes."""
    try:
        texts = [
            (str(path.relative_to(folder)), path.read_text("utf-8", errors="replace")) for path, _, _ in state
        ]
    except OSError as error:
        raise DataError(f"a file of {str(folder)!r} cannot be read: {error}") from error
    return Index(tuple(_passages(texts, words)), k1, b)
