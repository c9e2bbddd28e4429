"""Archon's own search space: its six axes, for models that the user names.

Source: Saad-Falcon et al. 2024, "Archon: An Architecture Search Framework for Inference-Time Techniques" (arXiv
2409.15254), section 3.3 and appendix A.4: a stack is a layer of generators and then layers of fusers, of which the last
has one. Its axes are here

1. `top_k`: how many of the generators answer, the first so many;
2. `samples`: how many samples each of them draws;
3. `layers`: how many layers of fusers there are, the last one included;
4. `fusers`: how many fusers a layer before the last one has, where there is any;
5. `review`: what stands before each layer of fusers: nothing, a critic, a ranker, or both;
6. `evaluation`: what stands before the last fuser: nothing, a verifier, or tests and their evaluator.

The count of different stacks is the product, with axis 4 only where `layers` is above 1. With ten generators, ten
fusers and the paper's ranges (1 to 10, 1 to 5, 1 to 4, 2 to 10 by 2) that are 10 x 5 x (1 + 3 x 5) x 4 x 3 = 9,600
before any limit. The paper has 9,576 for its own choices: it leaves out those whose first layer overflows a fuser's
context, and says neither which these are nor whether its critic and ranker are chosen apart; without that (`review:
[none, critic_ranker]`) there are 4,800 here. An option that needs more models than there are is left out.

A fuser's calls do not grow with what it fuses, so a limit of calls leaves out what is wide, deep, or evaluated
candidate by candidate. Cost of the space: none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from archon.component import Value
from archon.config.build import Builder
from archon.config.source import Source, shown
from archon.suggest import hint

Review = Literal["none", "critic", "ranker", "critic_ranker"]
Evaluation = Literal["none", "verifier", "tests"]
_Counts = tuple[Annotated[int, Field(ge=1)], ...]
_Models = Annotated[tuple[str, ...], Field(min_length=1)]
_LAST: Final = "last"


class ArchonSpace(Value):
    """The models, and the options of each axis."""

    generators: _Models
    """Models that answer, the best first."""
    fusers: _Models | None = None
    """Models that fuse, the best first, which is the last fuser; the generators where not given."""
    judge: str | None = None
    """The model that criticises, ranks, verifies and writes tests; the first fuser where not given."""
    top_k: _Counts = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """How many generators."""
    samples: _Counts = (1, 2, 3, 4, 5)
    """How many samples of each."""
    layers: _Counts = (1, 2, 3, 4)
    """How many layers of fusers."""
    width: _Counts = (2, 4, 6, 8, 10)
    """How many fusers in each layer before the last."""
    review: tuple[Review, ...] = ("none", "critic", "ranker", "critic_ranker")
    """What stands before each layer of fusers."""
    evaluation: tuple[Evaluation, ...] = ("none", "verifier", "tests")
    """What stands before the last fuser."""
    keep: Annotated[int, Field(ge=1)] | None = 5
    """How many candidates a ranker passes on; all where null."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.7
    """Of generators and fusers; the model's own where null."""

    def data(self) -> dict[str, Any]:
        """The `axes` and the `pipeline` of a search file."""
        fusers = self.fusers or self.generators
        deep = [n for n in self.layers if n > 1]
        axes: dict[str, Any] = {
            "top_k": _choose(self.top_k, len(self.generators)),
            "samples": _choose(self.samples),
            "layers": _choose(self.layers),
        }
        if deep:
            axes["fusers"] = {**_choose(self.width, len(fusers)), "where": {"layers": deep}}
        axes |= {"review": _choose(self.review), "evaluation": _choose(self.evaluation)}
        nodes = self._nodes(axes, fusers)
        used = {"samples"}.union(*(node.get("where", ()) for node in nodes.values()))
        if "fusers" in used:
            used.add("layers")
        return {"axes": {name: axis for name, axis in axes.items() if name in used}, "pipeline": nodes}

    def _nodes(self, axes: Mapping[str, Any], fusers: tuple[str, ...]) -> dict[str, Any]:
        manner = {} if self.temperature is None else {"temperature": self.temperature}
        judge = {"model": self.judge or fusers[0]}
        nodes: dict[str, Any] = {}
        before: list[str] = []
        for place, model in enumerate(self.generators, 1):
            if place <= max(axes["top_k"]["choose"]):
                sample = {"sample": {"model": model, "n": {"axis": "samples"}, **manner}}
                before += _add(nodes, f"generator-{place}", sample, [], top_k=_from(axes["top_k"], place))
        for layer in range(1, max(self.layers)):
            deeper = {"layers": [n for n in self.layers if n > layer]}
            before = self._reviewed(nodes, layer, before, judge, deeper)
            above, before = before, []
            for place, model in enumerate(fusers, 1):
                if place <= max(axes["fusers"]["choose"]):
                    fuse = {"fuse": {"model": model, **manner}}
                    many = _from(axes["fusers"], place)
                    before += _add(nodes, f"fuser-{layer}-{place}", fuse, above, fusers=many, **deeper)
        before = self._reviewed(nodes, _LAST, before, judge, {})
        for name, stage, wanted in (
            ("verifier", {"judge_verify": judge}, "verifier"),
            ("tests", {"write_tests": judge}, "tests"),
            ("evaluator", {"test_evaluate": judge}, "tests"),
        ):
            if wanted in self.evaluation:
                before = _add(nodes, name, stage, before, evaluation=[wanted])
        _add(nodes, "fuser", {"fuse": {"model": fusers[0], **manner}}, before)
        return nodes

    def _reviewed(
        self, nodes: dict[str, Any], layer: int | str, before: list[str], judge: Any, where: Mapping[str, Any]
    ) -> list[str]:
        """What comes before a layer of fusers: a critic, a ranker, both or neither."""
        rank = {**judge, **({} if self.keep is None else {"keep": self.keep})}
        for name, stage, alone in (("critic", "critique", judge), ("ranker", "rank", rank)):
            among = [one for one in self.review if one in (name, "critic_ranker")]
            if among:
                before = _add(nodes, f"{name}-{layer}", {stage: alone}, before, review=among, **where)
        return before


