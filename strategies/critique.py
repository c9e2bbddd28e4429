"""A model names the strengths and weaknesses of every candidate.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the critic sees all candidates and writes
about each, in one call; rankers and fusers after it are shown what it wrote. Cost: 1 call, or n / `batch` rounded up,
each with up to `again` more. Equal candidates of different calls are asked about once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, Unread, asked, no_form, places_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.archon_rules import ArchonComponent
from archon.strategies.asking import Asking
from archon.strategies.layers import CRITIQUE, Shown, best_first, read_words

PROMPT = """\
Answers were given to a question. Examine each of them for whoever must choose among them or improve them.

{question}

{answers}

For each answer, first its strengths, then its weaknesses: what is right and what is wrong in it, where exactly and why;
what it leaves out of what is asked; what is unclear. Work out yourself what a right answer must hold; that many answers
agree proves nothing. Be as brief as can be, and say so where there is nothing to fault. {form}"""
_NAME = "CRITIQUE"
_LONGEST_LINE = 200
_HEADER = re.compile(r"(end of )?critique ([0-9]{1,6})", re.IGNORECASE)


class Critique(ArchonComponent, Asking):
    """Note on each candidate what a model says for and against it; all of them go on, in their order.

    What the reply does not say of a candidate, even when it is asked again, is not noted on it.
    """

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    batch: Annotated[int, Field(ge=1)] | None = None
    """How many candidates one call is about; all where not given, as in the paper. With 1 they flow through as they
    arrive."""
    called: Annotated[str, Field(min_length=1)] = CRITIQUE
    """The note's name on the candidate."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text|replies_text", optional=("form",))
    ] = PROMPT
    """Asks for critiques. Without `{form}` each candidate is asked about by itself, and the reply is its critique."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all where one call is about several."""
        if self._size == 1:

            async def noted(candidate: Candidate) -> Candidate:
                (text,) = await self._about(Shown(problem, (candidate,), ()), run)
                return candidate.with_note(self.called, text) if text else candidate

            async for candidate in run.map(noted, candidates):
                yield candidate
            return
        arrived = [candidate async for candidate in candidates]
        shown = best_first(arrived, run)
        size = self._size or max(1, len(shown))
        batches = [Shown(problem, tuple(shown[i : i + size]), ()) for i in range(0, len(shown), size)]
        written = await run.gather(*(self._about(batch, run) for batch in batches))
        texts = dict(zip((c.id for c in shown), (t for batch in written for t in batch), strict=True))
        for candidate in arrived:
            text = texts[candidate.id]
            yield candidate.with_note(self.called, text) if text else candidate

    def plan(self, incoming: Count) -> Plan:
        """One call per batch; all candidates pass."""

        def batches(n: int) -> int:
            return min(n, 1) if self._size is None else -(-n // self._size)

        high = incoming.high
        if high is None and self._size is None:
            high = 1
        calls = Count(batches(incoming.low), None if high is None else batches(high))
        return Plan(asked(calls, self.again), incoming)

    @property
    def _size(self) -> int | None:
        return self.batch if "form" in places_of(self.prompt) else 1

    async def _about(self, shown: Shown, run: Run) -> list[str]:
        """What is said of each; empty where nothing could be read."""
        n = len(shown.candidates)
        if "form" not in places_of(self.prompt):
            posed = shown.posed(self.prompt, no_form)
            alone = await self.ask(run, posed, read_words, parents=shown.candidates)
            return [alone.value or ""]
        posed = shown.posed(self.prompt, partial(critiques_form, n))
        reader = partial(read_critiques, n=n, mark=posed.mark)
        said = await self.ask(run, posed, reader, parents=shown.candidates)
        if said.value is not None:
            return [*said.value]
        whole = not said.candidates or said.candidates[-1].finish != "length"
        found = sections(said.text, posed.mark, whole=whole)
        return [found.get(number, "") for number in range(1, n + 1)]


# --- the form of a reply ---------------------------------------------------------------------------


def critiques_form(n: int, mark: str) -> str:
    """For `read_critiques`."""
    numbers = "the number 1" if n == 1 else f"each NUMBER from 1 to {n}"
    return (
        f"Write, for {numbers}, a line `{_NAME} NUMBER {mark}`, then what is to be said of that answer, then a line "
        f"`END OF {_NAME} NUMBER {mark}`. Write nothing else."
    )


def read_critiques(text: str, n: int, mark: str) -> tuple[str, ...]:
    """The critiques of all n, in their order. Raises Unread where one is missing."""
    found = sections(text, mark)
    missing = [number for number in range(1, n + 1) if number not in found]
    if missing:
        raise Unread(f"it has no critique after a line `{_NAME} {missing[0]} {mark}`")
    return tuple(found[number] for number in range(1, n + 1))


def sections(text: str, mark: str, *, whole: bool = True) -> dict[int, str]:
    """What stands between each line `CRITIQUE NUMBER MARK` and the next such line, or its end; of equal numbers the
    last. The last section may end with the text where that is `whole`."""
    found: dict[int, str] = {}
    number: int | None = None
    lines: list[str] = []
    for line in text.splitlines():
        header = _header(line, mark)
        if header is None:
            lines.append(line)
            continue
        _keep(found, number, lines)
        number, lines = header or None, []
    if whole:
        _keep(found, number, lines)
    return found


def _keep(found: dict[int, str], number: int | None, lines: Sequence[str]) -> None:
    critique = "\n".join(lines).strip()
    if number is not None and critique:
        found[number] = critique


def _header(line: str, mark: str) -> int | None:
    """The number of the section that the line begins; 0 where it ends one; None where it does neither."""
    words = line.strip(" \t*_`\"'#[]():").split() if len(line) <= _LONGEST_LINE else []
    if len(words) < 3 or words[-1].casefold() != mark.casefold():
        return None
    match = _HEADER.fullmatch(" ".join(words[:-1]))
    return None if match is None else 0 if match[1] else int(match[2])
