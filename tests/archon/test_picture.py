"""Pictures of a pipeline: every stage and every edge is there, in every form, whatever the names."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from archon.picture import as_json, mermaid, svg, terminal, total_calls
from archon.pipeline import Node, Pipeline
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird

CHAIN = (Sample(n=4, temperature=0.8) | Verify(verifier=EveryThird()) | FirstPassing()).graph()
JOINED = ((Sample(n=4) & Sample(model="b", n=2)) | MajorityVote()).graph()
HOSTILE = Pipeline(
    [
        Node('<b>"x"&', Sample(system='</svg><script>alert("&")</script>')),
        Node("end", MajorityVote(), ('<b>"x"&',)),
    ]
).graph()


def test_json_holds_every_stage_with_its_settings_edges_and_calls() -> None:
    data = json.loads(json.dumps(as_json(CHAIN)))
    assert list(data["stages"]) == ["sample", "verify", "first_passing"]
    assert data["stages"]["sample"] == {
        "stage": "sample",
        "settings": {"n": 4, "temperature": 0.8},
        "after": [],
        "models": ["default"],
    }
    assert data["stages"]["verify"]["settings"] == {"verifier": "every_third"}
    assert data["stages"]["first_passing"]["after"] == ["verify"]
    assert data["calls"]["total"] == {"low": 1, "high": 4}
    assert data["calls"]["by_stage"]["verify"] == {"low": 0, "high": 0}
    assert data["candidates"]["first_passing"] == {"low": 0, "high": 1}


def test_calls_of_branches_add_up() -> None:
    assert total_calls(JOINED) == (6, 6)


def test_the_terminal_shows_one_stage_per_line_with_calls_and_joins() -> None:
    assert terminal(CHAIN).splitlines() == [
        "● sample  (n=4, temperature=0.8)   [1 to 4 calls]",
        "  │",
        "● verify  (verifier=every_third)",
        "  │",
        "● first_passing",
        "",
        "1 to 4 model calls per problem",
    ]
    assert "● majority_vote   ← sample, sample-2" in terminal(JOINED).splitlines()


def test_mermaid_names_every_stage_and_draws_every_edge() -> None:
    assert mermaid(JOINED).splitlines() == [
        "flowchart LR",
        '  s0["sample  (n=4)"]',
        '  s1["sample-2  (model=b, n=2)"]',
        '  s2["majority_vote"]',
        "  s0 --> s2",
        "  s1 --> s2",
    ]


def test_the_svg_is_well_formed_with_a_box_per_stage_and_a_line_per_edge() -> None:
    space = "{http://www.w3.org/2000/svg}"
    for graph, edges in ((CHAIN, 2), (JOINED, 2), (HOSTILE, 1)):
        tree = ElementTree.fromstring(svg(graph))
        boxes = [r for r in tree.iter(f"{space}rect") if r.get("rx")]
        lines = [p for p in tree.iter(f"{space}path") if p.get("marker-end")]
        assert (len(boxes), len(lines)) == (len(graph.places), edges)
        assert len({(r.get("x"), r.get("y")) for r in boxes}) == len(boxes), "no box lies on another"
        assert not list(tree.iter(f"{space}script"))
    names = [t.text for t in ElementTree.fromstring(svg(HOSTILE)).iter(f"{space}text")]
    assert '<b>"x"&' in names


def test_a_line_of_mermaid_never_breaks_out_of_its_quotes() -> None:
    for line in mermaid(HOSTILE).splitlines()[1:3]:
        assert line.count('"') == 2, line


def test_a_long_setting_is_shortened() -> None:
    graph = Pipeline([Sample(system="very " * 1000)]).graph()
    assert max(map(len, terminal(graph).splitlines())) < 200
    assert len(mermaid(graph)) < 300


def test_a_setting_of_several_lines_stays_on_one() -> None:
    graph = Pipeline([Sample(system="one\ntwo", stop=("\n",))]).graph()
    assert len(terminal(graph).splitlines()) == 3
    assert len(mermaid(graph).splitlines()) == 2
