"""`archon store`: look into a store of samples, and take them out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archon.cli.options import store_path

if TYPE_CHECKING:
    from archon.store.base import Recorded


@click.group(short_help="Look into a store of samples; export them.")
def store() -> None:
    """Look into a store of samples.

    A store is one SQLite file: sample pools by (server, model, prompt, parameters), the cost of every call, and
    what was computed from them. It only grows; delete the file to forget.

    \b
    archon store list
    archon store list runs.sqlite --json
    archon store export > samples.jsonl     # replay them anywhere: --model replay:samples.jsonl
    """


@store.command("list", short_help="Pools with their samples and cost.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many pools."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per pool, all of them.")
def list_pools(file: Path | None, limit: int, as_json: bool) -> None:
    """List pools, largest first: model, samples, cost, prompt.

    \b
    archon store list
    archon store list runs.sqlite --json
    """
    import asyncio

    from archon.usage import describe, total

    pools = asyncio.run(_summaries(_existing(file)))
    if as_json:
        for pool in pools:
            print(json.dumps({**pool._asdict(), "usage": pool.usage.as_json()}, ensure_ascii=False))
        return
    for pool in pools[:limit]:
        print(
            f"{pool.samples:>7,} samples  {pool.model:<24} {describe(pool.usage):<60} {_asked(pool.request)}"
        )
    if len(pools) > limit:
        print(f"... and {len(pools) - limit:,} pools more (--limit)")
    print(
        f"{len(pools):,} pools, {sum(p.samples for p in pools):,} samples, {describe(total(p.usage for p in pools))}"
    )


@store.command("export", short_help="Samples as JSONL, to replay elsewhere.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--model", help="Only pools of this model.")
def export(file: Path | None, model: str | None) -> None:
    """Write samples as JSONL to standard output: one line per pool, in the form `--replay` reads.

    Each keeps its number, tokens and money. Log-probabilities and calls that gave no sample are left out.

    \b
    archon store export > samples.jsonl
    archon store export --model gpt-4o-mini > samples.jsonl
    """
    import asyncio

    asyncio.run(_export(_existing(file), model))


def _existing(file: Path | None) -> Path:
    from archon.errors import DataError

    path = store_path(file)
    if not path.is_file():
        raise DataError(f"there is no store at {str(path)!r}. Name one, or set ARCHON_STORE")
    return path


async def _summaries(path: Path) -> Any:
    from archon.store import SQLiteStore

    opened = SQLiteStore(path, writable=False)
    try:
        return await opened.summaries()
    finally:
        await opened.close()


async def _export(path: Path, model: str | None) -> None:
    from archon.store import SQLiteStore

    opened = SQLiteStore(path, writable=False)
    try:
        for pool in await opened.summaries():
            if model is not None and pool.model != model:
                continue
            samples: list[Any] = []
            cursor, done = 0, False
            while not done:
                page = await opened.read(pool.id, range(2**31), cursor)
                samples.extend(page.samples)
                cursor, done = page.cursor, page.done
            samples.sort(key=lambda s: s.index)
            line = {
                "prompt": _prompt(pool.request),
                "model": pool.model,
                "backend": pool.backend,
                "messages": _chat(pool.request),
                "prefix": pool.request["prefix"],
                "sampling": pool.request["sampling"],
                "samples": [_sample(s) for s in samples],
            }
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    finally:
        await opened.close()


def _sample(sample: Recorded) -> dict[str, Any]:
    """A sample as archon/backends/recordings.py reads it."""
    used = sample.usage
    data = {
        "index": sample.index,
        "text": sample.text,
        "finish": sample.finish,
        "requests": used.requests,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
    }
    more = {
        "stop": sample.stop,
        "reasoning": sample.reasoning,
        "cached_tokens": used.cached_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "estimated": bool(used.estimated),
    }
    data.update({name: value for name, value in more.items() if value})
    return data if used.unpriced else {**data, "usd": float(used.usd)}


def _chat(request: Any) -> list[dict[str, str]] | None:
    """The messages; None where raw text was continued."""
    if request["messages"] is None:
        return None
    return [{"role": role, "content": content} for role, content in request["messages"]]


def _prompt(request: Any) -> str:
    """The raw text, or the last message."""
    return str(request["prompt"] if request["prompt"] is not None else request["messages"][-1][1])


def _asked(request: Any) -> str:
    return " ".join(_prompt(request).split())[:60]
