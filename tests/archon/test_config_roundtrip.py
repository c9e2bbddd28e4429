"""load(dump(c)) == c for random configurations of everything that is registered, through YAML and TOML."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache, reduce
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from archon import registry
from archon.backends.base import Model
from archon.backends.openai import OpenAI
from archon.backends.scripted import Scripted
from archon.budget import Budget, Budgets
from archon.component import Component, Nested, Value
from archon.compute import Architecture
from archon.config import Config, dump, load, plain
from archon.config.build import component
from archon.config.build import plain as plain_value
from archon.errors import ConfigError, UnknownName
from archon.pipeline import Node, Pipeline
from archon.prompting import Places
from archon.stage import Stage
from archon.strategies.compute_optimal import Bin, Policy
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.verifiers.regex import Regex
from archon.verifiers.unit_tests import UnitTests

QUICK = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
_BREAKS = "\x85\u2028\u2029"
"""YAML's own line breaks, which have a test of their own."""
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=_BREAKS), max_size=8
) | st.sampled_from(
    [
        "yes",
        "null",
        "~",
        "1e5",
        "0x1F",
        "2024-01-02",
        "a: b",
        "- x",
        "#",
        " padded ",
        "two\nlines",
        "<<",
        "é日😀",
    ]
)
NAMES = TEXT.filter(lambda name: bool(name) and not set("/#") & set(name))
_HEADERS = st.dictionaries(st.sampled_from(["X-Team", "X-Trace"]), st.text("abc -", max_size=5), max_size=2)
_SPECIAL: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("ABMCTS", "verifier"): st.sampled_from([UnitTests(), Regex(pattern="a")]),
    ("AtomOfThoughts", "answers"): st.permutations(("direct", "decomposed", "contracted")).map(tuple),
    ("ComputeOptimal", "policies"): st.sampled_from(
        [
            (Policy(n=1, probes=1, bins=(Bin(),)),),
            (Policy(n=4, probes=2, bins=(Bin(below=0.5, solver=Pipeline([Sample(n=3)])), Bin())),),
        ]
    ),
    ("PerChain", "selector"): st.sampled_from([MajorityVote(), TopK(k=2), WeightedVote(by="v")]),
    ("OpenAI", "base_url"): st.sampled_from(["http://localhost:8000/v1", "https://example.org/é/v1"]),
    ("Regex", "pattern"): st.sampled_from(["", r"\b42\b", "(?i)yes|ja"]),
    ("OpenAI", "headers"): _HEADERS | st.just({"X-API-Key": "${MY_KEY}"}),
    ("RewardServer", "headers"): _HEADERS,
    ("RewardServer", "model"): st.just("Qwen/Qwen2.5-Math-PRM-7B"),
    ("RewardServer", "reads"): st.sampled_from([None, "math-shepherd"]),
    ("VLLM", "options"): st.dictionaries(st.just("max_model_len"), st.integers(1, 4096)),
    ("VLLM", "environment"): st.dictionaries(st.just("OMP_NUM_THREADS"), TEXT),
}
"""Fields whose rules are in code."""
_URL = "http://localhost:8000/v1"
_STARTED = {"replicas", "port", "python", "options", "environment", "keep", "start_timeout"}
_SERVED = {"url", "replicas", "port", "python", "keep", "start_timeout", "stream", "transport", "api_key_env"}
_OF_ANY_CLASS: dict[str, st.SearchStrategy[Any]] = {
    "until": st.sampled_from([r"\\boxed\{", "^(yes|no)$"]),
}
"""The same for fields that several classes have."""
_VARIANTS: dict[str, list[tuple[set[str], dict[str, Any]]]] = {
    "ABMCTS": [({"posterior"}, {}), ({"variant"}, {})],
    "BeamSearch": [({"n", "m"}, {}), (set(), {"n": 30, "m": 5}), (set(), {"n": 7, "m": "all"})],
    "DVTS": [({"n", "m"}, {}), (set(), {"n": 30, "m": 5})],
    "Judge": [({"prompt"}, {}), (set(), {"read": "probability"})],
    "AtomOfThoughts": [({"graph_prompt", "split_prompt"}, {}), (set(), {"read": "assignments"})],
    "ComputeOptimal": [
        ({"n", "signal", "verifier"}, {}),
        ({"n"}, {"signal": "score", "verifier": UnitTests()}),
    ],
    "ChainOfVerification": [({"rewrite"}, {}), ({"check"}, {"rewrite": "inconsistent"})],
    "ParallelTempering": [
        ({"n", "replicas", "ladder", "burn_in"}, {}),
        ({"n"}, {"n": 30, "replicas": 3, "ladder": (0.5, 1.0, 4.0), "sweeps": 5, "burn_in": 4}),
    ],
    "ParticleGibbs": [
        ({"burn_in", "ancestor_sampling"}, {}),
        ({"ancestor_sampling"}, {"sweeps": 5, "burn_in": 4}),
        ({"burn_in", "temperature", "top_p", "stop", "until"}, {"ancestor_sampling": True}),
        ({"burn_in", "steps"}, {"ancestor_sampling": True, "temperature": 1.0, "top_p": None, "stop": ()}),
    ],
    "PlanSearch": [
        ({"sketch", "keep", "subset", "layers"}, {}),
        ({"sketch", "fix", "pseudocode"}, {"sketch": False, "fix": False, "pseudocode": False, "n": 8}),
    ],
    "Revise": [({"n", "ratio"}, {}), ({"chains", "length"}, {"n": 128, "ratio": 0.5})],
    "SelfRefine": [({"feedback_prompt"}, {}), (set(), {"read": "word"})],
    "VLLM": [
        ({"url", "in_process"}, {}),
        (_STARTED | {"in_process"}, {"url": _URL}),
        (_SERVED, {"in_process": True}),
    ],
    "RewardServer": [
        ({"api", "base_url", "vllm"}, {}),
        ({"api", "vllm"}, {"base_url": _URL}),
        ({"reads", "vllm"}, {"api": "json", "base_url": _URL}),
    ],
}
"""Fields that go together, or do not: what to leave out, and what to say."""
_ARCHITECTURES = st.builds(
    Architecture,
    layers=st.integers(1, 2**40),
    hidden=st.sampled_from([64, 4096]),
    heads=st.sampled_from([2, 32]),
    kv_heads=st.sampled_from([None, 1, 2]),
    ffn=st.integers(1, 2**40),
    vocab=st.integers(1, 2**40),
    experts=st.just(8),
    active_experts=st.integers(1, 8),
    dtype=st.sampled_from(["float32", "int4"]),
)
"""Numbers that fit together."""


