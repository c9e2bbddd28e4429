"""Recorded generations, in the forms people keep them in.

JSONL (also .gz), one line per problem:  {"id"|"task_id"|"problem_id": ..., "samples"|"completions": [...]}
                  one line per sample:   {"id": ..., "text"|"completion"|"solution"|"output": ...}
CodeT's folders:  *_code_solution.jsonl with {"prompt", "samples"}, and a file that maps a prompt to its task;
                  *_test_case.jsonl, named itself, as a model that writes tests: its prompts go on from a task's

A sample is text, or {"text", "finish", "prompt_tokens", "completion_tokens", "usd"}. The order in the file is
the order of the samples, where none has an "index".

A line may say how its samples were drawn: "model", "backend", "messages" and "prefix" (all that was asked, not
only the last "prompt"), "sampling". Lines that differ in these are pools of their own, and never mixed.
`archon store export` writes all of it.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archon.backends.base import Request, Sampling
from archon.errors import DataError

_ID = ("id", "task_id", "problem_id", "problem")
_TESTS = "test_case"
"""What is in the name of a file of CodeT's with tests that the model wrote."""
_MANY = ("samples", "completions", "generations")
_ONE = ("text", "completion", "solution", "output")


_DRAWN = ("model", "backend", "messages", "prefix", "sampling")
"""The keys of a line that tell one pool of a problem from another."""


@dataclass
class Pool:
    """Samples of one problem that were drawn in one way."""

    sampling: Sampling
    model: str = ""
    backend: Mapping[str, Any] = field(default_factory=dict)
    asked: tuple[Any, str] | None = None
    """The messages (None for raw text) and the prefix, where the file tells."""
    samples: dict[int, Any] = field(default_factory=dict)

    def answers(self, request: Request) -> bool:
        """Whether the samples answer this request, as far as the file tells."""
        if self.asked is None:
            return not request.prefix
        chat = [{"role": m.role, "content": m.content} for m in request.messages]
        return self.asked == (chat if request.prompt is None else None, request.prefix)


@dataclass
class Recordings:
    """Pools by problem."""

    path: Path
    pools: dict[str, list[Pool]] = field(default_factory=dict)
    by_prompt: dict[str, str] = field(default_factory=dict)
    """Problem ids by prompt, where the file keeps prompts."""
    sampling: Sampling = field(default_factory=Sampling)
    """How samples were drawn whose lines do not tell."""

    def of(self, request: Request) -> list[Pool]:
        """The pools that answer a request, however they were sampled."""
        known = self.pools.get(request.problem)
        if known is None:
            prompt = request.prompt if request.prompt is not None else request.messages[-1].content
            known = self.pools.get(self.by_prompt.get(prompt, ""), [])
        return [pool for pool in known if pool.answers(request)]


def read_recordings(path: Path) -> Recordings:
    """Read a file or a folder. Raises DataError where there is nothing to read or it cannot be."""
    file = _choose(path)
    found = Recordings(file, sampling=_sampling_of(file.name))
    tests = _TESTS in file.name
    tasks = _tasks_by_prompt(file.parent) if path.is_dir() or tests else {}
    pools: dict[tuple[str, str], Pool] = {}
    for number, row in read_jsonl(file):
        problem = next((str(row[k]) for k in _ID if k in row), None)
        prompt = row.get("prompt")
        if problem is None and isinstance(prompt, str):
            problem = _task_within(prompt, tasks) if tests else tasks.get(prompt, prompt)
        if problem is None:
            raise DataError(
                f"{file}:{number}: no problem id; expected one of the keys {', '.join(_ID)}, or `prompt`"
            )
        if isinstance(prompt, str):
            found.by_prompt[prompt] = problem
        key = (problem, json.dumps([row.get(name) for name in _DRAWN], sort_keys=True))
        if key not in pools:
            pools[key] = _pool(row, found.sampling, f"{file}:{number}")
            found.pools.setdefault(problem, []).append(pools[key])
        _add(pools[key].samples, row, f"{file}:{number}")
    if not found.pools:
        raise DataError(f"{file} holds no recorded samples")
    return found


