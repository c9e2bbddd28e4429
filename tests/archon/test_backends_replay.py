"""Recorded generations as a model: every form they are kept in, and what was not recorded."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from archon.backends.base import Sampling
from archon.backends.replay import Replay
from archon.backends.scripted import Scripted
from archon.candidate import Outcome
from archon.errors import AllCandidatesFailed, CapabilityError, DataError, NotRecorded
from archon.prices import Price
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample

PROBLEM = Problem.ask("What is 6 times 7?", id="p")


def write(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


async def play(path: Path, n: int = 1, problem: Problem = PROBLEM, **settings: Any) -> Outcome:
    sample = settings.pop("sample", {})
    async with Session(models=Replay(path=path, **settings)) as session:
        return await session.solve(Sample(n=n, **sample), problem)


def texts(outcome: Outcome) -> list[str]:
    return [c.text for c in outcome.candidates]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "p", "samples": ["a", "b", "c"]}],
        [{"task_id": "p", "completions": ["a", "b", "c"]}],
        [{"problem_id": "p", "generations": [{"text": "a"}, "b", {"text": "c"}]}],
        [
            {"id": "p", "text": "a"},
            {"id": "q", "text": "other"},
            {"id": "p", "text": "b"},
            {"id": "p", "text": "c"},
        ],
        [{"task_id": "p", "completion": t} for t in "abc"],
        [{"task_id": "p", "solution": t} for t in "abc"],
        [{"problem": "p", "output": t} for t in "abc"],
        [{"id": "p", "samples": ["a"]}, "", {"id": "p", "samples": ["b", "c"]}],
        [{"prompt": "What is 6 times 7?", "samples": ["a", "b", "c"]}],
        [{"id": "another name", "prompt": "What is 6 times 7?", "samples": ["a", "b", "c"]}],
    ],
)
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
async def test_every_form_gives_the_samples_in_the_order_of_the_file(
    rows: list[Any], name: str, tmp_path: Path
) -> None:
    assert texts(await play(write(tmp_path / name, *rows), 3)) == ["a", "b", "c"]


async def test_a_number_as_an_id_is_its_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"id": 7, "samples": ["a"]})
    assert texts(await play(path, problem=Problem.ask("q", id="7"))) == ["a"]


async def test_codet_s_folder_says_which_prompt_is_which_task_and_how_it_was_sampled(tmp_path: Path) -> None:
    name = "HumanEval_davinci002_temp0.8_topp0.95_num100_max300_code_solution.jsonl"
    write(tmp_path / name, {"prompt": "def f():", "samples": ["  return 1\n\nmore", "  return 2"]})
    write(
        tmp_path / name.replace("code_solution", "test_case"), {"prompt": "def f():", "samples": ["assert"]}
    )
    write(tmp_path / "tasks.jsonl", {"task_id": "HumanEval/0", "prompt": "def f():", "entry_point": "f"})
    problem = Problem.ask("Write f.", id="HumanEval/0", prompt="def f():", stop=("\n\n",))
    outcome = await play(tmp_path, 2, problem)
    assert texts(outcome) == ["  return 1", "  return 2"], "cut where the problem's continuation ends"
    assert [c.finish for c in outcome.candidates] == ["stop_string", "unknown"]
    backend = Replay(path=tmp_path).connect()
    assert backend.recordings.sampling == Sampling(temperature=0.8, top_p=0.95, max_tokens=300)
    with pytest.raises(
        CapabilityError, match=r"temperature 0\.2 is asked for, and .* was recorded with 0\.8"
    ):
        await play(tmp_path, 1, problem, sample={"temperature": 0.2})
    assert len(texts(await play(tmp_path, 1, problem, sample={"temperature": 0.8}))) == 1


# --- several pools of one prompt ---------------------------------------------------------------------


def pool(*samples: Any, **drawn: Any) -> dict[str, Any]:
    return {"prompt": "What is 6 times 7?", "samples": list(samples), **drawn}


async def test_a_prompt_that_was_recorded_in_several_ways_is_replayed_from_the_one_that_is_meant(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "r.jsonl",
        pool("a", model="m", sampling={"temperature": 0.5}),
        pool("b", model="m", sampling={}),
        pool("c", model="other", sampling={"temperature": 0.5, "seed": 3}),
    )
    for settings, text in (
        ({"model": "other"}, "c"),
        ({"sample": {"temperature": 1}}, "b"),
        ({"model": "m", "sample": {"temperature": 0.5}}, "a"),
        ({}, "b"),
    ):
        assert texts(await play(path, **settings)) == [text]
    with pytest.raises(CapabilityError, match=r"temperature 1\.0 is asked for, and r\.jsonl .* with 0\.5"):
        await play(
            write(tmp_path / "r.jsonl", pool("a", sampling={"temperature": 0.5})), sample={"temperature": 1}
        )


async def test_where_nothing_tells_which_pool_is_meant_it_is_an_error_that_says_what_differs(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "r.jsonl", pool("a", model="m"), pool("b", model="other"))
    with pytest.raises(CapabilityError, match=r"recorded in 2 ways in r\.jsonl, .* model \('m', 'other'\)"):
        await play(path)


async def test_lines_of_one_pool_go_on_where_the_last_ended_and_gaps_stay(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl",
        pool("a", model="m"),
        pool({"text": "c", "index": 2}, model="m"),
        pool("x", model="n"),
    )
    outcome = await play(path, 3, model="m", samples_per_request=1)
    assert texts(outcome) == ["a", "c"]
    assert "has 2 recorded samples in r.jsonl, and number 2 is not among them" in str(
        outcome.failures[0].error
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (pool("a", sampling={"temperature": -1}), r"r\.jsonl:1: `sampling\.temperature` is no"),
        (pool("a", sampling="hot"), r"r\.jsonl:1: `sampling` is no"),
        (pool({"text": "a", "index": -1}), r"r\.jsonl:1: the `index` of a sample is '-1'"),
        (pool({"text": "a", "index": 1}, "b"), r"r\.jsonl:1: sample 1 is given twice"),
    ],
)
def test_a_line_that_does_not_say_how_it_was_drawn_is_named(row: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        Replay(path=write(tmp_path / "r.jsonl", row)).connect()


# --- beyond what was recorded -----------------------------------------------------------------------


async def test_asking_for_more_than_was_recorded_gives_what_there_is_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "p", "samples": ["a", "b"]})
    outcome = await play(path, 4, samples_per_request=1)
    assert texts(outcome) == ["a", "b"]
    assert [(f.index, type(f.error)) for f in outcome.failures] == [(2, NotRecorded), (3, NotRecorded)]
    assert "has 2 recorded samples in r.jsonl, and number 3 is asked for" in str(outcome.failures[0].error)


async def test_asking_for_more_than_was_recorded_in_one_request_gives_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "p", "samples": ["a", "b"]})
    assert texts(await play(path, 4)) == ["a", "b"]


async def test_a_problem_that_was_not_recorded_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "p", "samples": ["a"]})
    with pytest.raises(AllCandidatesFailed, match="problem 'other' has 0 recorded samples"):
        await play(path, problem=Problem.ask("q", id="other"))


async def test_a_live_model_goes_on_where_the_recordings_end_at_its_own_price(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl",
        {"id": "p", "samples": [{"text": "a", "prompt_tokens": 5, "completion_tokens": 2}]},
    )
    live = Scripted(reply=lambda call: f"live {call.index}", price=Price(input=0, output=1000), max_n=9)
    outcome = await play(path, 3, beyond=live, price=Price(input=0, output=1))
    assert texts(outcome) == ["a", "live 1", "live 2"]
    costs = [c.usage.usd for c in outcome.candidates]
    assert costs == [Decimal("0.000002"), Decimal("0.002"), Decimal("0.002")]


# --- what a sample used -----------------------------------------------------------------------------


async def test_recorded_tokens_and_costs_are_used_as_they_are(tmp_path: Path) -> None:
    sample = {"text": "a b", "finish": "length", "prompt_tokens": 11, "completion_tokens": 22, "usd": 0.25}
    outcome = await play(write(tmp_path / "r.jsonl", {"id": "p", "samples": [sample]}))
    used = outcome.usage
    assert (used.prompt_tokens, used.completion_tokens, used.usd, used.estimated) == (
        11,
        22,
        Decimal("0.25"),
        0,
    )
    assert outcome.candidates[0].finish == "length"


async def test_without_counts_tokens_are_estimated_marked_and_within_the_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "p", "samples": ["x" * 30, "x" * 3000]})
    outcome = await play(path, 2, max_tokens=100)
    assert [c.usage.completion_tokens for c in outcome.candidates] == [10, 100]
    assert outcome.usage.estimated == outcome.usage.requests == 2
    assert outcome.usage.unpriced == 2


async def test_a_recording_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one = write(tmp_path / "r.jsonl", {"id": "p", "samples": ["a"]})
    same = write(tmp_path / "sub" / "other.jsonl", {"id": "p", "samples": ["a"]})
    other = write(tmp_path / "o.jsonl", {"id": "p", "samples": ["b"]})
    identities = [Replay(path=p).connect().identity for p in (one, same, other)]
    assert identities[0] == identities[1] != identities[2]


# --- files that cannot be read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": "p", "samples": ["a"]}\n{"id": "p", "sam', r"r\.jsonl:2: not JSON"),
        (b"[1]\n", r"r\.jsonl:1: expected an object, found list"),
        (b'{"samples": ["a"]}\n', r"r\.jsonl:1: no problem id"),
        (b'{"id": "p"}\n', r"r\.jsonl:1: no samples"),
        (b"", "holds no recorded samples"),
        (b'{"id": "p\xff"}\n', "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error_with_the_line(
    content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        Replay(path=path).connect()


def test_a_file_that_is_not_there_or_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the recordings"):
        Replay(path=tmp_path / "nothing.jsonl").connect()
    whole = write(tmp_path / "r.jsonl.gz", *({"id": f"p{i}", "samples": [f"{i}" * 50]} for i in range(500)))
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot read"):
        Replay(path=whole).connect()


def test_a_folder_with_no_or_several_recordings_asks_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds: none\. Name the file itself"):
        Replay(path=tmp_path).connect()
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, {"id": "p", "samples": ["a"]})
    with pytest.raises(DataError, match=r"a\.jsonl, b\.jsonl"):
        Replay(path=tmp_path).connect()


@pytest.mark.parametrize("sample", [7, None, ["a"], {"txt": "a"}, {"text": None}])
async def test_a_sample_that_is_no_text_is_an_error_and_never_an_answer(sample: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "p", "samples": [sample]})
    with pytest.raises(DataError, match=r"r\.jsonl: sample 0 of problem 'p'"):
        await play(path)
