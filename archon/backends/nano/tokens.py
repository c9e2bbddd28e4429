"""The tokens of the nano models: one per character, and the chat as they read it.

Characters are newline and the printable ASCII ones; every other is `<|unk|>`. Text is never parsed for special
tokens, so no text can end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from archon.errors import RequestRejected

if TYPE_CHECKING:
    from archon.problem import Message

PAD, BOS, EOS, UNK, SEP, NEWLINE = range(6)
_FIRST = 6
_SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>", "<|sep|>")
VOCABULARY = _FIRST + 95


def encode(text: str) -> list[int]:
    """One token per character."""
    return [_FIRST + ord(c) - 32 if " " <= c <= "~" else NEWLINE if c == "\n" else UNK for c in text]


def decode(tokens: Iterable[int]) -> str:
    """The text of tokens; special ones have none."""
    return "".join(chr(t - _FIRST + 32) if t >= _FIRST else "\n" if t == NEWLINE else "" for t in tokens)


def has_text(token: int) -> bool:
    """Whether it is a character."""
    return token >= NEWLINE


def shown(token: int) -> str:
    """One token as log-probabilities name it: its character, or its name."""
    return _SPECIAL[token] if token < len(_SPECIAL) else decode((token,))


def chat(messages: Sequence[Message], prefix: str = "") -> list[int]:
    """A chat whose next turn is the assistant's, which may begin with `prefix`. Raises RequestRejected."""
    tokens = [BOS]
    for message in messages:
        if message.role == "tool":
            raise RequestRejected("the nano models know no tools; leave out messages of the role 'tool'")
        tokens += encode(message.content)
        tokens.append({"system": NEWLINE, "user": SEP, "assistant": EOS}[message.role])
    return tokens + encode(prefix)


def raw(prompt: str, prefix: str = "") -> list[int]:
    """Raw text to continue."""
    return [BOS, *encode(prompt), *encode(prefix)]
