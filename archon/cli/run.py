"""`archon run`: one question, or a file of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import click

from archon.cli.options import configured, pipeline_options, problem_limits, store_path


@click.command(short_help="Run a pipeline on one question, or on a file of them.")
@click.argument("question", required=False)
@click.option(
    "--file",
    "-f",
    type=click.Path(path_type=Path),
    metavar="JSONL",
    help="Questions, one JSON object per line: question, and optionally id, kind, tests, ...",
)
@click.option(
    "--kind",
    type=click.Choice(["text", "code", "number", "math", "choice"]),
    default="text",
    show_default=True,
    help="What kind of answer the question wants.",
)
@click.option("--json", "as_json", is_flag=True, help="Print whole outcomes as JSON instead of answers.")
@pipeline_options
def run(question: str | None, file: Path | None, kind: str, as_json: bool, **options: Any) -> None:
    """Run a pipeline on one question (or standard input), or on a file of them.

    Answers go to standard output, cost and progress to standard error. Samples are stored, so running the
    same command again costs nothing and gives the same answer.

    \b
    archon run "What is 17 * 23?" --pipeline self_consistency --kind number --model openai:gpt-4o-mini
    archon run --file questions.jsonl --pipeline my.yaml --budget usd=2 > answers.jsonl
    echo "Name three primes" | archon run --pipeline repeated_sampling --model openai:m --base-url http://localhost:8000/v1
    """
    import asyncio

    from archon.errors import UserError
    from archon.problem import Problem

    config = configured(
        options["pipeline"], options["models"], options["base_url"], options["settings"], options["samples"],
        options["run_budget"], problem_limits(options),
    )  # fmt: skip
    if question is not None and file is not None:
        raise UserError("give a question or --file, not both")
    if file is not None:
        problems = _read(file)
    else:
        asked = question is None and not sys.stdin.isatty()
        text = sys.stdin.read() if asked else question or ""
        if not text.strip():
            raise UserError('there is no question. Give one: archon run "What is 17 * 23?" ..., or --file')
        problems = [Problem.ask(_text(text).strip(), answer=kind)]
    code = asyncio.run(_run(config, problems, options, as_json or file is not None))
    sys.exit(code)


def _text(given: str) -> str:
    """Bytes that are no UTF-8 reach us as half characters."""
    from archon.errors import UserError

    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the question is not UTF-8 text (at character {error.start})") from None
    return given


async def _run(config: Any, problems: list[Any], options: dict[str, Any], as_json: bool) -> int:
    from archon.errors import AllCandidatesFailed
    from archon.progress import Live
    from archon.session import Session
    from archon.tasks import together
    from archon.usage import describe

    async with Session(
        models=config.models,
        budget=config.budget,
        store=None if options["dry_run"] else store_path(options["store"]),
        seed=options["seed"],
        offline=options["offline"] or options["dry_run"],
        prices=options["prices"],
    ) as session:
        graph = config.pipeline.graph()
        session.check(graph)
        if options["dry_run"]:
            _dry_run(config, graph, problems, session)
            return 0
        waiting = iter(problems)
        failed = 0

        async def work() -> None:
            nonlocal failed
            for problem in waiting:
                line: dict[str, Any]
                try:
                    outcome = await session.solve(graph, problem)
                    line, answer = outcome.as_json(), outcome.answer
                except AllCandidatesFailed as error:
                    failed += 1
                    assert error.outcome is not None
                    line, answer = {**error.outcome.as_json(), "error": str(error)}, None
                    print(f"error: {error}", file=sys.stderr)
                live.finished(session.ledger, well=answer is not None, badly="error" in line)
                if as_json:
                    print(json.dumps(line, ensure_ascii=False), flush=True)
                elif answer is not None:
                    print(answer, flush=True)
                elif "error" not in line:
                    failed += 1
                    why = f" ({line['exhausted']} ran out)" if line["exhausted"] else ""
                    print(
                        f"no answer: the pipeline chose none of {len(line['candidates'])} candidates{why}",
                        file=sys.stderr,
                    )

        with Live(quiet=len(problems) == 1, good="answered") as live:
            live.started(len(problems))
            await together(work() for _ in range(min(options["concurrency"], len(problems))))
        total, fresh = session.ledger.total, session.ledger.fresh
        stored = "" if fresh == total else f" ({describe(fresh)} of it spent now, the rest was stored)"
        print(f"cost: {describe(total)}{stored}", file=sys.stderr)
        for endpoint, figures in (await session.engines()).items():
            print(f"engine {endpoint}: {figures.describe()}", file=sys.stderr)
    return 1 if failed else 0


def _dry_run(config: Any, graph: Any, problems: list[Any], session: Any) -> None:
    from archon.config import dump
    from archon.estimate import estimate, table

    print(dump(config))
    print(table(estimate(graph, problems, session), len(problems)))


def _read(file: Path) -> list[Any]:
    """Questions of a file. Raises DataError with the line."""
    from pydantic import ValidationError

    from archon.backends.recordings import read_jsonl
    from archon.errors import DataError
    from archon.problem import AnswerKind, Problem

    problems = []
    seen: set[str] = set()
    for number, row in read_jsonl(file):
        question = row.pop("question", None)
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{file}:{number}: `question` is missing or empty")
        kind = row.pop("kind", "text")
        if kind not in get_args(AnswerKind):
            raise DataError(
                f"{file}:{number}: kind: expected one of {', '.join(get_args(AnswerKind))}, and found {kind!r}"
            )
        if "answer" in row:
            raise DataError(f"{file}:{number}: `answer` is for `archon bench`, which grades; leave it out")
        fields = {"id": str(number), **row, "answer": kind}
        fields["id"] = str(fields["id"])
        try:
            problem = Problem.ask(question, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if problem.id in seen:
            raise DataError(f"{file}:{number}: the id {problem.id!r} is taken by an earlier line")
        seen.add(problem.id)
        problems.append(problem)
    if not problems:
        raise DataError(f"{file} holds no questions")
    return problems
