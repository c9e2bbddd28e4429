"""What tests of Archon's layers share: answers that are numbers, a model that knows which is best, one outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archon.backends.base import Model
from archon.backends.scripted import Reply
from archon.candidate import Candidate, Outcome
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.stage import Stage
from archon.strategies.sample import Sample
from tests.strategies.made import PROBLEM, replies
from tests.strategies.playing import Played, Question, Said, played

GARBAGE: list[Any] = [
    "",
    "I cannot do that.",
    "Ranking: 1 > 2",
    "CRITIQUE 1\nfine",
    "{",
    "[1] [2]",
    Reply("cut o", finish="length"),
]
"""Replies that no reader accepts."""


def value(text: str) -> int:
    """The number an answer ends with: how good it is."""
    return int(text.split()[-1])


def best_to_worst(texts: Sequence[str]) -> list[int]:
    """The numbers, from 1, of texts in the order of their values; equal ones in theirs."""
    return [1 + i for i in sorted(range(len(texts)), key=lambda i: -value(texts[i]))]


def layered(
    stage: Stage | Pipeline,
    answers: Sequence[str],
    reply: Callable[[Question], Said],
    steps: Mapping[str, str],
    problem: Problem = PROBLEM,
    models: Mapping[str, Model] | None = None,
    **settings: Any,
) -> tuple[Outcome, Played]:
    """The outcome of a stage whose model is named `m`, on these answers, and what that model was asked."""
    mind = Played(steps, reply)
    whole = Sample(n=len(answers)) | stage
    named = {"default": replies(*answers), "m": mind.model, **(models or {})}
    return played(whole, named, problem, **settings), mind


def ids(candidates: Sequence[Candidate]) -> list[int]:
    return [candidate.index for candidate in candidates]


def spent(outcome: Outcome, stage: str) -> int:
    """The calls of a stage."""
    used = outcome.by_stage.get(stage)
    return 0 if used is None else used.requests


def in_turn(*said: Callable[[Question], Said] | Said) -> Callable[[Question], Said]:
    """One reply after the other; the last from there on."""
    calls: list[Question] = []

    def reply(question: Question) -> Said:
        calls.append(question)
        now = said[min(len(calls), len(said)) - 1]
        return now(question) if callable(now) else now

    return reply
