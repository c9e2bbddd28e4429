"""Marks: found where they stand, filled in as a file without them would say it, and never passed over when misspelt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.config.source import Source, read_text
from archon.errors import ConfigError
from archon.search.axes import Configuration
from archon.search.marks import KEYS, Marked, find
from archon.search.space import SearchSpace

QUICK = settings(max_examples=60, deadline=None, derandomize=True)

SPACE = """\
pipeline:
  - sample: {model: {choose: [small, big]}, n: {choose: [1, 4]}, top_p: {optional: {range: [0.5, 1]}}}
  - optional: {verify: {verifier: unit_tests}}
  - choose:
      vote: majority_vote
      best: [{verify: {verifier: {reward: {model: {choose: [prm, orm]}}}}}, best_of]
      graph:
        judge: {verify: {verifier: reward}}
        pick: {best_of: {}, after: judge}
      none: []
"""


def marked(text: str) -> Marked:
    return find(read_text(text, "yaml", "f.yaml"))


def filled(text: str, **values: Any) -> Any:
    """The pipeline under these values; `__` in a name is a dot."""
    space = marked(text)
    wanted = {name.replace("__", "."): value for name, value in values.items()}
    return space.fill(space.axes.configuration(wanted))["pipeline"]


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find(read_text(text, "yaml", "f.yaml"))
    return str(caught.value)


def test_axes_come_in_order_are_named_by_their_place_and_need_what_they_stand_in() -> None:
    axes = marked(SPACE).axes
    assert [(axis.name, axis.kind, dict(axis.needs)) for axis in axes] == [
        ("sample.model", "choice", {}),
        ("sample.n", "choice", {}),
        ("sample.top_p.given", "choice", {}),
        ("sample.top_p", "float", {"sample.top_p.given": (True,)}),
        ("verify", "choice", {}),
        ("choice", "choice", {}),
        ("best.verify.verifier.reward.model", "choice", {"choice": ("best",)}),
    ]
    assert axes.by_name["choice"].options == ("vote", "best", "graph", "none")
    assert axes.by_name["verify"].options == (False, True)
    assert (axes.by_name["sample.top_p"].low, axes.by_name["sample.top_p"].high) == (0.5, 1.0)


BASE = {"sample__model": "big", "sample__n": 4, "sample__top_p__given": False, "verify": False}
DRAWN = {"sample": {"model": "big", "n": 4}}


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        ({"choice": "vote"}, ["majority_vote"]),
        ({"choice": "none"}, []),
        ({"choice": "vote", "verify": True}, [{"verify": {"verifier": "unit_tests"}}, "majority_vote"]),
        (
            {"choice": "best", "best__verify__verifier__reward__model": "orm"},
            [{"verify": {"verifier": {"reward": {"model": "orm"}}}}, "best_of"],
        ),
        (
            {"choice": "graph"},
            [
                {
                    "pipeline": {
                        "judge": {"verify": {"verifier": "reward"}},
                        "pick": {"best_of": {}, "after": ["judge"]},
                    }
                }
            ],
        ),
    ],
)
def test_a_list_closes_up_over_what_is_left_out_and_takes_in_what_is_chosen(values: Any, rest: Any) -> None:
    assert filled(SPACE, **{**BASE, **values}) == [DRAWN, *rest]


def test_a_field_that_is_left_out_has_its_default_and_one_that_is_not_its_value() -> None:
    given = {**BASE, "sample__top_p__given": True, "sample__top_p": 0.75, "choice": "none"}
    assert filled(SPACE, **given) == [{"sample": {"model": "big", "n": 4, "top_p": 0.75}}]


NODES = """\
pipeline:
  a: {sample: {n: 1}}
  b: {optional: {sample: {n: 2}}}
  check: {optional: {verify: {verifier: unit_tests}}, name: checked, after: [a, b]}
  more: {choose: {none: [], judge: [{verify: {verifier: reward}}, {top_k: {k: 2}}]}, after: check}
  best: {best_of: {}, after: [more]}
