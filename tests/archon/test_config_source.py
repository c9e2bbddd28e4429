"""Reading YAML and TOML: plain data only, and the line of everything in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.config import Config, dump, load, read_value
from archon.config.source import Source, dots, read_file, read_text
from archon.errors import ConfigError, DataError, UserError
from archon.pipeline import Node, Pipeline
from archon.prices import PriceTable
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample

YAML = """\
# a comment
models:
  coder:
    backend: openai
    model: m
pipeline:
  - sample:
      n: 4
      extra: {a: [1, {b: 2}]}
  - majority_vote
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 2),
        (("models",), 2),
        (("models", "coder"), 3),
        (("models", "coder", "model"), 5),
        (("pipeline",), 6),
        (("pipeline", 0), 7),
        (("pipeline", 0, "sample", "n"), 8),
        (("pipeline", 0, "sample", "extra", "a", 1, "b"), 9),
        (("pipeline", 1), 10),
        (("pipeline", 0, "sample", "not there"), 7),
        (("nowhere", "at all"), 2),
    ],
)
def test_yaml_knows_the_line_of_everything(path: tuple[str | int, ...], line: int) -> None:
    source = read_text(YAML, "yaml", "a.yaml")
    assert source.where(path) == ": ".join(filter(None, [f"a.yaml:{line}", dots(path)]))


def test_a_path_reads_as_people_write_it() -> None:
    assert dots(("pipeline", 1, "verify", "verifier")) == "pipeline[1].verify.verifier"
    assert dots(()) == ""
    assert dots((0,)) == "[0]"


def test_a_source_without_a_name_still_says_where() -> None:
    assert Source(None).where(("n",)) == "n"
    assert Source(None, "--budget").where(("usd",)) == "--budget: usd"
    assert Source(None, "x", {("n",): 3}).where(("n",)) == "x:3: n"


TOML = """\
# a comment
[models.coder]
backend = "openai"

[budget]
run = {usd = 1, tokens = 5}

[[pipeline]]
sample = {n = 4}

[[pipeline]]
majority_vote = {}

["quoted name"."a.b"]
key = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("models", "coder"), 2),
        (("models", "coder", "backend"), 3),
        (("budget", "run", "tokens"), 6),
        (("pipeline", 0), 8),
        (("pipeline", 0, "sample"), 9),
        (("pipeline", 0, "sample", "n"), 9),
        (("pipeline", 1), 11),
        (("pipeline", 1, "majority_vote"), 12),
    ],
)
def test_toml_knows_the_line_of_most(path: tuple[str | int, ...], line: int) -> None:
    assert read_text(TOML, "toml", "a.toml").where(path).startswith(f"a.toml:{line}: ")


def test_text_that_looks_like_toml_does_not_move_the_lines() -> None:
    text = '[budget.run]\nusd = -1\n\n[[pipeline]]\nsample = {system = """\n[budget.run]\nusd = 5\n"""}\n'
    with pytest.raises(ConfigError, match=r"a\.toml:2: budget\.run\.usd"):
        load(_file("a.toml", text))


def test_what_dump_writes_as_toml_has_lines_too() -> None:
    text = dump(Sample(n=2, temperature=0.5) | MajorityVote(), "toml").replace("majority_vote", "majority")
    line = 1 + text[: text.index('"majority"')].count("\n")
    with pytest.raises(ConfigError, match=rf"a\.toml:{line}: "):
        load(_file("a.toml", text))


ODD_TOML = """\
a . "b.c" . 'd' = 1 # [not.a.table]
text = \'\'\'
[not.a.table]
x = 1\'\'\'\'\'
more = [ # ]
  "]", \'"\', \"\"\"
\\"\"\" x = 1 \"\"\", 1979-05-27 07:32:00, # ,
  {"a]" = {}, b.c = [[], [1]]},
]

[[x.y]]
[x.y.z]
[[x.y]]
[[x.y.w]]
k = "#"
[[x.y.w]]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("a", "b.c", "d"), 1),
        (("text",), 2),
        (("more",), 5),
        (("more", 1), 6),
        (("more", 2), 6),
        (("more", 3), 7),
        (("more", 4), 8),
        (("more", 4, "a]"), 8),
        (("more", 4, "b", "c", 1, 0), 8),
        (("x", "y", 0), 11),
        (("x", "y", 0, "z"), 12),
        (("x", "y", 1), 13),
        (("x", "y", 1, "w", 0), 14),
        (("x", "y", 1, "w", 0, "k"), 15),
        (("x", "y", 1, "w", 1), 16),
    ],
)
def test_toml_s_lines_follow_its_grammar(path: tuple[str | int, ...], line: int) -> None:
    assert read_text(ODD_TOML, "toml").lines[path] == line


