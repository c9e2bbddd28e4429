"""The lab from the command line: which problems an option chooses, and the model where none is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archon.backends.nano.backend import Nano
from archon.backends.openai import OpenAI
from archon.cli.options import configured, parse_model
from archon.config import Config
from archon.errors import UserError
from tests.archon.nano_model import random_folder
from tests.archon.test_cli_terminal import Said, archon

NO_MODEL = "no model given: using the nano model that ships with archon; it only knows the lab's problems"


def bench(capsys: pytest.CaptureFixture[str], benchmark: str, *more: str) -> Said:
    """A script answers."""
    Path("p.yaml").write_text(
        "models: {default: {backend: scripted, replies: {'*': [x, '1']}}}\npipeline: [{sample: {n: 2}}]\n"
    )
    words = ("bench", benchmark, "-p", "p.yaml", "--no-pictures", "-q", "--benchmark-set", "problems=1")
    return archon(capsys, *words, *more)


def ids(folder: str) -> list[str]:
    lines = (Path(folder) / "problems.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


# --- which problems --------------------------------------------------------------------------------


def test_level_split_and_seed_choose_the_problems(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(
        capsys, "lab/arith", "--level", "3,1", "--split", "dev", "--seed", "7", "--out", "runs/lab/arith"
    )
    assert said.code == 0, said.err
    assert ids("runs/lab/arith") == ["lab/arith/dev/1/seed-7/0000", "lab/arith/dev/3/seed-7/0000"]
    data = json.loads(Path("runs/lab/arith/results.json").read_text())
    assert (data["benchmark"], data["seed"], data["problems"]) == ("lab/arith", 7, 2)


def test_without_them_it_is_every_level_of_the_test_split(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(capsys, "lab/chain", "--out", "r").code == 0
    assert ids("r") == [f"lab/chain/test/{level}/0000" for level in range(1, 7)]


def test_a_setting_keeps_the_problems_while_the_run_s_seed_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in ("1", "2"):
        words = ("--level", "1", "--seed", seed, "--benchmark-set", "seed=0", "--out", f"r{seed}")
        assert bench(capsys, "lab/chain", *words).code == 0
    assert ids("r1") == ids("r2") == ["lab/chain/test/1/0000"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("lab/arith", "--level", "9"), ("lab/arith", "`level`", "from 1 to 8")),
        (("lab/arith", "--level", "easy"), ("`level`", "'easy'")),
        (("lab/arith", "--split", "eval"), ("split", "'train', 'dev' or 'test'", "'eval'")),
        (("lab/arth",), ("'lab/arth'", "Did you mean 'lab/arith'?")),
        (("gsm8k", "--level", "3"), ("--level 3", "'gsm8k'", "no `level`")),
        (("humaneval", "--split", "dev"), ("--split dev", "'humaneval'", "no `split`")),
    ],
)
def test_a_wrong_choice_is_named_with_its_rule(
    words: tuple[str, ...], says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.yaml").write_text(
        "models: {default: {backend: scripted, replies: {'*': [x]}}}\npipeline: [sample]\n"
    )
    said = archon(capsys, "bench", *words, "-p", "p.yaml", "--out", "r")
    assert (said.code, said.out) == (2, "")
    assert len(said.errors) == 1
    for text in says:
        assert text in said.errors[0]
    assert not Path("r").exists()


# --- which model -----------------------------------------------------------------------------------


def effective(*models: str, file: str = "pipeline: [sample]\n") -> Config:
    Path("p.yaml").write_text(file)
    return configured("p.yaml", models, None, (), None, (), (), None)


def test_without_any_model_it_is_the_nano_one_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert effective().models == {"default": Nano(weights="lm")}
    assert capsys.readouterr() == ("", NO_MODEL + "\n")


def test_so_it_is_with_a_reward_model_unless_the_other_model_is_no_nano_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = "pipeline: [sample, verify: {verifier: reward}]\n"
    assert effective(file=file).models == {"default": Nano(weights="lm"), "reward": Nano(weights="prm")}
    said = capsys.readouterr().err.splitlines()
    assert said[0] == NO_MODEL and said[1].startswith("no reward model given: ") and len(said) == 2
    assert effective("reward=nano:orm", file=file).models["default"] == Nano(weights="lm")
    assert capsys.readouterr().err == NO_MODEL + "\n"
    with pytest.raises(UserError, match=r"'verify' uses the model 'reward', and none is given"):
        effective("openai:m", file=file)


@pytest.mark.parametrize("given", ["openai:m", "nano:somewhere/else", "default=openai:m"])
def test_a_model_that_is_given_replaces_it_silently(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert effective(given).models == dict([parse_model(given, None)])
    assert capsys.readouterr().err == ""


def test_a_model_under_another_name_is_not_replaced_but_missed() -> None:
    with pytest.raises(UserError, match=r"'sample' uses the model 'default', and none is given.*coder"):
        effective("coder=openai:m")
    with pytest.raises(UserError, match=r"'sample' uses the model 'coder', and none is given"):
        effective(file="pipeline: [sample: {model: coder}]\n")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("nano:prm", Nano(weights="prm")),
        ("nano:/a/folder", Nano(weights="/a/folder")),
        ("openai:gpt-4o-mini", OpenAI(model="gpt-4o-mini")),
    ],
)
def test_each_backend_says_what_its_short_form_names(text: str, model: object) -> None:
    assert parse_model(text, None) == ("default", model)


def test_a_nano_model_answers_a_question_and_a_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    """A random one: that it is asked, and what it costs, not what it says."""
    model = f"nano:{random_folder(Path('random'))}"
    Path("p.yaml").write_text("- sample: {n: 3, max_tokens: 5}\n")
    words = ("-p", "p.yaml", "--model", model, "--seed", "1")
    said = archon(capsys, "run", "Compute 1+2 step by step.", *words, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["usage"]["completion_tokens"] <= 15
    said = archon(
        capsys, "bench", "lab/chain", "--level", "1", "--limit", "2", *words, "--out", "r", "--no-pictures"
    )
    assert said.code == 0, said.err
    data = json.loads(Path("r/results.json").read_text())
    assert data["models"]["default"]["backend"] == "nano"
    assert data["usage"]["flops"] > 0