"""


def test_what_comes_after_a_node_that_is_left_out_comes_after_what_that_came_after() -> None:
    assert filled(NODES, b=True, checked=False, more="none") == {
        "a": {"sample": {"n": 1}},
        "b": {"sample": {"n": 2}},
        "best": {"best_of": {}, "after": ["a", "b"]},
    }
    assert filled(NODES, b=False, checked=True, more="judge") == {
        "a": {"sample": {"n": 1}},
        "check": {"verify": {"verifier": "unit_tests"}, "after": ["a"]},
        "more": {"pipeline": [{"verify": {"verifier": "reward"}}, {"top_k": {"k": 2}}], "after": ["check"]},
        "best": {"best_of": {}, "after": ["more"]},
    }


def test_a_branch_that_is_left_out_lets_nothing_bypass_those_that_are_there() -> None:
    text = """
pipeline:
  draw: {sample: {n: 2}}
  also: {sample: {n: 3}}
  one: {fuse: {}, after: draw}
  two: {optional: {fuse: {n: 2}}, after: draw}
  three: {optional: {top_k: {k: 1}}, after: also}
  join: {majority_vote: {}, after: [one, two, three]}
"""
    neither = filled(text, two=False, three=False)
    assert neither["join"] == {"majority_vote": {}, "after": ["one", "also"]}
    assert filled(text, two=True, three=True)["join"]["after"] == ["one", "two", "three"]
    assert filled(text, two=True, three=False)["join"]["after"] == ["one", "two", "also"]


def test_nodes_name_the_axes_in_them() -> None:
    text = "pipeline: {draw: {sample: {n: {choose: [1, 2]}}}, vote: {choose: [majority_vote, best_of], after: draw}}"
    space = marked(text)
    assert [axis.name for axis in space.axes] == ["draw.n", "vote"]
    assert filled(text, draw__n=2, vote="best_of") == {
        "draw": {"sample": {"n": 2}},
        "vote": {"best_of": {}, "after": ["draw"]},
    }


def test_an_axis_is_used_again_and_parts_go_by_the_axes_of_others() -> None:
    text = """
axes: {depth: {choose: [1, 2, 3]}, width: {range: [1, 8], integer: true, where: {depth: [2, 3]}}}
pipeline:
  - sample: {n: {choose: [2, 4], name: n}}
  - optional: {revise: {n: {axis: n}, chains: {axis: width}}}
    where: {depth: [2, 3]}
  - optional: majority_vote
    where: {depth: 3, n: 4}
"""
    space = marked(text)
    assert [(a.name, dict(a.needs)) for a in space.axes] == [
        ("depth", {}),
        ("width", {"depth": (2, 3)}),
        ("n", {}),
    ]
    assert filled(text, depth=1, n=4) == [{"sample": {"n": 4}}]
    revised = {"revise": {"n": 4, "chains": 5}}
    assert filled(text, depth=2, n=4, width=5) == [{"sample": {"n": 4}}, revised]
    assert filled(text, depth=3, n=4, width=5) == [{"sample": {"n": 4}}, revised, "majority_vote"]
    assert "width" not in space.axes.configuration({"depth": 1, "n": 2})


def test_a_condition_may_name_an_axis_that_is_chosen_later_in_the_file() -> None:
    text = """
pipeline:
  - sample: {n: {choose: [1, 2]}}
  - optional: {verify: {verifier: unit_tests, ahead: {choose: [1, 2]}}}
    where: {last: best}
  - choose: {vote: majority_vote, best: best_of}
    name: last
