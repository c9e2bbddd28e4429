"""Asking a model in words until its reply can be read, and no more often than is allowed.

Cost: one call, and up to `again` more where replies cannot be read: a plan of c calls becomes c to c * (1 + again)
(`asked`). Asked again, the model is shown its reply, told in one line what could not be read, and told the form
once more. That is another question with a pool of its own, so no stored sample comes twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Generic, NamedTuple, TypeVar

from archon.backends.base import Request, Sampling
from archon.candidate import Candidate
from archon.draw import Draw
from archon.problem import Message
from archon.prompting.marks import safe
from archon.prompting.readers import Unread
from archon.run import Run
from archon.stage import Count
from archon.tasks import settle

T = TypeVar("T")

NO_REPLY = "there is no reply"
CUT_OFF = "it was cut off at the most that a reply may have; be shorter"
AGAIN = "Your reply could not be read: {why}."
_HEAD, _TAIL = 1_000, 3_000
"""Characters at both ends of a reply that the model is shown again; what is between is left out."""
_DEFAULT = Sampling()


class Asked(NamedTuple):
    """One question to a model."""

    model: str
    """Which of the session's models is asked."""
    messages: tuple[Message, ...]
    """The question (`chat`)."""
    sampling: Sampling = _DEFAULT
    """How the reply is sampled; what is not given is the model's own."""
    again: int = 1
    """How often it is asked again where a reply is cut off or cannot be read."""
    form: str = ""
    """The form of the reply, in a sentence (archon/prompting/forms.py), for when it is asked again."""
    cut_off: bool = False
    """Whether a reply that was cut off is read all the same."""
    draw: int = 0
    """Which of several independent draws of one question this is."""
    parents: tuple[Candidate, ...] = ()
    """What the question is about, for the replies' lineage."""


class Said(NamedTuple, Generic[T]):
    """What a model said.

    Not read and no reply at all are told apart by `candidates`: without any, a budget, the deadline or a failed
    call was in the way, and the outcome says which.
    """

    value: T | None
    """What was read; None where nothing was."""
    text: str
    """The last reply."""
    why: str
    """Why nothing was read; empty where something was."""
    candidates: tuple[Candidate, ...]
    """The replies in order; the last is the one that was read, or the last that was not."""

    @property
    def read(self) -> bool:
        """Whether there is a value."""
        return not self.why


async def ask(run: Run, question: Asked, read: Callable[[str], T]) -> Said[T]:
    """Ask, and read the reply with `read`, which returns a value or raises Unread.

    Equal questions of one stage are asked once per problem, and so must be read in the same way; `draw` tells
    those apart that are to be asked for themselves. Raises what `run.sample` raises.
    """
    (said,) = await ask_several(run, question, read, 1)
    return said


async def ask_several(run: Run, question: Asked, read: Callable[[str], T], n: int) -> tuple[Said[T], ...]:
    """`ask` with n independent replies, drawn together; each that cannot be read is asked for again by itself.

    Always n, in the order of their draws; where there was no reply, they say so.
    """
    task = run.kept(
        f"ask {run.stage} {_key(question, n)}", lambda: run.spawn(_several(run, question, read, n))
    )
    return await asyncio.shield(task)


def asked(calls: Count, again: int) -> Count:
    """The calls of a plan in which every question may be asked again so often."""
    return Count(calls.low, None if calls.high is None else calls.high * (1 + again))


async def _several(run: Run, question: Asked, read: Callable[[str], T], n: int) -> tuple[Said[T], ...]:
    said: list[tuple[int, asyncio.Task[Said[T]]]] = []
    try:
        async with aclosing(_drawn(run, question, question.messages, n)) as replies:
            async for reply in replies:
                said.append((reply.index, run.spawn(followed(run, question, read, reply))))
        found = [await task for _, task in sorted(said, key=lambda one: one[0])]
    finally:
        await settle(task for _, task in said)
    return (*found, *(Said[T](None, "", NO_REPLY, ()) for _ in range(n - len(found))))


async def followed(run: Run, question: Asked, read: Callable[[str], T], reply: Candidate) -> Said[T]:
    """What a reply to the question says that is there already, or what the model says when it is asked again."""
    replies = [reply]
    messages = question.messages
    while True:
        try:
            return Said(_value(question, read, reply), reply.text, "", tuple(replies))
        except Unread as unread:
            why = str(unread)
        if len(replies) > question.again:
            return Said(None, reply.text, why, tuple(replies))
        messages = (*messages, *_once_more(reply, why, question.form))
        following = [one async for one in _drawn(run, question, messages, 1)]
        if not following:
            return Said(None, reply.text, why, tuple(replies))
        reply = following[0]
        replies.append(reply)


def _value(question: Asked, read: Callable[[str], T], reply: Candidate) -> T:
    if reply.finish == "length" and not question.cut_off:
        raise Unread(CUT_OFF)
    return read(reply.text)


def _drawn(run: Run, question: Asked, messages: Sequence[Message], n: int) -> Draw:
    return run.sample(
        question.model,
        n=n,
        messages=messages,
        sampling=question.sampling,
        parents=question.parents,
        place=question.draw,
    )


def _once_more(reply: Candidate, why: str, form: str) -> tuple[Message, Message]:
    text = safe(reply.text)
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n[...]\n{text[-_TAIL:]}"
    told = f"{AGAIN.format(why=why)} {form}".rstrip()
    return (
        Message(role="assistant", content=text if text.strip() else "(empty)"),
        Message(role="user", content=told),
    )


def _key(question: Asked, n: int) -> str:
    identity = {
        "model": question.model,
        "n": n,
        "again": question.again,
        "form": question.form,
        "cut_off": question.cut_off,
        "draw": question.draw,
    }
    content = Request(question.messages, sampling=question.sampling).key(identity)
    return hashlib.sha256(content.encode()).hexdigest()