def _pool(row: Mapping[str, Any], sampling: Sampling, place: str) -> Pool:
    """An empty pool, as a line describes it."""
    if row.get("sampling") is not None:
        try:
            sampling = Sampling.model_validate(row["sampling"])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("sampling", *first["loc"])))
            raise DataError(f"{place}: `{where}` is no sampling parameter of ours: {first['msg']}") from None
    backend = row.get("backend")
    return Pool(
        sampling,
        str(row.get("model") or ""),
        backend if isinstance(backend, Mapping) else {},
        (row["messages"], str(row.get("prefix") or "")) if "messages" in row else None,
    )


def _add(samples: dict[int, Any], row: Mapping[str, Any], place: str) -> None:
    """Add a line's samples to its pool."""
    many = next((row[k] for k in _MANY if isinstance(row.get(k), list)), None)
    if many is None:
        one = next((row[k] for k in _ONE if isinstance(row.get(k), str)), None)
        if one is None:
            raise DataError(
                f"{place}: no samples; expected a list under {', '.join(_MANY)}, or text under {', '.join(_ONE)}"
            )
        many = [{**{key: value for key, value in row.items() if key != "index"}, "text": one}]
    for sample in many:
        index = sample.get("index") if isinstance(sample, Mapping) else None
        if index is None:
            index = len(samples)
        if not isinstance(index, int) or index < 0:
            raise DataError(f"{place}: the `index` of a sample is {str(index)[:60]!r}; expected 0, 1, 2, ...")
        if index in samples:
            raise DataError(f"{place}: sample {index} is given twice. Keep one of them")
        samples[index] = sample


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines of a JSONL file (also .gz) with their numbers. Raises DataError."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
        ) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}:{number}: not JSON ({error})") from None
                if not isinstance(row, dict):
                    raise DataError(f"{path}:{number}: expected an object, found {type(row).__name__}")
                yield number, row
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _choose(path: Path) -> Path:
    """The file with the answers: the one given, or the only one in the folder that holds samples."""
    if not path.is_dir():
        return path
    files = [
        f for f in sorted(path.iterdir()) if f.name.endswith((".jsonl", ".jsonl.gz")) and _has_samples(f)
    ]
    answers = [f for f in files if _TESTS not in f.name]  # CodeT's other half
    if len(answers) != 1:
        names = ", ".join(f.name for f in answers) or "none"
        raise DataError(
            f"{path} should hold one JSONL file of recorded samples, and holds: {names}. Name the file itself"
        )
    return answers[0]


def _has_samples(file: Path) -> bool:
    for _, row in read_jsonl(file):
        return any(isinstance(row.get(k), list) for k in _MANY) or (
            any(k in row for k in _ID) and any(isinstance(row.get(k), str) for k in _ONE)
        )
    return False


def _tasks_by_prompt(folder: Path) -> Mapping[str, str]:
    tasks: dict[str, str] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for _, row in read_jsonl(file):
            if "samples" in row or "task_id" not in row or not isinstance(row.get("prompt"), str):
                break
            tasks[row["prompt"]] = str(row["task_id"])
    return tasks


def _task_within(prompt: str, tasks: Mapping[str, str]) -> str:
    """The task whose prompt this one goes on from."""
    return tasks[max(found, key=len)] if (found := [t for t in tasks if prompt.startswith(t)]) else prompt


def _sampling_of(name: str) -> Sampling:
    """CodeT's file names say how their samples were drawn."""
    known = re.search(r"temp([\d.]+)_topp([\d.]+)_num\d+_max(\d+)", name)
    if known is None:
        return Sampling()
    return Sampling(temperature=float(known[1]), top_p=float(known[2]), max_tokens=int(known[3]))
