"""The options that commands share: what they set, and what is said of a wrong one."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from archon.backends.openai import OpenAI
from archon.backends.replay import Replay
from archon.budget import Budget
from archon.cli.options import (
    configured,
    parse_model,
    problem_limits,
    read_pipeline,
    store_path,
    with_limits,
    with_samples,
    with_setting,
)
from archon.config import Config
from archon.errors import ConfigError, UserError
from archon.pipeline import Node, Pipeline
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifiers.unit_tests import UnitTests
from tests.archon.test_cli_terminal import archon, served

SERVER = ("--model", "openai:m", "--base-url", "http://localhost:1/v1")
GOOD = ("--pipeline", "self_consistency", *SERVER)
VOTE = Sample(n=4) | MajorityVote()

# --- wrong ones ------------------------------------------------------------------------------------


WRONG: list[Any] = [
    (("--pipeline", "self_consitency", *SERVER), ("'self_consitency'", "Did you mean 'self_consistency'?")),
    (("--pipeline", "absent.yaml", *SERVER), ("'absent.yaml'", "No such file")),
    (("--pipeline", "self_consistency", "--model", "coder=openai:m"), ("'default'", "Valid: coder")),
    (("--pipeline", "self_consistency", "--model", "gpt-4o"), ("'gpt-4o'", "BACKEND:MODEL", "openai:gpt-4o-mini")),
    (("--pipeline", "self_consistency", "--model", "openai:"), ("'openai:'", "BACKEND:MODEL")),
    (("--pipeline", "self_consistency", "--model", "opnai:m"), ("'opnai'", "Did you mean 'openai'?")),
    (("--pipeline", "self_consistency", "--model", "openai:m"), ("'m'", "OPENAI_API_KEY", "base_url")),
    (("--pipeline", "self_consistency", "--model", "replay:absent.jsonl"), ("'absent.jsonl'", "No such file")),
    (
        ("--pipeline", "self_consistency", "--model", "openai:m", "--base-url", "localhost:8000"),
        ("'localhost:8000'", "http://"),
    ),
    ((*GOOD, "--samples", "0"), ("--samples", "0", "x>=1")),
    ((*GOOD, "--samples", "many"), ("--samples", "'many'")),
    ((*GOOD, "--samples", "1.5"), ("--samples", "'1.5'")),
    ((*GOOD, "--seed", "x"), ("--seed", "'x'")),
    ((*GOOD, "--concurrency", "0"), ("--concurrency", "0", "x>=1")),
    ((*GOOD, "--set", "sample.temprature=1"), ("temprature", "'temperature'")),
    ((*GOOD, "--set", "sampel.n=1"), ("'sampel'", "Did you mean 'sample'?")),
    ((*GOOD, "--set", "sample.n"), ("'sample.n'", "STAGE.FIELD=VALUE")),
    ((*GOOD, "--set", "n=3"), ("'n=3'", "STAGE.FIELD=VALUE")),
    ((*GOOD, "--set", "sample.n=-1"), ("sample.n=-1", "greater than or equal to 0")),
    ((*GOOD, "--set", "sample.n=[1"), ("'[1'", "no value")),
    ((*GOOD, "--set", "sample.n=!!bool abc"), ("!!bool abc", "no value")),
    ((*GOOD, "--budget", "usd"), ("'usd'", "WHAT=AMOUNT", "usd=0.50")),
    ((*GOOD, "--budget", "dollars=1"), ("'dollars'", "usd")),
    ((*GOOD, "--budget", "usd=cheap"), ("'cheap'", "no number")),
    ((*GOOD, "--budget", "usd=-1"), ("--budget", "usd", "greater than or equal to 0")),
    ((*GOOD, "--budget", "usd=nan"), ("--budget", "usd", "finite")),
    ((*GOOD, "--budget", "tokens=1.5"), ("--budget", "tokens", "1.5")),
    ((*GOOD, "--problem-budget", "requests=x"), ("--problem-budget", "'x'")),
    ((*GOOD, "--budget", "usd=1"), ("'default'", "no price", "ARCHON_PRICES")),
    ((*GOOD, "--budget", "flops=1e18"), ("'default'", "parameters")),
    ((*GOOD, "--prices", "absent.yaml"), ("'absent.yaml'", "price table")),
    ((), ("--pipeline",)),
    ((*GOOD, "--set", "sample.seed=2024-13-45"), ("2024-13-45",)),
    ((*GOOD, "--budget", "usd=[1"), ("'[1'", "number")),
    ((*GOOD, "--budget", "usd=2024-13-45"), ("2024-13-45", "number")),
    *[
        ((*GOOD, "--dry-run", "--budget", limit), (limit,))  # an unset shell variable, say
        for limit in ("requests=", "requests=null", "requests=~")
    ],
    ((*GOOD, "--dry-run", "--set", "sample/inner.n=3"), ("'sample'", "inner")),
]  # fmt: skip


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_a_wrong_option_is_named_with_its_rule(
    words: tuple[str, ...], says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, "run", "Q", *words)
    assert (said.code, said.out) == (2, "")
    assert len(said.errors) == 1
    assert said.errors[0].lower().startswith("error:")
    for text in says:
        assert text in said.errors[0]


def test_bench_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in [case for case in WRONG if isinstance(case, tuple)][:6]:
        said = archon(capsys, "bench", "lab/arith", "--out", "r", *words)
        assert (said.code, said.out) == (2, "")
        assert all(text in said.err for text in says)
        assert not Path("r").exists()


def test_a_password_in_an_address_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(
        capsys, "run", "Q", "-p", "self_consistency", "-m", "openai:m", "--base-url", "http://me:pw@host/v1"
    )
    assert said.code == 2
    assert "password" in said.err


# --- what they set ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "model"),
    [
        ("openai:gpt-4o-mini", "default", "gpt-4o-mini"),
        ("coder=openai:gpt-4o-mini", "coder", "gpt-4o-mini"),
        ("=openai:m", "default", "m"),
        ("openai:org/model:free", "default", "org/model:free"),
        ("openai:ft:gpt-4o:org::a=b", "default", "ft:gpt-4o:org::a=b"),
        ("coder=openai:model=7b", "coder", "model=7b"),
    ],
)
def test_a_model_is_name_backend_and_label(text: str, name: str, model: str) -> None:
    assert parse_model(text, None) == (name, OpenAI(model=model))


def test_a_replay_is_named_by_its_path() -> None:
    assert parse_model("coder=replay:runs/a.jsonl", None) == ("coder", Replay(path=Path("runs/a.jsonl")))


def test_the_base_url_is_for_models_given_beside_it() -> None:
    url = "http://localhost:8000/v1"
    assert parse_model("openai:m", url)[1] == OpenAI(model="m", base_url=url)
    assert parse_model("replay:a", url)[1] == Replay(path=Path("a"))


def test_a_base_url_that_serves_no_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(
        "models: {default: {backend: scripted, replies: {'*': [x]}}}\npipeline: [sample]\n"
    )
    said = archon(capsys, "run", "Q", "-p", "p.yaml", "--base-url", "http://localhost:1/v1")
    assert said.code == 2
    assert "--base-url" in said.err


def test_samples_set_the_n_of_the_only_source() -> None:
    assert with_samples(VOTE, 9) == Sample(n=9) | MajorityVote()
    two = (Sample(n=1) & Sample(n=2)) | MajorityVote()
    with pytest.raises(UserError, match=r"only source.*sample, sample-2.*--set STAGE\.n=N"):
        with_samples(two, 9)
    with pytest.raises(UserError, match="none"):
        with_samples(Pipeline([Node("inner", VOTE)]), 9)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("sample.n=9", Sample(n=9)),
        ("sample.temperature=0.8", Sample(n=4, temperature=0.8)),
        ("sample.temperature=8e-1", Sample(n=4, temperature=0.8)),
        ("sample.model=coder", Sample(n=4, model="coder")),
        ("sample.system='be brief: 3 words'", Sample(n=4, system="be brief: 3 words")),
        ("sample.stop=[a, b]", Sample(n=4, stop=("a", "b"))),
        ("sample.extra={a: [1]}", Sample(n=4, extra={"a": [1]})),
        ("sample.budget={requests: 3}", Sample(n=4, budget=Budget(requests=3))),
        ("sample.system=a=b", Sample(n=4, system="a=b")),
    ],
)
def test_a_setting_changes_one_field_of_one_stage(setting: str, expected: Sample) -> None:
    assert with_setting(VOTE, setting) == expected | MajorityVote()


def test_a_setting_reaches_into_a_nested_pipeline() -> None:
    nested = Pipeline([Node("inner", VOTE), Node("again", MajorityVote(), ("inner",))])
    changed = with_setting(nested, "inner/sample.n=9")
    assert changed.nodes[0].stage == Sample(n=9) | MajorityVote()
    assert changed.nodes[1] == nested.nodes[1]
    with pytest.raises(UserError, match=r"pipeline, not a stage; .*PIPELINE/STAGE\.FIELD"):
        with_setting(nested, "inner.n=9")
    with pytest.raises(UserError, match="no stage 'sampel'"):
        with_setting(nested, "inner/sampel.n=9")


def test_a_setting_can_be_a_verifier() -> None:
    pipeline = Sample() | Verify(verifier=UnitTests())
    changed = with_setting(pipeline, "verify.verifier={unit_tests: {packages: false}}")
    assert changed == Sample() | Verify(verifier=UnitTests(packages=False))
    with pytest.raises(ConfigError, match=r"'unit_test'.*Did you mean 'unit_tests'"):
        with_setting(pipeline, "verify.verifier=unit_test")


def test_settings_add_up_and_the_last_wins() -> None:
    config = _configured(settings=("sample.n=2", "sample.temperature=1", "sample.n=3"))
    assert config.pipeline == Sample(n=3, temperature=1) | MajorityVote()
    assert _configured(settings=("sample.n=2",), samples=7).pipeline.nodes[0].stage == Sample(n=7)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("usd=0.50", Budget(usd=Decimal("0.5"))),
        ("usd=5", Budget(usd=Decimal(5))),
        ("tokens=1e6", Budget(tokens=1_000_000)),
        ("flops=1e18", Budget(flops=10**18)),
        ("seconds=1.5", Budget(seconds=1.5)),
        ("requests=0", Budget(requests=0)),
        ("usd=010", Budget(usd=Decimal(10))),
        ("tokens=0100", Budget(tokens=100)),
    ],
)
def test_an_amount_is_read_as_people_write_it(limit: str, expected: Budget) -> None:
    assert with_limits(Budget(), (limit,), "--budget") == expected


def test_an_amount_of_money_is_no_time_of_day() -> None:
    with pytest.raises(UserError):
        with_limits(Budget(), ("usd=1:30",), "--budget")


def test_limits_add_to_those_of_the_file_and_win_over_them() -> None:
    Path("p.yaml").write_text(
        "budget: {run: {usd: 5, tokens: 9}, problem: {seconds: 3}}\npipeline: [sample, majority_vote]\n"
    )
    config = _configured("p.yaml", run_budget=("usd=1", "requests=4"), problem_budget=("usd=0.1",))
    assert config.budget.run == Budget(usd=Decimal(1), tokens=9, requests=4)
    assert config.budget.problem == Budget(seconds=3, usd=Decimal("0.1"))


def test_models_add_to_those_of_the_file_and_win_over_them() -> None:
    Path("p.yaml").write_text(
        "models:\n  default: {backend: openai, model: a}\n  b: {backend: openai, model: b}\npipeline: [sample]\n"
    )
    config = _configured("p.yaml", models=("openai:c", "d=openai:d"))
    assert {name: model.label for name, model in config.models.items()} == {
        "default": "c",
        "b": "b",
        "d": "d",
    }


def test_the_store_is_the_given_one_else_the_environment_s_else_the_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHON_STORE", "from/the/environment")
    assert store_path(Path("given")) == Path("given")
    assert store_path(None) == Path("from/the/environment")
    for nothing in ("", None):
        if nothing is None:
            monkeypatch.delenv("ARCHON_STORE")
        else:
            monkeypatch.setenv("ARCHON_STORE", nothing)
        assert store_path(None) == Path(".archon/store.sqlite")


def test_prices_come_from_the_table_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("prices.yaml").write_text("models:\n  m: {input: 1000000, output: 0}\n")
    with served(lambda asked: "x") as server:
        words = ("run", "one two", "-p", "repeated_sampling", "-m", "openai:m", "--base-url", server.url)
        said = archon(capsys, *words, "--samples", "1", "--prices", "prices.yaml")
    assert said.err.startswith("cost: 1 request, 2 + 1 tokens, $2")


@pytest.mark.parametrize("name", ["self_consistency", "p.yaml", "p.toml", "noending"])
def test_a_pipeline_is_a_ready_one_or_a_file(name: str) -> None:
    Path("p.yaml").write_text("- sample: {n: 16}\n- majority_vote\n")
    Path("noending").write_text("- sample: {n: 16}\n- majority_vote\n")
    Path("p.toml").write_text("[[pipeline]]\nsample = {n = 16}\n[[pipeline]]\nmajority_vote = {}\n")
    assert read_pipeline(name).pipeline == Sample(n=16) | MajorityVote()


def test_the_effective_configuration_is_what_a_dry_run_prints(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(
        capsys, "run", "Q", "-p", "self_consistency", *SERVER, "--samples", "3", "--set", "sample.temperature=0.5",
        "--budget", "requests=7", "--dry-run",
    )  # fmt: skip
    assert said.code == 0
    assert yaml.safe_load(said.out.split("\n\n")[0]) == {
        "models": {"default": {"backend": "openai", "model": "m", "base_url": "http://localhost:1/v1"}},
        "budget": {"run": {"requests": 7}},
        "pipeline": [{"sample": {"n": 3, "temperature": 0.5}}, "majority_vote"],
    }
    assert json.dumps(said.err) == '""'


def _configured(
    pipeline: str = "self_consistency",
    models: tuple[str, ...] = ("openai:m",),
    settings: tuple[str, ...] = (),
    samples: int | None = None,
    run_budget: tuple[str, ...] = (),
    problem_budget: tuple[str, ...] = (),
) -> Config:
    return configured(pipeline, models, None, settings, samples, run_budget, problem_budget, None)


def test_tokens_for_each_problem_have_an_option_of_their_own() -> None:
    assert problem_limits({"problem_budget": ("usd=1",), "budget_tokens": None}) == ("usd=1",)
    assert problem_limits({"problem_budget": ("usd=1",), "budget_tokens": 500}) == ("usd=1", "tokens=500")
