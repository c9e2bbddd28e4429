"""A model ranks the candidates: all at once, in pairs, or one by one.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the ranker sees all candidates, and the
critiques of those that have some, in one call, and the best k go on. What its reply leaves out follows in the order
in which it was shown, and so does everything where nothing could be read. More candidates than fit one prompt are
ranked in windows that slide from the last to the first and overlap by half: Sun et al. 2023, "Is ChatGPT Good at
Search?" (arXiv 2304.09542), section 3.2. Pairs, and their two orders, are those of Zheng et al. 2023, "Judging
LLM-as-a-Judge" (arXiv 2306.05685), section 3.

Cost, of n candidates, each call with up to `again` more:

- `listwise`: 1; with n more than the `window` w, 1 + (n - w) / (w // 2), rounded up, one after the other;
- `pairwise`: n - 1, in rounds; n * (n - 1) / 2, all at once, with `all_pairs`; twice as many with `both_orders`;
- `pointwise`: n, as they arrive.

A single candidate is only ever scored. Equal answers are not compared, and scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.prompting import (
    Places,
    Said,
    asked,
    choice_form,
    ranking_form,
    read_choice,
    read_ranking,
    read_scores,
    scores_form,
)
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.layers import CRITIQUE, Layer, Shown, at_most, best_first, ranks_of, unread

PROMPT = """\
Several answers were given to one question. Put them in order, the best first.

{question}

{answers}
{critiques}

The best answer is the one that is right; among those that are, the one that does what is asked most completely and
says it most clearly. Where an answer has a critique, check it before you trust it. Where an answer stands here and how
long it is mean nothing. Compare the answers, then rank all of them. {form}"""
PAIR_PROMPT = """\
Two answers were given to one question. Which is better?

{question}

{answers}
{critiques}

The better answer is the one that is right; if both are or neither is, the one that does more of what is asked and says
it more clearly. Where an answer has a critique, check it before you trust it. Which comes first and which is longer
mean nothing. Compare them, then choose. {form}"""
SCORE_PROMPT = """\
How good is this answer to this question?

{question}

{answer}
{critique}

