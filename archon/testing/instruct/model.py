"""The model of rules: in process as a script, or over HTTP as a server."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Finish, TokenLogprob
from archon.component import Component
from archon.pipeline import Pipeline
from archon.testing.instruct.malformed import ALL, Malformation, Said, dressed, spoiled
from archon.testing.instruct.mind import Mind, Skill
from archon.testing.instruct.reading import Question, Recogniser
from archon.testing.instruct.rules import Rule, obey
from archon.testing.instruct.techniques import RULES
from archon.testing.server import Answer, Asked, StubServer

_TOKEN = re.compile(r"\s*\S+|\s+$")
_SURE, _UNSURE = -0.02, -1.2
"""Log-probabilities of a token that the model is sure of, and of one that it is not."""


class Instruct:
    """A model that obeys prompts by rules, with so much skill at each step.

    The reply depends on the seed, the request and the sample's index alone; at temperature 0 every sample is the
    first. Limits on new tokens and stop strings hold; a token is a word with the white space before it.
    """

    def __init__(
        self,
        skill: Skill | None = None,
        *,
        noise: float = 0.0,
        malformed: float = 0.0,
        kinds: Sequence[Malformation] = ALL,
        seed: int = 0,
        prompts: Iterable[Component | Pipeline] = (),
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        """`noise` is the share of replies in form that are dressed up, `malformed` that of replies out of form, of
        these `kinds`. `prompts` are stages, verifiers and pipelines whose own prompts are to be known beside the
        defaults, `rules` go before RULES (techniques.py).
        """
        self.skill = skill or Skill()
        self.noise = noise
        self.malformed = malformed
        self.kinds = tuple(kinds)
        self.seed = seed
        self.rules = {**RULES, **(rules or {})}
        self.recognise = Recogniser(prompts)
        self.asked: Counter[str] = Counter()
        """How often each prompt was asked; those that nobody has under the empty name."""
        self.spoiled: Counter[str] = Counter()
        """How many replies went wrong, by kind."""
        self.again = 0
        """How often it was asked again, as a reply could not be read."""
        self.tokens = 0
        """How many tokens were written."""

    # --- replies -----------------------------------------------------------------------------------

    def reply(self, turns: Sequence[Mapping[str, str]], settings: Mapping[str, Any], index: int) -> Reply:
        """The reply to a chat. `settings` are the request's: max_tokens, stop, temperature, logprobs, ..."""
        question = self.recognise(turns)
        self.asked[question.prompt] += 1
        self.again += question.again
        index = 0 if settings.get("temperature") == 0 else index
        content = json.dumps([turns, *(settings.get(name) for name in _CONTENT)])
        key = f"{self.seed} {hashlib.sha256(content.encode('utf-8', 'replace')).hexdigest()} {index}"
        mind = Mind(question, self.skill, key)
        said = self._said(mind)
        text, stop = _until(said.text, settings.get("stop") or ())
        tokens = _TOKEN.findall(text)
        finish: Finish = said.finish if stop is None else "stop_string"
        limit = settings.get("max_tokens")
        if limit is not None and len(tokens) > limit:
            tokens, finish, stop = tokens[:limit], "length", None
        self.tokens += len(tokens)
        logprobs = _logprobs(tokens, mind, question) if settings.get("logprobs") is not None else None
        return Reply("".join(tokens), finish, stop, logprobs=logprobs)

    def _said(self, mind: Mind) -> Said:
        text = self.rules.get(mind.question.prompt, obey)(mind)
        rng = mind.rng("form")
        if rng.random() < self.malformed:
            kind = rng.choice(self.kinds)
            self.spoiled[kind] += 1
            return spoiled(text, kind, rng)
        return Said(dressed(text, rng) if rng.random() < self.noise else text)

    # --- in process --------------------------------------------------------------------------------

    def model(self, name: str = "instruct", **settings: Any) -> Scripted:
        """This model in process, which says what the server says to that model's name."""
        skill = ",".join(f"{step}={value}" for step, value in self.skill)
        identity = f"{name} {self.seed} {skill} {self.noise} {self.malformed} {','.join(self.kinds)}"
        return Scripted(reply=partial(self._scripted, name), **{"identity": identity, **settings})

    def _scripted(self, name: str, call: Call) -> Reply:
        request = call.request
        seed = request.seed_of(call.index)
        sampling = request.sampling.model_dump(exclude_defaults=True, mode="json")
        return self.reply(request.turns, {**sampling, "model": name}, call.index if seed is None else seed)

    # --- over HTTP ---------------------------------------------------------------------------------

    def server(self, *, delay: Callable[[Asked], float] | float = 0.0, port: int = 0) -> StubServer:
        """This model behind an OpenAI-compatible server, as a context manager; replies take `delay` seconds."""
        return StubServer(_Script(self, delay), port=port)


class _Script:
    """Answers requests. A sample's index is its seed where one is sent, or counts the requests that are equal."""

    def __init__(self, instruct: Instruct, delay: Callable[[Asked], float] | float) -> None:
        self._instruct = instruct
        self._delay = delay
        self._seen: Counter[str] = Counter()

    def __call__(self, asked: Asked) -> Answer:
        body = dict(asked.body)
        turns = body.get("messages") or [{"role": "user", "content": str(body.get("prompt", ""))}]
        settings = {**body, "max_tokens": body.get("max_tokens", body.get("max_completion_tokens"))}
        if not body.get("logprobs"):
            settings["logprobs"] = None
        n, first = int(body.get("n") or 1), body.get("seed")
        if first is None:
            content = json.dumps([turns, *(settings.get(name) for name in _CONTENT)])
            first = self._seen[content]
            self._seen[content] += n
        replies = [self._instruct.reply(turns, settings, int(first) + i) for i in range(n)]
        answers = [
            _answer(reply, self._delay(asked) if callable(self._delay) else self._delay) for reply in replies
        ]
        return replace(answers[0], others=tuple(answers[1:]))


_CONTENT = ("model", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop")
"""What of a request decides on its reply, beside its chat, the sample and the seed."""


def _answer(reply: Reply, delay: float) -> Answer:
    extra: dict[str, Any] = {}
    if reply.logprobs is not None:
        content = [
            {
                "token": t.token,
                "logprob": t.logprob,
                "top_logprobs": [{"token": w, "logprob": p} for w, p in t.top],
            }
            for t in reply.logprobs
        ]
        extra["logprobs"] = {"content": content}
    finish = "length" if reply.finish == "length" else "stop"
    return Answer(
        reply.text, delay, finish=finish, completion_tokens=len(_TOKEN.findall(reply.text)), extra=extra
    )


def _until(text: str, stops: Sequence[str] | str) -> tuple[str, str | None]:
    """The text before the first stop string, and which it is."""
    found = [(at, s) for s in ([stops] if isinstance(stops, str) else stops) if (at := text.find(s)) >= 0]
    return (text[: min(found)[0]], min(found)[1]) if found else (text, None)


def _logprobs(tokens: Sequence[str], mind: Mind, question: Question) -> tuple[TokenLogprob, ...]:
    """Sure of what is right, and unsure of what is not, as far as the model's confidence is well placed."""
    form = question.form
    right = mind.is_right("".join(tokens)) if form is None else True
    sure = right == mind.succeeds("confidence")
    value = _SURE if sure else _UNSURE
    others = form.options if form is not None and form.kind == "word" else ()
    return tuple(
        TokenLogprob(token, value, ((token, value), *((o, -3.0) for o in others if o != token)))
        for token in tokens
    )
