"""Agreement by execution: candidates that behave alike vouch for one another.

`execution_agreement` is CodeT's dual execution agreement (Chen et al. 2022, "CodeT", arXiv 2207.10397, section
2.2). Candidates that pass the same set of model-written tests are a group, and each member scores

    product   solutions × tests          the paper's score, and the default
    sqrt      √solutions × tests         the score in the authors' code (microsoft/CodeT, src/agreement.py)

where `solutions` counts the group's candidates and `tests` the tests they pass. The authors' code counts a test
as often as it was written; `repeats: false` counts it once.

`behaviour_clusters` is AlphaCode's clustering (Li et al. 2022, arXiv 2203.07814, section 4.6). Candidates that
return the same for every generated input are a cluster, and each member scores the cluster's size. The inputs are
those of model-written tests; what these expect is not used.

Both compare candidates, so they wait for all of a problem's, and the score of one depends on the others.
Cost: `n` calls per problem, none per candidate.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, Literal

from archon.candidate import Candidate, Scale, Verdict
from archon.execution import Call, Program, Returned
from archon.problem import Problem
from archon.run import Run
from archon.verifiers.generated_tests import Tests, WritesTests
from archon.verifiers.sandbox import wire


class GroupsCandidates(WritesTests):
    """What the two ways of agreement have in common: groups, and a score for each."""

    together: ClassVar[bool] = True

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Group the candidates; those of the best groups are accepted."""
        if not self.applies(problem):
            return [Verdict(self.name, None, detail="there is no function to call")] * len(candidates)
        tests = await self.tests(problem, run)
        if not tests.suite.cases:
            return [Verdict(self.name, None, detail="no test could be read")] * len(candidates)
        programs = [self.program(problem, c) for c in candidates]
        distinct = {p.digest: p for p in programs if p is not None}
        found = await run.gather(*(self.behaviour(p, tests, run) for p in distinct.values()))
        behaviours = dict(zip(distinct, found, strict=True))
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for place, program in enumerate(programs):
            if program is not None and behaviours[program.digest] is not None:
                groups[behaviours[program.digest]].append(place)
        verdicts = [
            Verdict(self.name, False, 0.0, self.scale, "wrong", "it agrees with no test and no candidate")
        ] * len(candidates)
        if not groups:
            return [Verdict(self.name, None, detail="no candidate runs as any test wants")] * len(candidates)
        scores = {group: self.score(group, len(places), tests) for group, places in groups.items()}
        best = max(scores.values())
        for group, places in groups.items():
            verdict = self._verdict(scores[group], best, len(places))
            for place in places:
                verdicts[place] = verdict
        return verdicts

    @abstractmethod
    async def behaviour(self, program: Program, tests: Tests, run: Run) -> Hashable | None:
        """What a group has in common; None where a program belongs to none."""
        raise NotImplementedError

    @abstractmethod
    def score(self, behaviour: Hashable, size: int, tests: Tests) -> float:
        """The score of a group of so many candidates."""
        raise NotImplementedError

    def _verdict(self, score: float, best: float, size: int) -> Verdict:
        detail = f"{size} candidate{'' if size == 1 else 's'} behave{'s' if size == 1 else ''} so"
        if score >= best:
            return Verdict(self.name, True, score, self.scale, "passed", detail)
        return Verdict(self.name, False, score, self.scale, "wrong", f"{detail}; others agree more")


class ExecutionAgreement(GroupsCandidates):
    """Score a candidate by how many pass the same model-written tests as it does, and by how many tests."""

    scale: ClassVar[Scale] = "score"

    weigh: Literal["product", "sqrt"] = "product"
    """How candidates count against tests: as in the paper, or as in its authors' code."""
    repeats: bool = True
    """Whether a test counts as often as it was written."""

    async def behaviour(self, program: Program, tests: Tests, run: Run) -> Hashable | None:
        """The places of the tests that a program passes; None where it passes none."""
        results = await self.results(program, tests.suite, run)
        return frozenset(i for i, result in enumerate(results) if result.status == "passed") or None

    def score(self, behaviour: Hashable, size: int, tests: Tests) -> float:
        """Solutions × tests."""
        assert isinstance(behaviour, frozenset)
        passed = sum(tests.counts[i] for i in behaviour) if self.repeats else len(behaviour)
        return passed * (math.sqrt(size) if self.weigh == "sqrt" else float(size))


class BehaviourClusters(GroupsCandidates):
    """Score a candidate by how many return the same as it does for every generated input."""

    scale: ClassVar[Scale] = "count"

    async def behaviour(self, program: Program, tests: Tests, run: Run) -> Hashable | None:
        """What comes back for each input, as digests; None where nothing does."""
        calls = run.kept(f"{run.stage} calls {self!r}", lambda: _distinct_calls(tests))
        found = await self._outputs(program, calls, run)
        return tuple(found) if any(output.startswith("=") for output in found) else None

    def score(self, behaviour: Hashable, size: int, tests: Tests) -> float:
        """The cluster's size."""
        return float(size)

    async def _outputs(self, program: Program, calls: Sequence[Call], run: Run) -> Sequence[str]:
        """One digest of a value, or one status, for each call; remembered."""
        inputs = wire.encode([(c.args, c.kwargs) for c in calls])
        what = f"{program.digest}|{self.limits.digest}|{self.restarts}|".encode() + inputs
        key, store = hashlib.sha256(what).hexdigest(), run.session.store
        found = (await store.recall("behaviour", [key])).get(key)
        if found is None:
            outputs = await self._evaluated(program, calls, run)
            await store.remember("behaviour", {key: json.dumps(outputs).encode()})
            return outputs
        known: Sequence[str] = json.loads(found)
        return known

    async def _evaluated(self, program: Program, calls: Sequence[Call], run: Run) -> list[str]:
        outputs: list[str] = []
        for _ in range(self.restarts + 1):
            returned = await run.evaluate(program, calls[len(outputs) :], self.limits)
            outputs += [_output(one) for one in returned if one.status != "skipped"]
            if len(outputs) == len(calls):
                break
        return [*outputs, *["skipped"] * (len(calls) - len(outputs))]


def _output(returned: Returned) -> str:
    if returned.status != "returned":
        return returned.status
    try:
        return f"={hashlib.sha256(wire.encode(returned.value)).hexdigest()[:16]}"
    except wire.WireError:
        return "violation"


def _distinct_calls(tests: Tests) -> Sequence[Call]:
    calls: Mapping[bytes, Call] = {
        wire.encode((case.args, dict(case.kwargs))): Call(args=case.args, kwargs=dict(case.kwargs))
        for case in tests.suite.cases
    }
    return list(calls.values())