"""
    assert [axis.name for axis in marked(text).axes] == ["sample.n", "last", "verify.ahead"]
    assert filled(text, sample__n=1, last="vote") == [{"sample": {"n": 1}}, "majority_vote"]


def test_a_component_s_own_field_is_no_mark_and_what_looks_like_one_can_be_said() -> None:
    own = "pipeline: [{atom_of_thoughts: {choose: all, runs: {choose: [1, 2]}}}]"
    assert [axis.name for axis in marked(own).axes] == ["atom_of_thoughts.runs"]
    assert filled(own, atom_of_thoughts__runs=2) == [{"atom_of_thoughts": {"choose": "all", "runs": 2}}]
    marked_own = "pipeline: [{atom_of_thoughts: {choose: {choose: [judge, all]}}}]"
    assert filled(marked_own, atom_of_thoughts__choose="judge") == [{"atom_of_thoughts": {"choose": "judge"}}]
    said = "pipeline: [{sample: {extra: {schema: {verbatim: {range: [1, 2], type: x}}}}}]"
    assert filled(said) == [{"sample": {"extra": {"schema": {"range": [1, 2], "type": "x"}}}}]


def test_no_registered_stage_but_one_has_a_field_of_a_mark_s_name() -> None:
    """The rule in marks.py is needed for one field; should another come, this says so."""
    from archon import registry

    clashes = {
        (kind, name, field)
        for kind in ("stage", "verifier", "retriever", "backend")
        for name in registry.names(kind)
        for field in KEYS
        if field in registry.find(kind, name).model_fields
    }
    assert clashes == {("stage", "atom_of_thoughts", "choose")}


def test_marks_stand_in_lists_in_components_and_in_models() -> None:
    text = """
models: {coder: {backend: scripted, max_tokens: {choose: [100, 200]}}}
pipeline:
  - mixture_of_agents: {proposers: [a, {choose: [b, c]}, {optional: d}]}
  - verify: {verifier: {choose: [unit_tests, {reward: {threshold: {range: [0, 1], step: 0.5}}}]}}
