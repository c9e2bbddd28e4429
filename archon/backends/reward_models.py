"""Reward models as data: how each is asked, and where its score stands in the reply.

`reward_models.yaml` describes the known ones; a configuration names one of them, or writes such a description
itself. Nothing here depends on a model's code: a new one is a few lines of YAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from archon.backends.base import Scores
from archon.candidate import Scale
from archon.component import Value
from archon.problem import Message

Way = Literal["tags", "tokens", "classify", "chat", "completions"]
"""How a server is asked for scores.

`tags`: vLLM's `/pooling` on a server that pools step tags: a row per tag, all steps in one pass.
`tokens`: `/pooling` on a server that classifies tokens: a row per token, of which each step's last one counts.
`classify`: vLLM's `/classify`: one row for what it is given, so that each step's prefix is a call.
`chat`: a chat per prefix whose next word is the judgement, read by its log-probabilities.
`completions`: raw text per prefix, whose next word is the judgement."""


_DEEPEST = 8
"""Marks in marks in marks are taken out so often."""


class RewardModel(Value):
    """How one reward model is asked and read."""

    source: str = ""
    """Where that is written."""
    checked: str = ""
    """What of it was compared with the source, and when."""
    tried: str = ""
    """On which real model it was tried here; empty where it rests on the source alone."""
    served: tuple[str, ...] = ()
    """The models' names, by which the description is found."""
    way: Way = "classify"
    """How the server is asked."""
    process: bool = True
    """Whether it scores steps; otherwise finished replies only."""
    prompt: Annotated[str, Field(pattern=r"\{question\}")] | None = None
    """What stands before the first step, as raw text with `{question}`; the server's chat template where not
    given. Of a chat by turns: what stands before the first step in its turn."""
    system: str = ""
    """What a chat begins with that has no system message of its own."""
    tag: str = ""
    """What marks the end of a step; a step that holds it (but for the space around it) loses it."""
    special: tuple[str, ...] = ()
    """Texts of its tokenizer's special tokens, by which a reply could end its turn and say what comes next; a
    step loses them, and whatever looks like `<|this|>`."""
    step: Annotated[str, Field(pattern=r"\{step\}")] = "{step}{tag}"
    """A step as it is written, with `{n}` for its number."""
    between: str = ""
    """What stands between two steps."""
    separator: str = ""
    """By tokens: a special token's text. Texts joined by it are told apart again, so that one request counts the
    tokens of all; without it each step's are counted by one of its own."""
    strip: bool = False
    """Whether a step loses the space around it."""
    good: str = "+"
    """By log-probabilities: the word that approves, also put in for the steps before."""
    bad: str = "-"
    """By log-probabilities: the word that disapproves."""
    labels: Annotated[int, Field(ge=1)] = 1
    """Numbers per row."""
    label: Annotated[int, Field(ge=0)] = 0
    """Which of them is the score."""
    activation: bool | None = None
    """Whether the server puts its numbers through a sigmoid or softmax; its own choice where not given."""
    scale: Scale = "probability"
    """What the score is."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """vLLM's options that its server must be started with."""
    note: str = ""
    """What else there is to know of it, for people."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.label >= self.labels:
            raise ValueError(f"`label` {self.label} of {self.labels} `labels`: the first is 0")
        if self.way == "tags" and not (self.tag and "{tag}" in self.step):
            raise ValueError("`tags` needs the `tag` that ends each step, and its place in `step`")
        if self.way == "completions" and self.prompt is None:
            raise ValueError("`completions` needs a `prompt`")
        if self.way in ("chat", "completions") and self.scale not in ("probability", "logit"):
            raise ValueError(f"by log-probabilities a score is a probability, not a {self.scale}")
        return self

    @property
    def flags(self) -> str:
        """The options of its server, as vLLM's command line takes them."""
        words = []
        for name, value in self.options.items():
            words.append(f"--{name.replace('_', '-')}")
            words.append(value if isinstance(value, str) else f"'{json.dumps(value)}'")
        return " ".join(words)

    @property
    def scores(self) -> Scores:
        """What of a reply it scores."""
        if not self.process:
            return "outcome"
        return "steps" if self.way in ("tags", "tokens") else "prefix"

    def written(self, steps: Sequence[str]) -> list[str]:
        """The steps as the model reads them; no step can hold another's end."""
        marks = [mark for mark in (self.tag.strip(), self.separator, *self.special) if mark]
        found = []
        for number, text in enumerate(steps, 1):
            plain = _without(text, marks)
            step = plain.strip() if self.strip else plain
            places = {"n": str(number), "step": step, "tag": self.tag}
            whole = re.sub(r"\{(n|step|tag)\}", lambda place, by=places: by[place[1]], self.step)  # type: ignore[misc]
            found.append(whole if number == 1 else self.between + whole)
        return found

    def chat(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """The chat as it is sent."""
        said = [{"role": m.role, "content": m.content} for m in messages]
        lacks = self.system and not any(m.role == "system" for m in messages)
        return [{"role": "system", "content": self.system}, *said] if lacks else said

    def opening(self, messages: Sequence[Message]) -> str:
        """What stands before the first step, with the question filled in."""
        assert self.prompt is not None
        said = [m.content if len(messages) == 1 else f"{m.role}: {m.content}" for m in messages]
        return self.prompt.replace("{question}", "\n\n".join(said))


def _without(text: str, marks: Sequence[str]) -> str:
    """The text without these marks and without special tokens, also where the rest would join to another."""
    found = re.compile("|".join([r"<\|[^<>|\s]{1,64}\|>", *map(re.escape, marks)]))
    for _ in range(_DEEPEST):
        left = found.sub("", text)
        if left == text:
            return text
        text = left
    return found.sub("\ufffd", text)  # nested on purpose: what stands between joins to nothing


@cache
def known() -> Mapping[str, RewardModel]:
    """The descriptions that are shipped, by their names."""
    from archon.config import read_value

    class Table(Value):
        models: dict[str, RewardModel]

    text = files("archon.backends").joinpath("reward_models.yaml").read_text(encoding="utf-8")
    return read_value(Table, text, "reward_models.yaml").models


def described(model: str) -> RewardModel | None:
    """The description of a model by its name, as its server spells it."""
    return next((one for one in known().values() if model in one.served), None)
