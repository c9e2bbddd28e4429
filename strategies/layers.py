"""What Archon's layers have in common: candidates in their order, shown with their critiques, and judged.

Source: Saad-Falcon et al. 2024, "Archon: An Architecture Search Framework for Inference-Time Techniques"
(arXiv 2409.15254), section 3.1, where every component takes a list of candidates, best first where a component
before it ranked. Cost: none of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.prompting import Posed, Unread, pose, question_of
from archon.run import Run
from archon.stage import Count, Stream
from archon.strategies.archon_rules import ArchonComponent
from archon.strategies.asking import Asking

CRITIQUE = "critique"
"""The note that holds a critique."""
_NO_CRITIQUE = "(none)"


class Layer(ArchonComponent, Asking):
    """A component that attaches verdicts."""

    called: Annotated[str, Field(min_length=1)] | None = None
    """What its verdicts go by; the stage's name where not given."""

    @property
    def title(self) -> str:
        """What is said here, or the stage's name."""
        return self.called or self.name


def best_first(candidates: Sequence[Candidate], run: Run) -> list[Candidate]:
    """The candidates as they were written, and by their scores where they have some, the best first.

    The last verifier's score decides; between equals the one before it, and so on. Who has no score comes after
    those who have one.
    """
    ordered = sorted(candidates, key=run.birth)
    ages: dict[str, int] = {}
    for candidate in ordered:
        for age, name in enumerate(reversed(tuple(candidate.verdicts))):
            ages[name] = min(age, ages.get(name, age))
    for name in sorted(ages, key=ages.__getitem__, reverse=True):
        ordered.sort(key=lambda candidate: _behind(candidate.score(name)))
    return ordered


def ranks_of(merits: Sequence[float | None]) -> list[int | None]:
    """Ranks by merit, 1 for the highest; equal merits share the better rank, and none has none."""
    known = [merit for merit in merits if merit is not None]
    return [None if merit is None else 1 + sum(other > merit for other in known) for merit in merits]


class Shown(NamedTuple):
    """Candidates as they are put into prompts."""

    problem: Problem
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    """Whose notes are shown as critiques."""

    def some(self, indices: Sequence[int]) -> Shown:
        """Some of them, in this order."""
        return self._replace(candidates=tuple(self.candidates[i] for i in indices))

    def critiques(self) -> list[str]:
        """What was noted of each; empty where nothing was of any."""
        texts = ["\n\n".join(c.notes[n] for n in self.notes if n in c.notes) for c in self.candidates]
        return [text or _NO_CRITIQUE for text in texts] if any(texts) else []

    def posed(self, template: str, form: Callable[[str], str], **given: str) -> Posed:
        """A question about all of them: the places `question`, `answers`, `critiques` and their texts; for models
        that know answers as replies, also `replies`."""
        answers, critiques = [c.text for c in self.candidates], self.critiques()
        return pose(
            template,
            form,
            given=given,
            question=question_of(self.problem),
            answers=answers,
            replies=answers,
            critiques=critiques,
        )

    def posed_alone(
        self, template: str, form: Callable[[str], str], **material: str | Sequence[str]
    ) -> Posed:
        """A question about the only one: the places `question`, `answer`, `critique` and their texts."""
        (candidate,) = self.candidates
        critiques = self.critiques()
        return pose(
            template,
            form,
            given={} if critiques else {"critique": "", "critique_text": ""},
            question=question_of(self.problem),
            answer=candidate.text,
            **({"critique": critiques[0]} if critiques else {}),
            **material,
        )


async def judged(
    stage: Layer,
    judge: Callable[[Candidate], Awaitable[Verdict]],
    candidates: Stream,
    run: Run,
    first: int | None = None,
) -> AsyncGenerator[tuple[Candidate, Verdict], None]:
    """Candidates with their verdicts as they come, in order. With `first`, one after the other in the order of
    `best_first`, no more at once than are still wanted, until so many are accepted; the others are left out."""

    async def one(candidate: Candidate) -> tuple[Candidate, Verdict]:
        verdict = await judge(candidate)
        return run.judged([candidate], [verdict], stage.name)[0], verdict

    if first is None:
        async for pair in run.map(one, candidates):
            yield pair
        return
    waiting = best_first([candidate async for candidate in candidates], run)
    while waiting and first > 0:
        now, waiting = waiting[:first], waiting[first:]
        for pair in await run.gather(*map(one, now)):
            first -= pair[1].accepted is True
            yield pair


def read_words(text: str) -> str:
    """A reply in words as it is. Raises Unread where there are none."""
    if not text.strip():
        raise Unread("it is empty")
    return text.strip()


def unread(why: str) -> str:
    """What a verdict says of a reply that could not be read; nothing where all was."""
    return f"a reply could not be read: {why}" if why else ""


def at_most(count: Count, most: int | None) -> Count:
    """A count that is cut off."""
    if most is None:
        return count
    return Count(min(most, count.low), most if count.high is None else min(most, count.high))


def _behind(score: float | None) -> tuple[bool, float]:
    return (True, 0.0) if score is None else (False, -score)