# --- random values of any configuration class ------------------------------------------------------


@cache
def registered(kind: str) -> list[type[Component]]:
    """Every class that ships under a kind; not what other tests have added."""
    names = sorted(entry.name for entry in entry_points(group=f"archon.{kind}s"))
    return [registry.find(kind, name) for name in names]


def json_values(nulls: bool) -> st.SearchStrategy[Any]:
    leaves = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT
    return st.recursive(
        leaves | st.none() if nulls else leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
        max_leaves=4,
    )


@st.composite
def values(draw: st.DrawFn, cls: type[Any], nulls: bool = True, depth: int = 2) -> Any:
    """A valid value of a configuration class; `nulls` says whether a null may stand for itself."""
    left_out, given = draw(st.sampled_from(_VARIANTS.get(cls.__name__, [(set(), {})])))
    given = dict(given)
    for name, info in cls.model_fields.items():
        if name in left_out or name in given:
            continue
        if not info.is_required() and draw(st.integers(0, 2)) != 0:
            continue
        given[name] = draw(_field(cls, name, nulls, depth))  # type: ignore[arg-type]
    return cls(**given)


@cache
def _field(cls: type[Value], name: str, nulls: bool, depth: int) -> st.SearchStrategy[Any]:
    info = cls.model_fields[name]
    special = _SPECIAL.get((cls.__name__, name), _OF_ANY_CLASS.get(name))
    if special is not None:
        return special
    return _of(info.annotation, list(info.metadata), nulls or info.default is None, nulls, depth)