"""
    space = marked(text)
    assert [axis.name for axis in space.axes] == [
        "models.coder.max_tokens",
        "mixture_of_agents.proposers[1]",
        "mixture_of_agents.proposers[2].given",
        "verify.verifier",
        "verify.verifier.reward.threshold",
    ]
    values: dict[str, Any] = dict(
        zip((a.name for a in space.axes), (200, "c", True, "reward", 0.5), strict=True),
    )
    data = space.fill(Configuration(values))
    assert data["models"] == {"coder": {"backend": "scripted", "max_tokens": 200}}
    assert data["pipeline"] == [
        {"mixture_of_agents": {"proposers": ["a", "c", "d"]}},
        {"verify": {"verifier": {"reward": {"threshold": 0.5}}}},
    ]


def test_filling_in_is_pure_and_says_where_everything_stood() -> None:
    source = read_text(SPACE, "yaml", "f.yaml")
    before = repr(source.data)
    space = find(source)
    rng = np.random.default_rng(3)
    for _ in range(50):
        configuration = space.axes.draw(rng)
        assert space.fill(configuration) == space.fill(configuration)
        for path, origin in space.origins(configuration).items():
            inside: Any = space.fill(configuration)
            for step in path:
                inside = inside[step]
            there: Any = source.data
            for step in origin:
                there = there[step]
    assert repr(source.data) == before


MALFORMED = {
    "n: {choose: []}": "f.yaml:2: pipeline[0].sample.n.choose: `choose` has nothing to choose from",
    "n: {choose: 3}": "`choose` takes a list, or alternatives by name, and is 3",
    "n: {choose: [1, 2, 1]}": "pipeline[0].sample.n.choose[2]: the option 1 is there twice",
    "n: {choose: [1, 1.0]}": "the option 1.0 is there twice",
    "n: {choose: [[1], [2]]}": "the option [1] has no name to go by. Give alternatives names",
    "n: {choose: [.inf]}": "inf is no value to choose",
    "n: {choose: [1], nam: x}": "'nam' stands beside `choose`. Did you mean 'name'?",
    "n: {choose: [1], name: 3}": "the name of an axis should be text, and is 3",
    "n: {choose: [1], range: [1, 2]}": "`choose` and `range` stand in one mark",
    "n: {range: [4, 1]}": "`range` goes from 4 to 1. Write [1, 4]",
    "n: {range: [1]}": "`range` takes two numbers, [low, high], and is [1]",
    "n: {range: [1, true]}": "`range` takes two numbers",
    "n: {range: [1, 4], step: 0}": "`step` is a number above 0, and not 0",
    "n: {range: [1, 4], step: 9}": "a step of 9 leads out of the range from 1 to 4",
    "n: {range: [0, 4], log: true}": "on a log scale a range begins above 0, and this at 0",
    "n: {range: [1, 4], log: 1}": "`log` is true or false, and not 1",
    "n: {range: [1, 4.5], integer: true}": "a whole number has whole ends and steps, and not 4.5",
    "n: {range: [1, 4], stp: 2}": "'stp' stands beside `range`. Did you mean 'step'?",
    "n: {axis: m}": "there is no axis 'm'",
    "n: {axis: [m]}": "`axis` takes the name of an axis, and is ['m']",
    "n: {axis: m, name: x}": "'name' stands beside `axis`. Nothing may stand beside `axis`.",
    "n: {optional: 2, where: {m: 1}}": "there is no axis 'm'",
    "n: {optional: 2, where: 5}": "`where` takes axes with their values, and is 5",
    "n: {optional: 2, name: m, where: {m: 1}}": "with `where` it is no choice of its own",
    "n: {chose: [1, 2]}": "'chose' is no mark. Did you mean 'choose'?",
    "n: {one_of: [1, 2]}": "'one_of' is no mark. Did you mean 'choose'?",
    "extra: {top: {rnage: [1, 2]}}": "'rnage' is no mark. Did you mean 'range'?",
}


@pytest.mark.parametrize("given", MALFORMED)
def test_a_malformed_mark_is_an_error_with_its_line_the_value_the_rule_and_what_to_do(given: str) -> None:
    said = message(f"pipeline:\n  - sample: {{{given}}}\n")
    assert said.startswith("f.yaml:2: ")
    assert MALFORMED[given] in said


PLACES = {
    "pipeline: {optional: [sample]}": "the whole pipeline cannot be left out",
    "pipeline: [{sample: {choose: [1]}}]": "the settings of 'sample' cannot be chosen as a whole",
    "pipeline: [{chose: [majority_vote, best_of]}]": "'chose' is no mark. Did you mean 'choose'?",
    "axes: 3\npipeline: [sample]": "expected marks by the names of their axes",
    "axes: {a: 3}\npipeline: [sample]": "expected `{choose: [...]}` or `{range: [...]}`, and found 3",
    "axes: {a: {choose: [1]}}\npipeline: [sample]": "nothing goes by axis 'a'",
    "axes: {a: {choose: {x: 1}}}\npipeline: [{sample: {n: {axis: a}}}]": "takes plain values",
    "pipeline: [{sample: {n: {choose: [1], name: a}, top_k: {choose: [1], name: a}}}]": "another axis is named 'a'",
    "pipeline: [{choose: {a: sample, b: sample}}, {optional: best_of, where: {choice: c}}]": "is never 'c'",
    "pipeline: [{choose: {a: sample}}, {top_k: {k: {axis: choice}}}]": "chooses among alternatives",
    "pipeline: [{optional: {sample: {n: {choose: [1], name: m}}}}, {top_k: {k: {axis: m}}}]": "has a value only where",
    "pipeline: [{optional: best_of, where: {b: true}, name: a}]": "it is no choice of its own",
}


@pytest.mark.parametrize("text", PLACES)
def test_a_mark_where_it_cannot_stand_or_mean_anything_is_an_error(text: str) -> None:
    assert PLACES[text] in message(text)


def test_axes_that_wait_for_one_another_are_an_error() -> None:
    text = """
