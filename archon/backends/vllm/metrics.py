"""vLLM's own figures, read from its `/metrics` (Prometheus' text format).

The names are those of vLLM's V1 engine. A name that a version does not have counts as zero; a text without any
of them is no page of vLLM's, and gives None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from archon.engine import EngineFigures

_SAMPLE = re.compile(r"vllm:(?P<name>\w+?)(?:_total)?(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: -?\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_COUNTS = {
    "num_requests_running": "running",
    "num_requests_waiting": "waiting",
    "num_preemptions": "preempted",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "completion_tokens",
    "prefix_cache_queries": "looked_up",
    "prefix_cache_hits": "cached",
    "time_to_first_token_seconds_count": "first_tokens",
}
_OUTCOMES = "request_success"
_FIRST_TOKEN = "time_to_first_token_seconds_sum"


class Sample(NamedTuple):
    """One number of a page of metrics, without vLLM's prefix and Prometheus' suffix for counters."""

    name: str
    labels: dict[str, str]
    value: float


def samples(page: str) -> Iterator[Sample]:
    """Every number of vLLM's on a page; what is none is left out."""
    for line in page.splitlines():
        found = _SAMPLE.fullmatch(line.strip())
        if found is None:
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        if math.isfinite(value):
            yield Sample(found["name"], dict(_LABEL.findall(found["labels"] or "")), value)


def read(page: str) -> EngineFigures | None:
    """The figures of all engines of a server (data parallelism has several); None where the page has none."""
    counts = dict.fromkeys((*_COUNTS.values(), "finished"), 0.0)
    first_token_seconds = 0.0
    known = False
    for name, labels, value in samples(page):
        if name in _COUNTS:
            counts[_COUNTS[name]] += value
        elif name == _OUTCOMES:
            counts["finished"] += 0 if labels.get("finished_reason") == "abort" else value
        elif name == _FIRST_TOKEN:
            first_token_seconds += value
        else:
            continue
        known = True
    if not known:
        return None
    return EngineFigures(
        first_token_seconds=first_token_seconds, **{name: int(value) for name, value in counts.items()}
    )
