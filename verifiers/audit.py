"""What a verifier wrongly accepts and wrongly rejects, by trick, before any answer is sampled.

The corpus (verifiers/tricks.py) holds replies that a language model could give: right in forms that must be
accepted, and wrong in ways that look right to who looks the wrong way (negated, listed, somewhere in the text,
echoed, addressed to the judge). A verifier that falls for a trick here is optimised against it by every
best-of-N. Cost: the verifier's calls for about 250 replies; none where it calls no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from archon import registry
from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Verdict
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.usage import NOTHING, Usage, total
from archon.verifier import Verifier
from archon.verifiers.tricks import CORPUS, TRICKS, Item

AUDITED = "audited replies"
"""The name of the model that plays the corpus."""


class Finding(NamedTuple):
    """What the verifier said of one reply."""

    question: str
    trick: str
    reply: str
    right: bool
    verdict: Verdict


@dataclass(frozen=True)
class Audit:
    """Everything that the verifier said."""

    verifier: str
    findings: Sequence[Finding]
    usage: Usage = NOTHING
    skipped: Sequence[str] = ()
    """Kinds of questions that it cannot speak about."""

    def wrongly_accepted(self) -> list[Finding]:
        """Wrong replies that it accepts."""
        return [f for f in self.findings if not f.right and f.verdict.accepted is True]

    def wrongly_rejected(self) -> list[Finding]:
        """Right replies that it rejects."""
        return [f for f in self.findings if f.right and f.verdict.accepted is False]

    def by_trick(self) -> dict[str, dict[str, int]]:
        """Per trick: how many replies, and how they were judged."""
        counts: dict[str, dict[str, int]] = {}
        for name in TRICKS:
            said = [f.verdict.accepted for f in self.findings if f.trick == name]
            if said:
                counts[name] = {
                    "replies": len(said),
                    "accepted": said.count(True),
                    "rejected": said.count(False),
                    "undecided": said.count(None),
                }
        return counts

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {
            "verifier": self.verifier,
            "replies": len(self.findings),
            "wrongly_accepted": len(self.wrongly_accepted()),
            "wrongly_rejected": len(self.wrongly_rejected()),
            "undecided": sum(f.verdict.accepted is None for f in self.findings),
            "tricks": {
                name: {"must_accept": TRICKS[name].right, "about": TRICKS[name].about, **counts}
                for name, counts in self.by_trick().items()
            },
            "mistakes": [
                {
                    "trick": f.trick,
                    "question": f.question,
                    "reply": f.reply,
                    "accepted": f.verdict.accepted,
                    "score": f.verdict.score,
                    "detail": f.verdict.detail,
                }
                for f in (*self.wrongly_accepted(), *self.wrongly_rejected())
            ],
            "skipped": list(self.skipped),
            "usage": self.usage.as_json(),
        }


def problems(corpus: Sequence[Item] = CORPUS) -> list[Problem]:
    """The questions as a pipeline gets them, with what an answer verifier may know."""
    return [
        Problem.ask(
            item.question,
            id=f"audit/{number}",
            answer=item.kind,
            choices=item.choices,
            info={
                "expected": item.right,
                "pattern": _pattern(item.right),
                "baseline": item.stated(item.wrong),
            },
        )
        for number, item in enumerate(corpus)
    ]


async def audit(
    verifier: Verifier, models: Mapping[str, Model] | None = None, *, corpus: Sequence[Item] = CORPUS
) -> Audit:
    """Let a verifier judge the corpus. Its models are those of `models`; nothing else is called."""
    asked = list(zip(problems(corpus), corpus, strict=True))
    spoken = [(problem, item) for problem, item in asked if verifier.applies(problem)]
    replies = {problem.id: list(item.replies()) for problem, item in spoken}
    table = {name: tuple(reply.text for reply in said) for name, said in replies.items()}
    sample, verify = registry.find("stage", "sample"), registry.find("stage", "verify")
    findings: list[Finding] = []
    async with Session(models={**(models or {}), AUDITED: Scripted(replies=table)}) as session:
        for problem, item in spoken:
            said = replies[problem.id]
            pipeline: Pipeline = sample(model=AUDITED, n=len(said)) | verify(verifier=verifier)
            outcome = await session.solve(pipeline, problem)
            for candidate in outcome.candidates:
                trick = said[candidate.index].trick
                verdict = candidate.verdicts[verifier.name]
                findings.append(Finding(item.question, trick, candidate.text, TRICKS[trick].right, verdict))
        usage = total(u for name, u in session.ledger.by_model.items() if name != AUDITED)
    kinds = dict.fromkeys(item.kind for problem, item in asked if not verifier.applies(problem))
    return Audit(verifier.name, findings, usage, tuple(kinds))


def _pattern(answer: str) -> str:
    """What somebody in a hurry would look for: the answer, as a word of its own."""
    return rf"(?<!\w){re.escape(answer)}(?!\w)"