pipeline:
  - sample: {n: 1}
  - optional: {top_k: {k: {choose: [1, 2], name: a}}}
    where: {b: 1}
  - optional: {top_k: {k: {choose: [1, 2], name: b}}}
    where: {a: 1}
"""
    assert "these axes wait for one another: 'a', 'b'" in message(text)


def test_a_part_that_can_never_be_there_is_an_error() -> None:
    text = """
pipeline:
  - sample: {n: {choose: [1, 2], name: n}}
  - optional: [{optional: {top_k: {k: {choose: [1, 2]}}}, where: {n: 1}}]
    where: {n: 2}
"""
    assert "it is never there: 'n' would have two values at once" in message(text)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = """
pipeline:
  - sample: {n: {choose: []}, top_p: {range: [2, 1]}}
  - optinal: best_of
  - top_k: {k: {axis: nowhere}}
"""
    with pytest.raises(ConfigError) as caught:
        marked(text)
    assert [flaw.where.split(":")[1] for flaw in caught.value.flaws] == ["3", "3", "4", "5"]


def test_toml_has_marks_too() -> None:
    text = '[[pipeline]]\nsample = {n = {choose = [1, 2]}}\n[[pipeline]]\noptional = "best_of"\n'
    space = find(read_text(text, "toml", "f.toml"))
    assert [axis.name for axis in space.axes] == ["sample.n", "best_of"]


MARKS: dict[str, dict[str, Any]] = {
    "choose": {"choose": [1, 2]},
    "range": {"range": [1, 2], "integer": True},
    "optional": {"optional": 1},
    "axis": {"axis": "m"},
    "verbatim": {"verbatim": 3},
}


def place(where: str, mark: Any) -> Any:
    """A pipeline with this mark in a place."""
    draw: dict[str, Any] = {"n": {"choose": [1, 2], "name": "m"}}
    stages: list[Any] = [{"sample": draw}]
    if where == "whole number":
        stages.append({"top_k": {"k": mark}})
    elif where == "text":
        draw["system"] = mark
    elif where == "free data":
        draw["extra"] = mark
    elif where == "deep in free data":
        draw["extra"] = {"body": [{"deeper": mark}]}
    elif where == "component":
        stages.append({"verify": {"verifier": mark}})
    elif where == "pipeline":
        stages = [{"atom_of_thoughts": {"runs": {"choose": [1, 2], "name": "m"}, "solver": mark}}]
    else:
        stages.append(mark)
    return {"pipeline": stages}


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[str, str]:
    """A mark, and its name with one slip."""
    word = draw(st.sampled_from(sorted(MARKS)))
    at = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    slip = draw(st.sampled_from(["drop", "add", "change", "swap"]))
    if slip == "drop":
        return word, word[:at] + word[at + 1 :]
    if slip == "add":
        return word, word[:at] + letter + word[at:]
    if slip == "change":
        return word, word[:at] + letter + word[at + 1 :]
    return word, word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    misspelt(),
    st.sampled_from(
        ["whole number", "text", "free data", "deep in free data", "component", "pipeline", "stage"],
    ),
)
def test_a_misspelt_mark_never_passes_silently(slip: tuple[str, str], where: str) -> None:
    word, spelt = slip
    if spelt == word:
        return
    mark = dict(MARKS[word])
    value = mark.pop(word)
    with pytest.raises(ConfigError):
        SearchSpace.from_data(place(where, {spelt: value, **mark}))


def test_data_that_only_resembles_a_mark_stays_data() -> None:
    extra = {
        "orange": [1, 2, 3],
        "options": {"num_ctx": 5},
        "optional_args": 1,
        "ranges": "x",
        "change": [1, 2],
    }
    for key, value in extra.items():
        pipeline = [{"sample": {"extra": {key: value}}}]
        assert find(Source({"pipeline": pipeline})).fill({}) == {"pipeline": pipeline}