_PLAIN = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=6) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(data=st.dictionaries(st.text(max_size=6), _PLAIN, min_size=1, max_size=4), lines=st.booleans())
def test_everything_in_toml_has_a_line(data: dict[str, Any], lines: bool) -> None:
    source = read_text(tomli_w.dumps(data, multiline_strings=lines), "toml")

    def check(part: Any, path: tuple[str | int, ...]) -> None:
        assert not path or path in source.lines
        if isinstance(part, dict | list):
            for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
                check(inner, (*path, key))

    check(source.data, ())


def _file(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),
        ("!!str 4", "4"),
        ("'4'", "4"),
        ("~", None),
        ("yes", True),
        ("0x10", 16),
        ("1.5e+3", 1500.0),
        ("{a: [1, {b: ~}]}", {"a": [1, {"b": None}]}),
    ],
)
def test_values_are_plain_data(text: str, value: object) -> None:
    data = read_text(f"key: {text}\n").data["key"]
    assert data == value
    assert type(data) is type(value)


def test_toml_dates_are_text() -> None:
    assert read_text("a = 1979-05-27\nb = [07:32:00]\n", "toml").data == {
        "a": "1979-05-27",
        "b": ["07:32:00"],
    }


def test_anchors_share_values_and_each_use_is_counted() -> None:
    data = read_text("a: &x {n: 1}\nb: [*x, *x]\n").data
    assert data == {"a": {"n": 1}, "b": [{"n": 1}, {"n": 1}]}


def test_the_ending_says_the_format() -> None:
    for name, text in (("a.yaml", "- sample\n"), ("a.yml", "- sample\n"), ("noending", "- sample\n")):
        assert load(_file(name, text)).pipeline == Pipeline([Sample()])
    assert load(_file("a.toml", "[[pipeline]]\nsample = {}\n")).pipeline == Pipeline([Sample()])


@pytest.mark.parametrize("name", ["absent.yaml", "absent.toml", "a/b/c.yaml"])
def test_a_file_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DataError, match=rf"cannot read '{name}': No such file"):
        read_file(Path(name))


def test_a_list_alone_is_a_pipeline() -> None:
    assert load("- sample: {n: 2}\n", "yaml") == Config(pipeline=Pipeline([Sample(n=2)]))


def test_sections_without_content_are_as_if_left_out() -> None:
    whole = load("models:\nbudget:\npipeline: [sample]\n", "yaml")
    assert whole == load("pipeline: [sample]\n", "yaml")


def test_a_stage_can_be_written_in_three_ways() -> None:
    short, none, empty = (load(f"- {form}\n", "yaml") for form in ("sample", "sample:", "sample: {}"))
    assert short == none == empty == Config(pipeline=Pipeline([Sample()]))


def test_after_is_a_name_or_a_list_of_names() -> None:
    one = load("pipeline: {a: sample, b: {majority_vote: {}, after: a}}", "yaml")
    assert one == load("pipeline: {a: sample, b: {majority_vote: {}, after: [a]}}", "yaml")
    assert one.pipeline.nodes == (Node("a", Sample()), Node("b", MajorityVote(), ("a",)))


def test_nodes_may_stand_in_any_order() -> None:
    graph = load("pipeline: {b: {majority_vote: {}, after: a}, a: sample}", "yaml").pipeline.graph()
    assert list(graph.places) == ["a", "b"]


def test_a_value_of_one_class_is_read_with_its_lines() -> None:
    table = read_value(PriceTable, "as_of: 2025-08\nmodels:\n  m: {input: 1, output: 2}\n", "prices.yaml")
    assert table.models["m"].output == 2
    with pytest.raises(ConfigError, match=r"prices\.yaml:2: models\.m\.output.*missing"):
        read_value(PriceTable, "models:\n  m: {input: 1}\n", "prices.yaml")


@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=40))
@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_no_text_is_anything_but_data_or_a_user_error(text: str, form: str) -> None:
    try:
        load(text, form)
    except UserError as error:
        assert str(error)


_WORDS = [
    "- ",
    "sample",
    "pipeline",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "  ",
    "n",
    "4",
    "'",
    '"',
    "&a ",
    "*a",
    "!!",
    "? ",
]


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    text=st.lists(st.sampled_from([*_WORDS, "!!set ", "!!str ", "<<", "after", ", ", "=", "#", "~"])).map(
        "".join
    )
)
def test_no_yaml_is_anything_but_data_or_a_user_error(text: str) -> None:
    try:
        load(text, "yaml")
    except UserError as error:
        assert str(error)


def test_a_pipe_is_read_like_a_file() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"- sample: {n: 7}\n")
    os.close(writing)
    try:
        assert load(f"/dev/fd/{reading}").pipeline == Pipeline([Sample(n=7)])
    finally:
        os.close(reading)
