"""Pipelines: what `|`, `&` and nesting make, and everything that is wrong with a graph, said at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.backends.scripted import Scripted
from archon.errors import ConfigError, Flaw
from archon.pipeline import Node, Pipeline, fresh_name
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird


class Source(Sample):
    """A source."""

    name: ClassVar[str] = "source"


class Pass(Stage):
    """Passes everything on."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            yield candidate


class NeverTwice(Pass):
    """A rule of its own: only one of it."""

    def rules(self, before: tuple[Stage, ...], after: tuple[Stage, ...]) -> Iterable[str]:
        if any(isinstance(s, NeverTwice) for s in (*before, *after)):
            yield "one of it is enough"


def verify() -> Verify:
    return Verify(verifier=EveryThird())


def shape(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """What comes after what, flat."""
    return {path: place.before for path, place in pipeline.graph().places.items()}


def flaws(nodes: Sequence[Any]) -> list[Flaw]:
    with pytest.raises(ConfigError) as caught:
        Pipeline(nodes).graph()
    return list(caught.value.flaws)


# --- composing --------------------------------------------------------------------------------------


def test_a_chain_runs_in_its_order() -> None:
    assert shape(Sample() | verify() | BestOf()) == {
        "sample": (),
        "verify": ("sample",),
        "best_of": ("verify",),
    }


def test_branches_stand_side_by_side_and_the_next_stage_joins_them() -> None:
    pipeline = (Sample() & Source()) | MajorityVote()
    assert shape(pipeline) == {"sample": (), "source": (), "majority_vote": ("sample", "source")}


def test_and_binds_tighter_than_or() -> None:
    assert Sample() & Source() | Pass() == (Sample() & Source()) | Pass()


def test_a_stage_used_twice_gets_a_number() -> None:
    assert shape((Sample() & Sample() & Sample()) | Pass() | Pass()) == {
        "sample": (),
        "sample-2": (),
        "sample-3": (),
        "pass": ("sample", "sample-2", "sample-3"),
        "pass-2": ("pass",),
    }


def test_chains_side_by_side_keep_their_own_order() -> None:
    pipeline = ((Sample() | verify()) & (Sample() | verify())) | BestOf()
    assert shape(pipeline)["verify-2"] == ("sample-2",)
    assert shape(pipeline)["best_of"] == ("verify", "verify-2")


def test_a_fan_out_feeds_every_branch_from_the_same_stage() -> None:
    pipeline = Sample() | (Pass() & verify()) | MajorityVote()
    assert shape(pipeline) == {
        "sample": (),
        "pass": ("sample",),
        "verify": ("sample",),
        "majority_vote": ("pass", "verify"),
    }


STAGES = st.lists(st.sampled_from([Pass(), NeverTwice(), Sample()]), min_size=3, max_size=6)


@given(STAGES, st.data())
def test_how_a_chain_is_bracketed_does_not_matter(stages: list[Stage], data: st.DataObject) -> None:
    assert bracketed(stages, data, "|") == left_to_right(stages, "|")


@given(STAGES, st.data())
def test_how_branches_are_bracketed_does_not_matter(stages: list[Stage], data: st.DataObject) -> None:
    assert bracketed(stages, data, "&") == left_to_right(stages, "&")


def left_to_right(stages: Sequence[Stage], sign: str) -> Any:
    whole: Any = stages[0]
    for stage in stages[1:]:
        whole = whole | stage if sign == "|" else whole & stage
    return whole


def bracketed(stages: Sequence[Stage], data: st.DataObject, sign: str) -> Any:
    if len(stages) == 1:
        return stages[0]
    at = data.draw(st.integers(1, len(stages) - 1))
    left, right = bracketed(stages[:at], data, sign), bracketed(stages[at:], data, sign)
    return left | right if sign == "|" else left & right


@given(
    st.sets(st.sampled_from(["a", "a-2", "a-3", "a-b", "a-b-2", "2"])),
    st.sampled_from(["a", "a-2", "a-b", "2"]),
)
def test_a_fresh_name_is_free(taken: set[str], wanted: str) -> None:
    name = fresh_name(wanted, taken)
    assert name not in taken
    assert (name == wanted) == (wanted not in taken)


def test_a_nested_pipeline_is_laid_flat_under_its_name() -> None:
    inner = Pipeline([Node("draw", Sample()), Node("judge", verify(), ("draw",))])
    outer = Pipeline([Node("first", inner), Node("again", Pass(), ("first",))])
    assert shape(outer) == {"first/draw": (), "first/judge": ("first/draw",), "again": ("first/judge",)}


def test_a_nested_pipeline_takes_what_comes_before_it_and_gives_what_its_ends_give() -> None:
    inner = Pipeline([Node("x", Pass()), Node("y", Pass())])
    outer = Pipeline([Node("s", Sample()), Node("in", inner, ("s",)), Node("end", MajorityVote(), ("in",))])
    assert shape(outer) == {"s": (), "in/x": ("s",), "in/y": ("s",), "end": ("in/x", "in/y")}


def test_pipelines_nest_deep() -> None:
    pipeline = Pipeline([Sample()])
    for _ in range(20):
        pipeline = Pipeline([Node("in", pipeline)])
    assert list(shape(pipeline)) == ["in/" * 20 + "sample"]


def test_nodes_may_be_given_in_any_order_and_run_in_theirs() -> None:
    pipeline = Pipeline([Node("c", BestOf(), ("b",)), Node("b", verify(), ("a",)), Node("a", Sample())])
    assert list(pipeline.graph().places) == ["a", "b", "c"]
    assert [n.name for n in pipeline.sources] == ["a"]
    assert [n.name for n in pipeline.sinks] == ["c"]


def test_a_pipeline_is_a_value() -> None:
    one, same = Sample(n=2) | verify(), Sample(n=2) | verify()
    assert one == same and hash(one) == hash(same)
    assert one != Sample(n=3) | verify()
    assert one != "a pipeline"
    with pytest.raises(AttributeError, match="immutable"):
        one.nodes = ()
    assert repr(one).startswith("Pipeline(sample=Sample(n=2), verify=Verify(")


async def test_a_string_is_asked_as_it_is_and_one_model_serves_every_name() -> None:
    model = Scripted(replies={"*": ("42",)})
    outcome = await (Sample(model="any name") | MajorityVote()).run("What is 6 times 7?", models=model)
    assert (outcome.answer, outcome.problem) == ("42", "What is 6 times 7?")


# --- what is wrong ----------------------------------------------------------------------------------


def test_a_circle_is_shown_whole() -> None:
    (flaw,) = flaws([Node("a", Pass(), ("c",)), Node("b", Pass(), ("a",)), Node("c", Pass(), ("b",))])
    assert "the stages run in a circle: c -> a -> b -> c" in str(flaw)


def test_a_stage_cannot_come_after_itself() -> None:
    (flaw,) = flaws([Node("a", Pass(), ("a",))])
    assert "a -> a" in str(flaw)


@pytest.mark.parametrize(
    ("nodes", "where", "says"),
    [
        ([], "pipeline", "has no stages"),
        ([Sample(), Sample()], "sample", "2 stages have this name"),
        ([Node("a/b", Sample())], "a/b", "cannot name a stage"),
        ([Node("a#b", Sample())], "a#b", "cannot name a stage"),
        ([Node("", Sample())], "pipeline", "cannot name a stage"),
        ([Sample(), Node("v", Pass(), ("sampel",))], "v", "Did you mean 'sample'?"),
        ([Sample(), Node("v", Pass(), ("sample", "sample"))], "v", "names a stage twice"),
        ([Pass()], "pass", "needs candidates, and nothing comes before it"),
        ([Sample(), Node("more", Source(), ("sample",))], "more", "takes no candidates, but comes after"),
        ([Sample(), Node("end", FirstPassing(), ("sample",))], "end", "needs verdicts, and no stage before"),
        ([Sample(), Node("end", TopK(k=1), ("sample",))], "end", "needs scores"),
        ([Sample(), Source(), Node("end", Pass(), ("sample",))], "source", "its candidates bypass 'end'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(nodes: list[Any], where: str, says: str) -> None:
    (flaw,) = flaws(nodes)
    assert flaw.where == where
    assert says in str(flaw)


def test_a_branch_without_verdicts_is_named() -> None:
    (flaw,) = flaws([Node("in", (Sample() | verify()) & Source()), Node("end", BestOf(), ("in",))])
    assert "the branch of 'in/source' gives none" in str(flaw)


def test_a_rule_of_a_stage_is_checked_and_the_place_is_named() -> None:
    found = flaws([*(Sample() | NeverTwice() | NeverTwice()).nodes])
    assert [(f.where, f.what) for f in found] == [
        ("never_twice", "one of it is enough"),
        ("never_twice-2", "one of it is enough"),
    ]


def test_everything_wrong_is_said_at_once() -> None:
    found = flaws([Node("a", Pass(), ("nowhere",)), Node("a", Pass()), Node("b/", Pass())])
    assert len(found) == 3
    found = flaws([Node("one", MajorityVote()), Node("two", BestOf()), Node("s", Sample(), ("one",))])
    assert [f.where for f in found] == ["one", "two", "s", "s"]
    found = flaws([Sample(), MajorityVote()])
    assert [f.where for f in found] == ["majority_vote", "sample"], "both ends of what was not connected"


# --- plans ------------------------------------------------------------------------------------------


def test_calls_are_counted_exactly_where_nothing_stops_early_and_bounded_where_something_may() -> None:
    exact = (Sample(n=4) & Source(n=2)) | verify() | TopK(k=3)
    assert {path: plan.passes for path, plan in exact.graph().plan().items()} == {
        "sample": Count(4, 4),
        "source": Count(2, 2),
        "verify": Count(6, 6),
        "top_k": Count(3, 3),
    }
    bounded = (Sample(n=4) | verify() | FirstPassing()).graph()
    assert bounded.plan()["sample"].calls == Count(1, 4)
    assert bounded.plan()["first_passing"].passes == Count(0, 1)
    assert bounded.may_stop_early("sample") and not bounded.may_stop_early("first_passing")


def test_the_same_candidates_by_two_ways_are_not_counted_twice_for_sure() -> None:
    graph = (Sample(n=4) | (verify() & verify()) | TopK(k=9, by="every_third")).graph()
    assert graph.plan()["top_k"].passes == Count(4, 8), "each way brings four"
    assert graph.share_ancestor(graph.places["top_k"].before)
    assert not graph.share_ancestor(graph.places["verify"].before)
