"""The conformance suite of verifiers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Verdict
from archon.config import dump, load
from archon.problem import Problem
from archon.session import Session
from archon.testing.stages import verified_samples
from archon.verifier import Verifier

_STATUSES = {"passed", "wrong", "failed", "timed_out", "undecided"}


class VerifierCases:
    """What every verifier must do. Subclass it, and say how to make one and what it must judge."""

    @abstractmethod
    def make_verifier(self) -> Verifier:
        """The verifier."""
        raise NotImplementedError

    @abstractmethod
    def problem(self) -> Problem:
        """A problem it can speak about."""
        raise NotImplementedError

    good = "42"
    """A reply it must accept."""
    bad = "41"
    """A reply it must not accept."""

    def models(self) -> Mapping[str, Model]:
        """Models it calls."""
        return {}

    async def judge(self, *replies: str, problem: Problem | None = None) -> list[Verdict]:
        """Its verdicts on these replies."""
        verifier = self.make_verifier()
        models = {"default": Scripted(replies={"*": replies}), **self.models()}
        async with Session(models=models) as session:
            pipeline = verified_samples(len(replies), verifier)
            outcome = await session.solve(pipeline, problem or self.problem())
        return [c.verdicts[verifier.name] for c in outcome.candidates]

    async def test_it_accepts_what_is_right_and_rejects_what_is_not(self) -> None:
        right, wrong = await self.judge(self.good, self.bad)
        assert right.accepted is True and right.status == "passed"
        assert wrong.accepted is not True

    async def test_a_verdict_says_who_and_why(self) -> None:
        for verdict in await self.judge(self.good, self.bad):
            assert verdict.verifier == self.make_verifier().name
            assert verdict.status in _STATUSES
            assert "\n" not in verdict.detail

    async def test_scores_are_on_the_scale_it_names(self) -> None:
        for verdict in await self.judge(self.good, self.bad):
            if verdict.score is not None and verdict.scale in ("probability", "fraction"):
                assert 0 <= verdict.score <= 1

    async def test_no_reply_crashes_it(self) -> None:
        odd = ("", " ", "\0", "```", "```python\n", "\ud800", "x" * 20_000, "[" * 500, "😀" * 50)
        verdicts = await self.judge(*odd)
        assert len(verdicts) == len(odd)
        assert not any(v.accepted for v in verdicts)

    async def test_equal_replies_get_equal_verdicts(self) -> None:
        first, second = await self.judge(self.good, self.good)
        assert (first.accepted, first.score, first.status) == (second.accepted, second.score, second.status)

    async def test_it_is_undecided_where_it_does_not_apply(self) -> None:
        foreign = Problem.ask("Say something.", id="foreign")
        if self.make_verifier().applies(foreign):
            return
        (verdict,) = await self.judge(self.good, problem=foreign)
        assert verdict.accepted is None

    def test_it_is_its_configuration(self) -> None:
        pipeline = verified_samples(1, self.make_verifier())
        assert load(dump(pipeline), "yaml").pipeline == pipeline