def read_space(source: Source) -> Source:
    """The source with the space that it names written out: `space: {archon: {generators: [...]}}`. Raises ConfigError
    with everything that is wrong in it."""
    if "space" not in source.data:
        return source
    given, builder = source.data["space"], Builder(source)
    space = None
    if not isinstance(given, Mapping) or len(given) != 1:
        builder.flaw(("space",), f"expected a space, as {{archon: settings}}, and found {shown(given)}")
    elif "archon" not in given:
        name = next(iter(given))
        builder.flaw(("space", name), f"there is no space named {shown(name)}", hint(name, ["archon"]))
    else:
        settings = {} if given["archon"] is None else given["archon"]
        path = ("space", "archon")
        space = builder.value(ArchonSpace, settings, path)
        if space is not None:
            _check(builder, space, path)
    builder.check()
    assert space is not None
    data = {key: value for key, value in source.data.items() if key != "space"}
    lines = dict(source.lines)
    if (line := source.lines.get(("space",))) is not None:
        lines |= {("axes",): line, ("pipeline",): line}
    return Source({**data, **space.data()}, source.name, lines)


def _check(builder: Builder, space: ArchonSpace, path: tuple[str, ...]) -> None:
    fusers = space.fusers or space.generators
    counts: dict[str, tuple[int, str]] = {"top_k": (len(space.generators), "generators")}
    if any(n > 1 for n in space.layers):
        counts["width"] = (len(fusers), "fusers")
    for field, (most, what) in counts.items():
        options = getattr(space, field)
        if options and min(options) > most:
            builder.flaw(
                (*path, field),
                f"it begins at {min(options)}, and there {'is' if most == 1 else 'are'} {most} {what}",
                f"Name more {what}, or give smaller numbers",
            )
    for field in ("top_k", "samples", "layers", "width", "review", "evaluation"):
        options = getattr(space, field)
        if not options or len(set(options)) < len(options):
            wrong = "an option twice" if options else "no options"
            builder.flaw((*path, field), f"it has {wrong}", "Give each once, and at least one")
    for field in ("generators", "fusers"):
        names = getattr(space, field) or ()
        if len(set(names)) < len(names):
            builder.flaw((*path, field), "a model is named twice", "`samples` says how often each answers")


def _choose(options: Iterable[Any], most: int | None = None) -> dict[str, Any]:
    return {"choose": [one for one in options if most is None or one <= most]}


def _from(mark: Mapping[str, Any], least: int) -> list[int]:
    return [n for n in mark["choose"] if n >= least]


def _add(nodes: dict[str, Any], name: str, stage: Any, after: list[str], **where: list[Any]) -> list[str]:
    """A node that is there where axes have these values; its name, for those after it."""
    node = {"optional": stage, "where": where} if where else stage
    nodes[name] = {**node, "after": list(after)} if after else node
    return [name]
