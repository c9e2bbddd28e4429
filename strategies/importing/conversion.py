"""The original Archon's configurations as ours: layers as a graph, its components as our stages.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3, and its public code. A layer's components
stand side by side, each after the whole layer before. Where the unit test generator comes first, what follows it sees
its tests (`test_first`), up to the evaluator. Nothing is asked again, so that the calls are at most those of the
paper's table 3: a ranker that one candidate reaches makes none, and what stops at the first so many may make fewer.
Models go by OpenAI-compatible addresses and the names of the environment variables that hold their keys. Cost: no
calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from archon.backends.base import Model
from archon.config import Config, dump
from archon.config.build import Builder
from archon.config.source import Source, shown
from archon.errors import ConfigError, Flaw
from archon.pipeline import Node, Pipeline, fresh_name
from archon.stage import NONE, Stage
from archon.strategies.archon_rules import ArchonComponent, is_stack, violations
from archon.strategies.critique import Critique
from archon.strategies.fuse import Fuse
from archon.strategies.importing.original import PAIR_RM, Notes, Original, Part
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.write_tests import WriteTests
from archon.suggest import hint

Layer = Sequence[Part]
_SIDE_BY_SIDE = frozenset({"generator", "fuser"})
"""Components that a layer may hold several of."""
_LOCAL = "http://localhost:8000/v1"


class Provider(NamedTuple):
    """Where a `model_type` of the original is served."""

    backend: str
    fields: Mapping[str, str] = {}
    note: str = ""
    """What the user must know or do."""


_OPENAI = "openai"
PROVIDERS: dict[str, Provider] = {
    "OpenAI_API": Provider(_OPENAI),
    "Together_API": Provider(
        _OPENAI, {"base_url": "https://api.together.xyz/v1", "api_key_env": "TOGETHER_API_KEY"}
    ),
    "Anthropic_API": Provider(
        _OPENAI, {"base_url": "https://api.anthropic.com/v1", "api_key_env": "ANTHROPIC_API_KEY"}
    ),
    "Groq_API": Provider(
        _OPENAI, {"base_url": "https://api.groq.com/openai/v1", "api_key_env": "GROQ_API_KEY"}
    ),
    "Google_API": Provider(
        _OPENAI,
        {
            "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
            "api_key_env": "GEMINI_API_KEY",
        },
    ),
    "Bedrock_API": Provider(
        _OPENAI,
        {
            "base_url": "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
            "api_key_env": "AWS_BEARER_TOKEN_BEDROCK",
        },
        "set the region in `base_url`, and see whether Bedrock has this model in its OpenAI-compatible API",
    ),
    "vLLM": Provider("vllm"),
    "tgi": Provider(_OPENAI),
}
"""The `model_type`s of the original."""


class Imported(NamedTuple):
    """A configuration of ours made of one of the original's."""

    config: Config
    notes: tuple[str, ...]
    """What is not as it was, one line each."""


def converted(original: Original, again: int = 0, name: str = "") -> Imported:
    """Our configuration. Where a reply cannot be read it is asked for up to `again` more times.

    Raises ConfigError where the layers make no pipeline; `name` is the file's, for the message.
    """
    work = _Conversion(again, name)
    pipeline = work.pipeline(original.layers)
    if work.flaws:
        raise ConfigError(work.flaws)
    config = Config(models=work.models, pipeline=pipeline)
    pipeline.graph()
    return Imported(config, (*original.notes, *work.notes.lines()))


def written(original: Original, imported: Imported, file: str = "") -> str:
    """A configuration as YAML; what it is, its calls and the notes come first, as comments."""
    name = original.name or file
    comments = [
        f"{name} of the original Archon (Saad-Falcon et al. 2024), imported.",
        f"Calls: {imported.config.pipeline.plan().calls}.",
        *(f"Note: {note}." for note in imported.notes),
    ]
    return "".join(f"# {_one_line(comment)}\n" for comment in comments) + dump(imported.config)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


