"""What a vLLM server can do, as it says itself: its version, its models, and the fields its requests have.

vLLM ignores a field it does not know without a word: a misspelt one, or one that a later version has renamed
(`guided_choice`), changes nothing and is billed all the same. But it publishes a description of its requests
(`/openapi.json`), so what a user adds (`extra`) is looked up there before anything is sent. A server that
publishes none is believed; only what is known to be gone is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from archon.backends.base import Capabilities, Request
from archon.errors import CapabilityError
from archon.suggest import hint

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_GONE = {
    "guided_choice": "structured_outputs: {choice: [...]}",
    "guided_json": "structured_outputs: {json: {...}}",
    "guided_regex": "structured_outputs: {regex: ...}",
    "guided_grammar": "structured_outputs: {grammar: ...}",
}
"""Fields of earlier versions, and what says the same in later ones."""
_GONE_SINCE = (0, 12)
_CONTINUES = "continue_final_message"
_TELLS = "prompt_logprobs"


class Known(NamedTuple):
    """What one server told about itself: nothing where it told nothing."""

    version: str = ""
    context: int | None = None
    """Tokens that a prompt and its reply can have together."""

    def capabilities(self, table: Capabilities) -> Capabilities:
        """The table's, with what this server adds."""
        if self.context is None or table.max_tokens is not None:
            return table
        return table.model_copy(update={"max_tokens": self.context})

    def check(self, request: Request, fields: frozenset[str], api: str) -> None:
        """Raise CapabilityError where the server would ignore a part of the request. `fields` are those it
        publishes; empty where it publishes none."""
        sent = [*request.sampling.extra]
        if request.prefix and api == "chat":
            sent.append(_CONTINUES)
        for field in sent:
            if field in fields or not (fields or self._dropped(field)):
                continue
            version = f"vLLM {self.version}" if self.version else "this vLLM"
            if field == _CONTINUES:
                raise CapabilityError(
                    f"{version} cannot continue a given beginning of a reply. Use a later one, or `api: completions`"
                )
            instead = f"Write `{_GONE[field]}` instead" if field in _GONE else hint(field, fields)
            raise CapabilityError(
                f"{version} has no field {field!r} (in `extra`), and would ignore it without a word. {instead}"
            )

    def check_reading(self, chat: bool, fields: frozenset[str]) -> None:
        """Raise CapabilityError where the server does not tell the log-probabilities of given text, or not of raw
        text. `fields` are those of its completions; empty where it publishes none."""
        version = f"vLLM {self.version}" if self.version else "this vLLM"
        if fields and _TELLS not in fields:
            raise CapabilityError(
                f"{version} does not tell how likely a given text is (`{_TELLS}`). Use a later one"
            )
        if not chat:
            raise CapabilityError(
                f"{version} tells how likely replies to chats are, and this is raw text (`prompt`)"
            )

    def _dropped(self, field: str) -> bool:
        return field in _GONE and number(self.version) >= _GONE_SINCE


def needs_fields(request: Request, api: str) -> bool:
    """Whether the request holds something that not every version understands."""
    return bool(request.sampling.extra) or (bool(request.prefix) and api == "chat")


def known(version: bytes | None, models: bytes | None, model: str) -> Known:
    """What the server's `/version` and `/v1/models` say."""
    found = _json(version).get("version")
    return Known(found if isinstance(found, str) else "", _context(_json(models), model))


def fields(published: bytes | None, api: str) -> frozenset[str]:
    """The fields of its requests, as its `/openapi.json` describes them; empty where it does not."""
    described = _json(published)
    try:
        body = described["paths"][_PATHS[api]]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return frozenset(schema["properties"])
    except (KeyError, TypeError, AttributeError):
        return frozenset()


def number(version: str) -> tuple[int, ...]:
    """A version's numbers, to compare: `0.12.1rc2` is (0, 12, 1), and one that is not told is the latest."""
    found: list[int] = []
    for part in version.removeprefix("v").split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found) or (10**6,)


def _json(content: bytes | None) -> Mapping[str, Any]:
    try:
        data = json.loads(content or b"{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _context(models: Mapping[str, Any], model: str) -> int | None:
    """The context's length of a model."""
    listed = models.get("data")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model:
            length = entry.get("max_model_len")
            return length if isinstance(length, int) and length > 0 else None
    return None
