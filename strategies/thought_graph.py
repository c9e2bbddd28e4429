"""A question's parts and what each of them needs: reading such a graph out of a reply, checking it, mending it.

For Atom of Thoughts (strategies/atom_of_thoughts.py): Teng et al. 2025 (arXiv 2502.12018), section 3.2. Two forms are
read. `json`: parts with their questions, answers and the numbers of the parts that they need. `assignments`: a line
`name=what` for each part, copied from the question, which needs the parts that `what` names; the last is the one that
the question, of all that it gives a name, names last. Cost: none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import networkx as nx
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from archon.prompting import Unread, read_json

_LINE = re.compile(r"([A-Za-z_]\w*+)[ \t]*+=[ \t]*+(\S.*)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_ASSIGNED = re.compile(r"(?<!\w)([A-Za-z_]\w*+)[ \t]*+=")


@dataclass(frozen=True)
class Part:
    """One smaller question."""

    question: str
    needs: tuple[int, ...] = ()
    """The parts whose answers must be known first, by their places."""
    answer: str = ""
    """Its answer, where that is known."""
    name: str = ""
    """What others call its answer, where it has a name."""


@dataclass(frozen=True)
class ThoughtGraph:
    """Parts of a question; the last is what the question asks."""

    parts: tuple[Part, ...]

    @cached_property
    def _graph(self) -> nx.DiGraph:
        graph: nx.DiGraph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.parts)))
        graph.add_edges_from((need, place) for place, part in enumerate(self.parts) for need in part.needs)
        return graph

    @property
    def depth(self) -> int:
        """How many steps the longest way takes from a part that needs nothing."""
        return int(nx.dag_longest_path_length(self._graph, weight=None))

    @property
    def order(self) -> list[int]:
        """The places of the parts, each behind what it needs."""
        return [*nx.lexicographical_topological_sort(self._graph)]

    @property
    def independent(self) -> tuple[Part, ...]:
        """The parts that need nothing."""
        return tuple(part for part in self.parts if not part.needs)

    @property
    def dependent(self) -> tuple[Part, ...]:
        """The parts that need others."""
        return tuple(part for part in self.parts if part.needs)

    def answered(self, answers: Sequence[str]) -> ThoughtGraph:
        """The same with other answers."""
        pairs = zip(self.parts, answers, strict=True)
        return ThoughtGraph(tuple(replace(part, answer=answer) for part, answer in pairs))

    def check(self) -> ThoughtGraph:
        """This graph. Raises Unread with the first thing that is wrong with it."""
        for number, part in enumerate(self.parts, 1):
            for need in part.needs:
                if not 0 <= need < len(self.parts):
                    raise Unread(
                        f"part {number} needs part {need + 1}, and there are {len(self.parts)} parts"
                    )
                if need == number - 1:
                    raise Unread(f"part {number} needs itself")
        if not nx.is_directed_acyclic_graph(self._graph):
            circle = [str(edge[0] + 1) for edge in nx.find_cycle(self._graph)]
            raise Unread(f"the parts {', '.join(sorted(circle))} need each other in a circle")
        return self

    def mended(self) -> ThoughtGraph:
        """The graph without needs that lead nowhere or close a circle; those of earlier parts are kept first."""
        graph: nx.DiGraph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.parts)))
        wanted = [(need, place) for place, part in enumerate(self.parts) for need in part.needs]
        for need, place in sorted(wanted, key=lambda edge: edge[0] > edge[1]):
            if need in graph and not nx.has_path(graph, place, need):
                graph.add_edge(need, place)
        return ThoughtGraph(
            tuple(
                replace(part, needs=tuple(sorted(graph.predecessors(place))))
                for place, part in enumerate(self.parts)
            )
        )


# --- JSON ------------------------------------------------------------------------------------------


class _Open(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    question: Annotated[
        str, Field(min_length=1, description="the smaller question, as one that stands alone")
    ]
    needs: Annotated[list[int], Field(description="numbers of the parts that must be answered first")]


class _Told(_Open):
    answer: Annotated[str, Field(min_length=1, description="the answer that the solution gives to it")]


class OpenParts(BaseModel):
    """What a model writes of a question that is not answered yet."""

    parts: Annotated[list[_Open], Field(min_length=1)]


class ToldParts(BaseModel):
    """What a model writes of a solution."""

    parts: Annotated[list[_Told], Field(min_length=1)]


def _numbers(value: Any) -> list[int]:
    found = []
    for one in value if isinstance(value, list) else ():
        text = str(one).strip()
        if text.isascii() and text.isdigit() and len(text) < 6:
            found.append(int(text))
    return found


class _Loose(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    question: Annotated[str, Field(min_length=1)]
    needs: Annotated[list[int], BeforeValidator(_numbers)] = []
    answer: str = ""


class _LooseParts(BaseModel):
    parts: Annotated[list[_Loose], Field(min_length=1)]


def read_parts(text: str, model: type[OpenParts] | type[ToldParts], most: int) -> ThoughtGraph:
    """The graph that a reply ends with, as JSON. Raises Unread for one that is not in order."""
    found = read_json(text, model).parts
    if len(found) > most:
        raise Unread(f"it has {len(found)} parts, more than {most}")
    return _graph(found).check()


def mend_parts(text: str, most: int, *, told: bool) -> ThoughtGraph:
    """What can be used of a reply that `read_parts` does not read. Raises Unread where nothing can.

    The first `most` parts; needs that are missing are none, and those that are wrong are left out. A part of a
    solution (`told`) without an answer ends it.
    """
    found = read_json(text, _LooseParts).parts[:most]
    if told:
        found = [*_until_unanswered(found)]
    if not found:
        raise Unread("its first part has no answer")
    return _graph(found).mended()


def _until_unanswered(parts: Sequence[_Loose]) -> Iterator[_Loose]:
    for part in parts:
        if not part.answer.strip():
            return
        yield part


def _graph(parts: Sequence[Any]) -> ThoughtGraph:
    return ThoughtGraph(
        tuple(
            Part(
                part.question.strip() or "?",
                tuple(dict.fromkeys(number - 1 for number in part.needs)),
                getattr(part, "answer", "").strip(),
            )
            for part in parts
        )
    )


# --- assignments -----------------------------------------------------------------------------------


def read_assignments(text: str, question: str, most: int) -> ThoughtGraph:
    """The graph of lines `name=what`. Raises Unread for lines that are none, or that the question does not hold,
    and where the last is not what the question names last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(lines) <= most:
        raise Unread(f"it has {len(lines)} lines, not 1 to {most}")
    found = [_LINE.fullmatch(line) for line in lines]
    names = [line[1] for line in found if line]
    if len(names) < len(lines):
        raise Unread(f"its line {[bool(line) for line in found].index(False) + 1} is not `name=what`")
    if len(set(names)) < len(names):
        raise Unread("two lines have one name")
    for number, line in enumerate(lines, 1):
        if not re.search(rf"(?<!\w){re.escape(line)}(?!\w)", question):
            raise Unread(f"the question does not hold its line {number}")
    assigned = {*_ASSIGNED.findall(question)}
    if [word for word in _WORD.findall(question) if word in assigned][-1] != names[-1]:
        raise Unread("its last line is not what the question asks for")
    places = {name: place for place, name in enumerate(names)}
    return ThoughtGraph(
        tuple(
            Part(
                line,
                tuple(dict.fromkeys(places[word] for word in _WORD.findall(what) if word in places)),
                "",
                name,
            )
            for line, name, what in ((line[0], line[1], line[2]) for line in found if line)
        )
    ).check()