Score it from 0 to 10. An answer that is wrong scores below 5, the lower the more of it is wrong; one that is right
scores above 5, the higher the more completely and clearly it does what is asked. Where there is a critique, check it
before you trust it. Work out what a right answer must hold, then score this one. {form}"""

_QUESTION, _ANSWERS = "question|question_text", "answers|answers_text"
_CRITIQUES = ("critiques", "critiques_text")


class Standing(NamedTuple):
    """What a model made of one candidate."""

    merit: float | None
    """The higher the better; None where nothing could be read."""
    detail: str = ""
    """One line for people."""


class Rank(Layer):
    """Put the candidates in order, the best first, and keep the first so many.

    Ties, and candidates of which nothing could be read, stay in the order in which they came. The verdict is a
    rank: it neither accepts nor rejects.
    """

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "scores"})
    ranks: ClassVar[bool] = True

    method: Literal["listwise", "pairwise", "pointwise"] = "listwise"
    """All in one reply; by comparisons of two; or by a score from 0 to 10 for each."""
    keep: Annotated[int, Field(ge=1)] | None = None
    """How many go on; all where not given."""
    window: Annotated[int, Field(ge=2)] | None = 20
    """Listwise: at most so many in one prompt; all where null. With more candidates the first `window` // 2 places are
    sure, as far as the model is."""
    all_pairs: bool = False
    """Pairwise: compare every two and count wins, instead of a tournament in which who loses is out. A tournament is
    sure of its first place only; those who lost in the same round are equal."""
    both_orders: bool = False
    """Pairwise: ask in both orders, and take for a tie what depends on the order."""
    notes: tuple[str, ...] = (CRITIQUE,)
    """Which notes on a candidate are shown as its critique."""
    prompt: Annotated[str, Places(_QUESTION, _ANSWERS, "form", optional=_CRITIQUES)] = PROMPT
    """Listwise: asks for a ranking."""
    pair_prompt: Annotated[str, Places(_QUESTION, _ANSWERS, "form", optional=_CRITIQUES)] = PAIR_PROMPT
    """Pairwise: asks for a choice."""
    score_prompt: Annotated[
        str, Places(_QUESTION, "answer|answer_text", "form", optional=("critique", "critique_text"))
    ] = SCORE_PROMPT
    """Pointwise: asks for a score."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, rank, pass on the best."""
        scored: dict[str, Standing] = {}

        async def met(candidate: Candidate) -> Candidate:
            if self.method == "pointwise":
                scored[candidate.id] = await self._scored(Shown(problem, (candidate,), self.notes), run)
            return candidate

        shown = best_first([candidate async for candidate in run.map(met, candidates)], run)
        among = Shown(problem, tuple(shown), self.notes)
        if self.method == "pointwise":
            standings = [scored[candidate.id] for candidate in shown]
        elif self.method == "listwise":
            standings = await self._listed(among, run)
        else:
            standings = await (self._every_pair if self.all_pairs else self._tournament)(among, run)
        ranks = ranks_of([standing.merit for standing in standings])
        verdicts = [
            Verdict(self.name, None, rank, "rank", detail=standing.detail)
            for standing, rank in zip(standings, ranks, strict=True)
        ]
        for candidate in best_first(run.judged(shown, verdicts, self.name), run)[: self.keep]:
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        """Exact for answers that differ and replies that can be read."""
        most = None if incoming.high is None else self._calls(incoming.high)
        calls = asked(Count(self._calls(incoming.low), most), self.again)
        return Plan(calls, at_most(incoming, self.keep))

    def _calls(self, n: int) -> int:
        if self.method == "pointwise" or n < 2:
            return n if self.method == "pointwise" else 0
        if self.method == "listwise":
            return windows_needed(n, self.window)
        return (n * (n - 1) // 2 if self.all_pairs else n - 1) * (1 + self.both_orders)

    # --- listwise ----------------------------------------------------------------------------------

    async def _listed(self, shown: Shown, run: Run) -> list[Standing]:
        order = [*range(len(shown.candidates))]
        read, why = len(order) < 2, ""
        for window in windows(len(order), self.window):
            part = order[window.start : window.stop]
            these = shown.some(part)
            posed = these.posed(self.prompt, partial(ranking_form, len(part)))
            reader = partial(read_ranking, n=len(part), mark=posed.mark, partial=True)
            said = await self.ask(run, posed, reader, parents=these.candidates)
            if said.value is not None:
                read = True
                order[window.start : window.stop] = [part[i] for i in said.value]
            why = why or said.why
        places = {index: place for place, index in enumerate(order)}
        return [Standing(-float(places[i]) if read else None, unread(why)) for i in range(len(order))]

    # --- pairwise ----------------------------------------------------------------------------------

    async def _tournament(self, shown: Shown, run: Run) -> list[Standing]:
        """Rounds: the first meets the last, the second the last but one, and so on; who wins stays in."""
        still_in = [*range(len(shown.candidates))]
        rounds = [0] * len(still_in)
        read, why = len(still_in) < 2, ""
        while len(still_in) > 1:
            half = len(still_in) // 2
            pairs = [(still_in[i], still_in[-1 - i]) for i in range(half)]
            results = await self._compared(shown, pairs, run)
            winners = [
                second if result.merit is not None and result.merit < 0.5 else first
                for (first, second), result in zip(pairs, results, strict=True)
            ]
            still_in = sorted((*winners, *still_in[half : len(still_in) - half]))
            for winner in still_in:
                rounds[winner] += 1
            read = read or any(result.merit is not None for result in results)
            why = why or next((result.detail for result in results if result.detail), "")
        return [Standing(float(won) if read else None, why) for won in rounds]

    async def _every_pair(self, shown: Shown, run: Run) -> list[Standing]:
        pairs = [*combinations(range(len(shown.candidates)), 2)]
        results = await self._compared(shown, pairs, run)
        wins = [0.0] * len(shown.candidates)
        for (first, second), result in zip(pairs, results, strict=True):
            share = 0.5 if result.merit is None else result.merit
            wins[first] += share
            wins[second] += 1 - share
        read = not pairs or any(result.merit is not None for result in results)
        why = next((result.detail for result in results if result.detail), "")
        return [Standing(won if read else None, why) for won in wins]

    async def _compared(self, shown: Shown, pairs: Sequence[tuple[int, int]], run: Run) -> list[Standing]:
        """How the first of each pair does against the second: 1 it wins, 0 it loses, 0.5 they tie."""
        return await run.gather(
            *(self._compare(shown, pair, number % 2 == 1, run) for number, pair in enumerate(pairs))
        )

    async def _compare(self, shown: Shown, pair: tuple[int, int], turned: bool, run: Run) -> Standing:
        """Every other pair is asked about in the other order, as models favour a place."""
        first, second = pair
        if shown.candidates[first].text == shown.candidates[second].text:
            return Standing(0.5)
        orders = [(first, second), (second, first)]
        asked_in = orders if self.both_orders else [orders[turned]]
        replies = await run.gather(*(self._choice(shown.some(order), run) for order in asked_in))
        wins = [
            float(order[said.value] == first)
            for order, said in zip(asked_in, replies, strict=True)
            if said.value is not None
        ]
        why = next((said.why for said in replies if said.why), "")
        return Standing(sum(wins) / len(wins) if wins else None, unread(why))

    async def _choice(self, two: Shown, run: Run) -> Said[int]:
        posed = two.posed(self.pair_prompt, partial(choice_form, 2))
        return await self.ask(run, posed, partial(read_choice, n=2, mark=posed.mark), parents=two.candidates)

    # --- pointwise ---------------------------------------------------------------------------------

    async def _scored(self, alone: Shown, run: Run) -> Standing:
        posed = alone.posed_alone(self.score_prompt, partial(scores_form, 1))
        said = await self.ask(
            run, posed, partial(read_scores, n=1, mark=posed.mark), parents=alone.candidates
        )
        if said.value is None:
            return Standing(None, unread(said.why))
        return Standing(said.value[0], f"scored {said.value[0]:g} of 10")


def windows(n: int, size: int | None) -> list[range]:
    """The windows in which n candidates are ranked, from the last to the first; each overlaps the one before by half
    and more, so that the best of it rise into the next."""
    if n < 2:
        return []
    if size is None or n <= size:
        return [range(n)]
    starts = [*range(n - size, 0, -(size // 2)), 0]
    return [range(start, start + size) for start in starts]


def windows_needed(n: int, size: int | None) -> int:
    """How many windows those are."""
    if n < 2:
        return 0
    return 1 if size is None or n <= size else 1 + -(-(n - size) // (size // 2))