def _of(kind: Any, marks: list[Any], null: bool, nulls: bool, depth: int) -> st.SearchStrategy[Any]:
    """Values of an annotation within its bounds."""
    origin, parts = get_origin(kind), get_args(kind)
    nested = next((m for m in marks if isinstance(m, Nested)), None)
    if nested is not None and nested.kind == "pipeline":
        return solvers(nulls, depth)
    if nested is not None:
        return components(nested.kind, nulls, depth - 1)
    if origin is Annotated:
        inner = [m for mark in parts[1:] for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        return _of(parts[0], [*marks, *inner], null, nulls, depth)
    if origin in (Union, types.UnionType):
        wanted = [p for p in parts if p is not type(None) or null]
        wanted = [p for p in wanted if get_origin(p) is not Callable and not _too_deep(p, depth)]
        return st.one_of([_of(p, marks, null, nulls, depth) for p in wanted] or [st.none()])
    if kind is type(None):
        return st.none()
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple:
        fewest = next((m.min_length for m in marks if isinstance(m, bounds.MinLen)), 0)
        items = _of(parts[0], [], True, nulls, depth)
        return st.lists(items, min_size=fewest, max_size=max(2, fewest)).map(tuple)
    if origin in (Mapping, dict) or (origin is not None and issubclass(origin, Mapping)):
        return st.dictionaries(TEXT, _of(parts[1], [], True, nulls, depth), max_size=2)
    if kind is Any:
        return json_values(nulls)
    if kind is Architecture:
        return _ARCHITECTURES
    if isinstance(kind, type) and issubclass(kind, Value):
        return values(kind, nulls, depth)
    return _simple(kind, marks)


def _too_deep(kind: Any, depth: int) -> bool:
    return depth <= 0 and any(isinstance(m, Nested) for m in get_args(kind))


def _simple(kind: Any, marks: list[Any]) -> st.SearchStrategy[Any]:
    least = next((m.ge for m in marks if isinstance(m, bounds.Ge)), None)
    above = next((m.gt for m in marks if isinstance(m, bounds.Gt)), None)
    most = next((m.le for m in marks if isinstance(m, bounds.Le)), None)
    low: Any = least if least is not None else above
    if kind is bool:
        return st.booleans()
    if kind is int:
        start = int(low) + (above is not None) if low is not None else -(2**63)
        return st.integers(start, 2**63 - 1 if most is None else int(most))  # type: ignore[call-overload]
    if kind is float:
        below = next((m.lt for m in marks if isinstance(m, bounds.Lt)), None)
        high: Any = most if most is not None else below
        return st.floats(
            None if low is None else float(low),
            None if high is None else float(high),
            allow_nan=False,
            allow_infinity=False,
            exclude_min=above is not None,
            exclude_max=below is not None,
        )
    if kind is Decimal:
        return st.decimals(0, 10**6, places=6)
    if kind is str and (places := next((m for m in marks if isinstance(m, Places)), None)):
        return _templates(places)
    if kind is str:
        least_long = next((m.min_length for m in marks if isinstance(m, bounds.MinLen)), 0)
        return TEXT.filter(lambda text: len(text) >= least_long)
    assert kind is Path, f"no strategy for {kind!r}: teach this file"
    return st.sampled_from([Path("samples.jsonl"), Path("/data/a folder"), Path("é/日")])


def _templates(places: Places) -> st.SearchStrategy[str]:
    """Templates with every place that is required, some that are not, and text and braces between them."""
    around = TEXT.map(lambda text: text.replace("{", "{ "))
    chosen = st.lists(st.sampled_from(places.optional), max_size=2) if places.optional else st.just([])
    required = st.tuples(*(st.sampled_from(one.split("|")) for one in places.required))
    order = st.tuples(required, chosen).flatmap(lambda both: st.permutations([*both[0], *both[1]]))
    return st.tuples(around, order).map(
        lambda drawn: drawn[0].join(["", *(f"{{{n}}}" for n in drawn[1]), ""])
    )


@cache
def components(kind: str, nulls: bool = True, depth: int = 2) -> st.SearchStrategy[Any]:
    """A random component of those that are registered."""
    return st.one_of([values(cls, nulls, depth) for cls in registered(kind) if depth > 1 or not _nests(cls)])


@st.composite
def solvers(draw: st.DrawFn, nulls: bool, depth: int) -> Pipeline:
    """A pipeline for a stage to solve with: a source, or two side by side; with or without a choice."""
    sources = [
        cls
        for cls in registered("stage")
        if issubclass(cls, Stage) and not cls.takes and (depth > 1 or not _nests(cls))
    ]
    whole: Any = draw(values(draw(st.sampled_from(sources)), nulls, depth - 1))
    if draw(st.booleans()):
        whole = whole & draw(values(draw(st.sampled_from(sources)), nulls, depth - 1))
    if draw(st.booleans()):
        whole = whole | MajorityVote()
    return whole if isinstance(whole, Pipeline) else Pipeline([whole])


def _nests(kind: Any) -> bool:
    """Whether it holds other components, which would hold others without end."""
    if isinstance(kind, type) and issubclass(kind, Value):
        return any(_nests(f.annotation) or _marked(f.metadata) for f in kind.model_fields.values())
    return _marked(getattr(kind, "__metadata__", ())) or any(_nests(part) for part in get_args(kind))


def _marked(marks: Any) -> bool:
    return any(isinstance(mark, Nested) for mark in marks)


# --- random pipelines and configurations -----------------------------------------------------------

Facts = frozenset[Any]


@st.composite
def parts(draw: st.DrawFn, facts: Facts | None, nulls: bool, depth: int) -> tuple[Any, Facts]:
    """A stage or a nested pipeline that may stand after `facts` (None: at the beginning)."""
    if depth > 0 and draw(st.integers(0, 3)) == 0:
        inner, gives = draw(pipelines(facts, nulls, depth - 1))
        return inner, gives
    fitting = [
        cls
        for cls in registered("stage")
        if issubclass(cls, Stage)
        and (not cls.takes if facts is None else cls.takes and cls.requires <= facts)
    ]
    stage = draw(values(draw(st.sampled_from(fitting)), nulls))
    return stage, (facts or frozenset()) | stage.provides


@st.composite
def pipelines(draw: st.DrawFn, facts: Facts | None, nulls: bool, depth: int) -> tuple[Pipeline, Facts]:
    """A pipeline and what the candidates that leave it have."""
    if draw(st.booleans()):
        return draw(_chains(facts, nulls, depth))
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    nodes: list[Node] = []
    gives: dict[str, Facts] = {}
    for name in names[:-1]:
        before = (
            draw(st.lists(st.sampled_from(names[: len(nodes)]), unique=True, max_size=3)) if nodes else []
        )
        here = frozenset.intersection(*(gives[b] for b in before)) if before else facts
        part, gives[name] = draw(parts(here, nulls, depth))
        nodes.append(Node(name, part, tuple(before)))
    ends = [n for n in gives if not any(n in other.after for other in nodes)]
    last, gives[names[-1]] = draw(parts(frozenset.intersection(*(gives[e] for e in ends)), nulls, depth))
    nodes.append(Node(names[-1], last, tuple(draw(st.permutations(ends)))))
    nodes = draw(st.permutations(nodes))
    if not nulls:  # TOML: until test_the_order_of_a_graph_survives_toml passes
        nodes = sorted(nodes, key=lambda n: bool(n.after) or not isinstance(plain_value(n.stage), str))
    return Pipeline(nodes), gives[names[-1]]


@st.composite
def _chains(draw: st.DrawFn, facts: Facts | None, nulls: bool, depth: int) -> tuple[Pipeline, Facts]:
    chain: list[Any] = []
    for _ in range(draw(st.integers(1, 3))):
        part, facts = draw(parts(facts, nulls, depth))
        chain.append(Pipeline([Node("pipeline", part)]) if isinstance(part, Pipeline) else part)
    whole = reduce(operator.or_, chain)
    return whole if isinstance(whole, Pipeline) else Pipeline([whole]), facts or frozenset()


@st.composite
def configs(draw: st.DrawFn, nulls: bool = True) -> Config:
    """A valid configuration."""
    pipeline, _ = draw(pipelines(None, nulls, 2))
    try:
        used = list(pipeline.graph().models)
    except ConfigError:
        assume(False)
    further = draw(st.lists(TEXT, max_size=1))
    models: dict[str, Model] = {}
    if draw(st.booleans()):
        models = {name: draw(components("backend", nulls, 1)) for name in {*used, *further}}
    return Config(models=models, budget=draw(values(Budgets, nulls)), pipeline=pipeline)


# --- the property ----------------------------------------------------------------------------------


def same(one: Config, other: Config) -> None:
    assert other == one
    assert plain(other) == plain(one)
    assert hash(other.pipeline) == hash(one.pipeline)


@QUICK
@given(config=configs())
def test_a_configuration_survives_yaml(config: Config) -> None:
    text = dump(config)
    again = load(text, "yaml")
    same(config, again)
    assert dump(again) == text


@QUICK
@given(config=configs(nulls=False))
def test_a_configuration_survives_toml(config: Config) -> None:
    text = dump(config, "toml")
    again = load(text, "toml")
    same(config, again)
    assert dump(again, "toml") == text


@QUICK
@given(config=configs(nulls=False))
def test_a_configuration_survives_a_file_and_the_other_form(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(dump(load(dump(config), "yaml"), "toml"), encoding="utf-8", newline="")
    same(config, load(file))


@QUICK
@given(pipeline=pipelines(None, True, 2))
def test_a_pipeline_alone_survives(pipeline: tuple[Pipeline, Facts]) -> None:
    whole = pipeline[0]
    try:
        whole.graph()
    except ConfigError:
        assume(False)
    assert load(dump(whole), "yaml").pipeline == whole
    assert list(plain(whole)) == ["pipeline"]


@pytest.mark.parametrize("cls", [*registered("stage"), *registered("verifier"), *registered("backend")])
def test_every_registered_class_survives_alone(cls: type[Component]) -> None:
    @settings(QUICK, max_examples=20)
    @given(value=values(cls))
    def survives(value: Component) -> None:
        text = yaml.safe_dump(plain_value(value), sort_keys=False)
        assert component(cls.kind, yaml.safe_load(text)) == value

    survives()


def test_only_what_differs_from_the_defaults_is_written() -> None:
    config = Config(pipeline=Sample(n=4, temperature=None) | MajorityVote())
    assert dump(config) == "pipeline:\n- sample: {n: 4}\n- majority_vote\n"
    assert dump(config, "toml") == 'pipeline = [\n    { sample = { n = 4 } },\n    "majority_vote",\n]\n'


def test_a_chain_is_a_list_and_a_graph_names_its_nodes() -> None:
    chain = Sample() | Verify(verifier=UnitTests()) | MajorityVote()
    assert plain(chain) == {"pipeline": ["sample", {"verify": {"verifier": "unit_tests"}}, "majority_vote"]}
    graph = (Sample(model="a") & Sample(model="b")) | MajorityVote()
    assert plain(graph) == {
        "pipeline": {
            "sample": {"sample": {"model": "a"}},
            "sample-2": {"sample": {"model": "b"}},
            "majority_vote": {"majority_vote": {}, "after": ["sample", "sample-2"]},
        }
    }


def test_python_in_a_model_is_said_and_no_file_brings_it_back() -> None:
    def clever(call: Any) -> str:
        return "42"

    config = Config(models={"default": Scripted(reply=clever)}, pipeline=Pipeline([Sample()]))
    text = dump(config)
    assert "<python " in text and "clever" in text
    with pytest.raises(ConfigError, match=r"models\.default\.reply.*callable"):
        load(text, "yaml")


def test_a_stage_that_no_file_can_name_is_not_dumped() -> None:
    class Private(Stage):
        """Registered nowhere."""

        async def run(self, problem: Any, candidates: Any, run: Any) -> Any:
            async for candidate in candidates:
                yield candidate

    with pytest.raises(UnknownName, match=r"Private is not registered as a stage.*entry point 'private'"):
        dump(Sample() | Private())


def test_what_toml_cannot_say_is_a_clear_error() -> None:
    models = {"default": OpenAI(model="m", max_tokens=None)}
    with pytest.raises(ConfigError, match="max_tokens"):
        dump(Config(models=models, pipeline=Pipeline([Sample()])), "toml")


@pytest.mark.parametrize("amount", ["0.12345678901234567890", "123456789.123456789123", "1E-400"])
@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_money_survives_to_the_last_digit(amount: str, form: str) -> None:
    config = Config(budget=Budgets(run=Budget(usd=Decimal(amount))), pipeline=Pipeline([Sample()]))
    assert load(dump(config, form), form) == config


def test_the_order_of_a_graph_survives_toml() -> None:
    nodes = [Node("z", Sample(n=2)), Node("a", Sample()), Node("vote", MajorityVote(), ("z", "a"))]
    config = Config(pipeline=Pipeline(nodes))
    assert load(dump(config, "toml"), "toml") == config


@pytest.mark.parametrize(
    "form",
    [
        "toml",
        pytest.param("yaml"),
    ],
)
@pytest.mark.parametrize("text", ["\x85", "one\x85two", "it's\x85"])
def test_a_next_line_character_survives(text: str, form: str) -> None:
    config = Config(pipeline=Pipeline([Sample(system=text, stop=(text,))]))
    assert load(dump(config, form), form) == config


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises((ValueError, ConfigError)):
        dump(Config(pipeline=Pipeline([Sample()])), "tmol")