class _Conversion:
    """One conversion under way."""

    def __init__(self, again: int, name: str) -> None:
        self.again = again
        self.name = name
        self.notes = Notes()
        self.flaws: list[Flaw] = []
        self.models: dict[str, Model] = {}
        self._called: dict[tuple[str, str], str] = {}

    def flaw(self, place: str, what: str, next_step: str = "") -> None:
        self.flaws.append(Flaw(f"{self.name}: {place}" if self.name else place, what, next_step))

    # --- layers ------------------------------------------------------------------------------------

    def pipeline(self, layers: Sequence[Layer]) -> Pipeline:
        """The layers as a graph; the paper's rules are relaxed where they are broken."""
        places: dict[str, Part] = {}
        nodes: list[Node] = []
        ends: tuple[str, ...] = ()
        rest = [*layers]
        while rest:
            layer, *rest = rest
            stages: list[tuple[Part, Stage]] = []
            if not ends and layer[0].kind == "unit_test_generator" and self._may_stand(layer, True):
                solver, rest = self._until_evaluated(layer[0], rest)
                stages = [(layer[0], self._test_first(layer[0], solver))] if solver else []
            elif self._may_stand(layer, not ends):
                stages = [(part, self._stage(part, layers, not ends)) for part in layer]
            before, ends = ends, ()
            for part, stage in stages:
                node = Node(fresh_name(stage.name, {*places}), stage, before if stage.takes else ())
                nodes.append(node)
                places[node.name] = part
                ends = (*ends, node.name)
            if not ends:  # what is wrong has been noted; what follows would be wrong because of it
                break
        if self.flaws:
            return Pipeline([Sample()])
        return self._checked(nodes, places)

    def _checked(self, nodes: list[Node], places: Mapping[str, Part]) -> Pipeline:
        graph = Pipeline([_with_strict(node, False) for node in nodes]).graph()
        broken = {violation.where for violation in violations(graph)}
        for violation in violations(graph):
            self.notes.add(
                places[violation.where].path, f"breaks Archon's rule {violation.rule!r}: {violation.what}"
            )
        for path, plan in graph.plan().items():
            if isinstance(graph.places[path].stage, Rank) and plan.calls == NONE:
                self.notes.add(places[path].path, "ranks one candidate, for which no call is made")
        relaxed = broken if is_stack(graph) else set()
        return Pipeline([_with_strict(node, node.name not in relaxed) for node in nodes])

    def _may_stand(self, layer: Layer, is_first: bool) -> bool:
        """Whether these components can share a layer, here."""
        before = len(self.flaws)
        kinds = {part.kind for part in layer}
        for part in layer[1:]:
            if part.kind not in _SIDE_BY_SIDE:
                other = "another" if part.kind == layer[0].kind else f"a {layer[0].kind}"
                self.flaw(part.path, f"a {part.kind} stands beside {other}", "Put it in a layer of its own")
            elif layer[0].kind not in _SIDE_BY_SIDE:
                self.flaw(
                    part.path,
                    f"a {part.kind} stands beside a {layer[0].kind}",
                    f"Put the {layer[0].kind} in a layer of its own",
                )
        for part in layer if is_first else ():
            if part.kind not in (*_SIDE_BY_SIDE, "unit_test_generator"):
                self.flaw(
                    part.path,
                    f"a {part.kind} needs candidates, and stands first",
                    "Put a generator before it",
                )
        if not is_first and kinds == {"generator"}:
            self.flaw(
                layer[0].path,
                "a layer of generators sees nothing of what comes before it, which would be lost",
                "Put the generators into the first layer",
            )
        return len(self.flaws) == before

    def _until_evaluated(self, writer: Part, layers: list[Layer]) -> tuple[list[Layer], list[Layer]]:
        """The layers that see the tests in their question, and those from the first evaluator on."""
        number = next((i for i, la in enumerate(layers) if la[0].kind == "unit_test_evaluator"), len(layers))
        if number == 0:
            self.flaw(
                writer.path, "it writes tests, and nothing answers the question", "Put a generator after it"
            )
        later = [part for layer in layers[number + 1 :] for part in layer]
        if later:
            self.notes.add(later[0].path, "from here on the question is shown without the tests")
        return layers[:number], layers[number:]

    # --- components --------------------------------------------------------------------------------

    def _stage(self, part: Part, layers: Sequence[Layer], is_first: bool) -> Stage:
        model = self._model(part)
        said = {"temperature": part.temperature, "max_tokens": part.max_tokens}
        asks = {**said, "again": self.again}
        match part.kind:
            case "generator":
                return Sample(model=model, n=part.samples, **said)
            case "fuser":
                self._note_length(part, layers)
                if is_first:
                    self.notes.add(
                        part.path, "a fuser in the first layer has nothing to fuse; it answers itself"
                    )
                    return Sample(model=model, n=part.samples, **said)
                return Fuse(model=model, n=part.samples, **said)
            case "ranker":
                return Rank(model=model, keep=part.top_k, window=None, **asks)
            case "critic":
                return Critique(model=model, **asks)
            case "verifier":
                return JudgeVerify(model=model, first=part.first_k, **asks)
            case "unit_test_generator":
                return WriteTests(model=model, **self._tests(part), **asks)
            case "unit_test_evaluator":
                return self._evaluate(part, layers, model, asks)

    def _test_first(self, part: Part, solver: list[Layer]) -> Stage:
        asks = {"temperature": part.temperature, "max_tokens": part.max_tokens, "again": self.again}
        return TestFirst(model=self._model(part), solver=self.pipeline(solver), **self._tests(part), **asks)

    def _tests(self, part: Part) -> dict[str, Any]:
        """The original writes statements only, and its evaluator judges them."""
        if part.unit_test_cap is None:
            self.notes.add(
                part.path, f"no `unit_test_cap`: {WriteTests().n} tests are written, not as many as may be"
            )
            return {"written_as": "statements"}
        return {"written_as": "statements", "n": part.unit_test_cap}

    def _evaluate(self, part: Part, layers: Sequence[Layer], model: str, asks: Mapping[str, Any]) -> Stage:
        earlier = [p for layer in layers for p in layer][: _index(part, layers)]
        since = next((n for n, p in enumerate(reversed(earlier)) if p.kind == "unit_test_generator"), None)
        if since is None:
            self.flaw(part.path, "no unit test generator comes before it", "Put one before it")
        elif (
            any(p.kind == "fuser" for p in earlier[len(earlier) - since :])
            and earlier[-since - 1] is not layers[0][0]
        ):
            self.notes.add(
                part.path, "what was fused after the tests were written has none, and is not judged"
            )
        if part.keeps_tests:
            self.notes.add(part.path, "`remove_unit_tests_from_prompt`: the question is shown without them")
        kept = [k for k in (part.top_k, part.first_k) if k is not None]
        return TestEvaluate(
            model=model,
            keep=("passing" if part.top_k is None else max(kept)) if kept else "all",
            first=part.first_k,
            execute=False,
            **asks,
        )

    def _note_length(self, part: Part, layers: Sequence[Layer]) -> None:
        if not part.length_control:
            return
        earlier = [p for layer in layers for p in layer][: _index(part, layers)]
        effect = any(p.kind == "critic" for p in earlier)
        self.notes.add(
            part.path,
            "`length_control` is left out: "
            + ("say it in the `prompt` of `fuse`" if effect else "without critiques it has no effect"),
        )

    # --- models ------------------------------------------------------------------------------------

    def _model(self, part: Part) -> str:
        """The name under `models` of what serves a component."""
        known = (part.provider, part.model)
        if known in self._called:
            return self._called[known]
        short = part.model.rstrip("/").rsplit("/", 1)[-1]
        wanted = (short, f"{short}@{part.provider}", f"{part.model}@{part.provider}")
        name = next(candidate for candidate in wanted if candidate and candidate not in self.models)
        self._called[known] = name
        provider = PROVIDERS.get(part.provider)
        fields = {"model": part.model}
        if part.model == PAIR_RM and part.kind == "ranker":
            fields["base_url"] = _LOCAL
            self.notes.add(
                part.path,
                f"{PAIR_RM} compares two answers and takes no prompt; name a chat model under `models` in its place",
            )
            provider = Provider(_OPENAI)
        elif provider is None:
            self.flaw(
                f"{part.path}.model_type",
                f"there is no provider {shown(part.provider)}",
                hint(part.provider, PROVIDERS),
            )
            return name
        elif part.provider == "tgi":  # its `model` is the server's address
            fields = {"model": "tgi", "base_url": part.model}
        elif part.provider == "Bedrock_API":
            fields["model"] = part.model.removeprefix("bedrock/")
        if provider.note:
            self.notes.add(part.path, provider.note)
        builder = Builder(Source(None, self.name))
        model: Any = builder.named("backend", provider.backend, {**fields, **provider.fields}, (part.path,))
        self.flaws.extend(builder.flaws)
        self.models[name] = model
        return name


def _index(part: Part, layers: Sequence[Layer]) -> int:
    """Where a component stands among all."""
    return next(i for i, other in enumerate(p for layer in layers for p in layer) if other is part)


def _with_strict(node: Node, strict: bool) -> Node:
    stage = node.stage
    if not isinstance(stage, ArchonComponent):
        return node
    return node._replace(stage=stage.model_copy(update={"strict": strict}))
