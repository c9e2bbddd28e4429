"""Partial answers and what a sample adds to them: every way to end told apart, and no character lost."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.candidate import Candidate, Finish, TokenLogprob
from archon.steps import Delimiter, Steps, end_of
from archon.strategies.stepping.continuing import Rules, continued
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.search import dumped, generator, loaded
from archon.usage import Usage

LINES = Rules("newline")
TOKENS = Rules(4)


def sample(
    text: str,
    finish: Finish = "stop",
    stop: str | None = None,
    *,
    logprobs: Sequence[tuple[str, float]] | None = None,
    name: str = "s#0",
) -> Candidate:
    """What a server gave."""
    tokens = None if logprobs is None else tuple(TokenLogprob(*pair) for pair in logprobs)
    used = Usage(1, 9, 0, max(1, len(text)))
    return Candidate(name, text, "s", 0, finish=finish, stop=stop, logprobs=tokens, usage=used)


# --- endings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "got", "ending", "steps"),
    [
        (LINES, sample("a", "stop_string", "\n"), None, ("a\n",)),
        (LINES, sample("a"), "stop", ("a",)),
        (LINES, sample("a", "length"), "length", ("a",)),
        (LINES, sample("a", "content_filter"), "filtered", ("a",)),
        (LINES, sample("a", "unknown"), "stop", ("a",)),
        (Rules("newline", ("END",)), sample("a", "stop_string", "END"), "stop", ("a",)),
        (Rules("newline", until=re.compile("a+")), sample("baa", "stop_string", "\n"), "until", ("baa\n",)),
        (Rules("newline", until=re.compile("a+")), sample("aa", "length"), "until", ("aa",)),
        (Rules("newline", max_steps=1), sample("a", "stop_string", "\n"), "steps", ("a\n",)),
        (Rules("newline", max_steps=1), sample("a"), "stop", ("a",)),
        (TOKENS, sample("abcd", "length"), None, ("abcd",)),
        (TOKENS, sample("ab"), "stop", ("ab",)),
        (TOKENS, sample("", "length"), "length", ("",)),
        (TOKENS._replace(max_steps=1), sample("abcd", "length"), "steps", ("abcd",)),
        (Rules("blank_line"), sample("a\nb", "stop_string", "\n\n"), None, ("a\nb\n\n",)),
        (Rules(Delimiter(delimiter="##")), sample("a#", "stop_string", "##"), None, ("a###",)),
    ],
)
def test_each_way_to_end_is_told_from_the_others(
    rules: Rules, got: Candidate, ending: str | None, steps: tuple[str, ...]
) -> None:
    longer = continued(EMPTY, got, rules)
    assert (longer.ending, longer.steps) == (ending, steps)
    assert longer.finished is (ending is not None)
    assert longer.whole is (ending in ("stop", "until"))


def test_a_truncation_is_not_an_end_of_sequence() -> None:
    """A stop reason of None means either on vLLM; search-and-learn took both for finished."""
    cut_off, ended = (continued(EMPTY, sample("a", f), LINES) for f in ("length", "stop"))
    assert (cut_off.whole, ended.whole) == (False, True)


def test_until_is_looked_for_in_the_whole_answer() -> None:
    partial = continued(EMPTY, sample("the answer", "stop_string", "\n"), Rules("newline"))
    longer = continued(
        partial, sample("is 7", "stop_string", "\n"), LINES._replace(until=re.compile(r"answer\s+is"))
    )
    assert longer.ending == "until"


@pytest.mark.parametrize("end", ["\nQ:", "x\nQ", "\nQ"])
def test_a_stop_string_that_spans_two_steps_ends_the_answer_before_it(end: str) -> None:
    partial = continued(EMPTY, sample("x", "stop_string", "\n"), LINES)
    longer = continued(partial, sample("Q: next", "stop_string", "\n"), LINES._replace(stops=("no", end)))
    assert longer.text == "x\nQ: next"[: "x\nQ: next".index(end)]
    assert (longer.ending, "".join(longer.steps)) == ("stop", longer.text)


def test_a_stop_string_that_spans_two_chunks_of_tokens_ends_the_answer_before_it() -> None:
    partial = continued(EMPTY, sample("abEN", "length"), TOKENS)
    longer = continued(partial, sample("D", "stop"), TOKENS._replace(stops=("END",)))
    assert (longer.steps, longer.ending) == (("ab",), "stop")


def test_an_end_that_adds_only_space_belongs_to_the_last_step() -> None:
    partial = replace(continued(EMPTY, sample("a", "stop_string", "\n"), LINES), scores=(0.5,), value=0.5)
    for rest in ("", " \n "):
        longer = continued(partial, sample(rest), LINES)
        assert (longer.steps, longer.ending) == (("a\n" + rest,), "stop")
        assert longer.scores == () and longer.value is None, "a finished answer is another thing to score"
    assert continued(EMPTY, sample(""), LINES).steps == ("",)


def test_a_blank_line_is_a_step_so_that_their_number_bounds_an_endless_run_of_them() -> None:
    partial, rules = EMPTY, LINES._replace(max_steps=5)
    for _ in range(5):
        assert not partial.finished
        partial = continued(partial, sample("", "stop_string", "\n"), rules)
    assert (partial.text, partial.ending) == ("\n" * 5, "steps")


# --- what is written is kept ------------------------------------------------------------------------

TEXTS = st.text(alphabet="ab \n#é\0", max_size=40)
CUTS: list[Steps] = [
    "newline",
    "blank_line",
    Delimiter(delimiter="#"),
    Delimiter(delimiter="ab"),
    Delimiter(delimiter="aa"),
]


def written(text: str, rules: Rules, *, obeys: bool = True) -> list[Partial]:
    """A model whose answer is this text, on a server that is asked for a step at a time; a token is a character."""
    partial, found = EMPTY, [EMPTY]
    while not partial.finished:
        rest = text[len(partial.text) :]
        end = rules.end
        if isinstance(rules.steps, int):
            got = sample(rest[: rules.steps], "length" if len(rest) >= rules.steps else "stop")
        elif end is not None and end in rest and obeys:
            got = sample(rest[: rest.index(end)], "stop_string", end)
        else:
            got = sample(rest)
        partial = continued(partial, got, rules)
        found.append(partial)
    return found


@given(TEXTS, st.sampled_from(CUTS))
def test_steps_joined_are_what_the_model_wrote_and_each_ends_at_the_delimiter(text: str, by: Steps) -> None:
    rules, end = Rules(by, max_steps=1000), end_of(by)
    *before, last = written(text, rules)
    assert (last.text, last.ending) == (text, "stop")
    for partial in before[1:]:
        assert text.startswith(partial.text) and partial.steps[-1].endswith(end)
        assert partial.steps[-1].index(end) == len(partial.steps[-1]) - len(end), "it holds one, at its end"
    assert last.tokens == sum(max(1, len(step)) for step in _texts(text, end))


def _texts(text: str, end: str) -> list[str]:
    """What the server was paid for: texts without the stop string, and the rest."""
    return text.split(end)


@given(TEXTS, st.integers(1, 7))
def test_steps_of_tokens_joined_are_what_the_model_wrote(text: str, size: int) -> None:
    *_, last = written(text, Rules(size, max_steps=1000))
    assert (last.text, last.ending) == (text, "stop")
    assert all(len(step) == size for step in last.steps[:-1])


@given(TEXTS, st.sampled_from(CUTS))
def test_a_server_that_knows_no_stop_strings_writes_the_same_steps_joined(text: str, by: Steps) -> None:
    *_, last = written(text, Rules(by, max_steps=1000), obeys=False)
    assert (last.text, last.ending) == (text, "stop")


@given(TEXTS, st.sampled_from(CUTS), st.integers(1, 3))
def test_an_answer_written_to_the_end_has_no_more_steps_than_it_may(text: str, by: Steps, most: int) -> None:
    got = sample(text)
    free = continued(EMPTY, got, Rules(by, max_steps=1000), to_the_end=True)
    bound = continued(EMPTY, got, Rules(by, max_steps=most), to_the_end=True)
    assert free.text == text and free.ending == "stop"
    assert bound.steps == free.steps[:most]
    assert bound.ending == ("steps" if len(free.steps) > most else "stop")


@given(TEXTS, TEXTS, st.lists(st.text(alphabet="ab \n#", min_size=1, max_size=3), max_size=3))
def test_no_stop_string_is_ever_in_an_answer(first: str, second: str, stops: list[str]) -> None:
    rules = LINES._replace(stops=tuple(stops))
    partial = continued(EMPTY, sample(first, "stop_string", "\n"), rules)
    if not partial.finished:
        partial = continued(partial, sample(second), rules)
    assert not any(stop in partial.text for stop in stops)
    assert f"{first}\n{second}".startswith(partial.text)


# --- certainty --------------------------------------------------------------------------------------

SURE = LINES._replace(certain=True)


def test_certainty_is_the_geometric_mean_of_a_steps_probabilities() -> None:
    half, tenth = math.log(0.5), math.log(0.1)
    one = continued(
        EMPTY, sample("ab", "stop_string", "\n", logprobs=[("a", half), ("b", tenth), ("\n", 0.0)]), SURE
    )
    assert one.scores == pytest.approx((0.05 ** (1 / 3),))
    assert one.certainty == pytest.approx((half + tenth) / 3)
    two = continued(one, sample("c", logprobs=[("c", tenth)]), SURE)
    assert two.scores == pytest.approx((0.05 ** (1 / 3), 0.1))
    assert two.logprob == pytest.approx(tenth) and two.logprobs == 1


def test_the_end_of_sequence_counts_with_the_step_before_it() -> None:
    one = continued(EMPTY, sample("a", "stop_string", "\n", logprobs=[("a", math.log(0.9))]), SURE)
    two = continued(one, sample("", logprobs=[("<eos>", math.log(0.1))]), SURE)
    assert two.scores == pytest.approx((0.3,))
    assert continued(one, sample("", logprobs=[]), SURE).scores == pytest.approx((0.9,)), (
        "nothing, and no worse"
    )


def test_of_what_is_written_to_the_end_each_step_has_its_own_tokens() -> None:
    tokens = [("a", math.log(0.5)), ("\n", math.log(0.5)), ("b\n", math.log(0.2)), ("c", math.log(0.7))]
    got = continued(EMPTY, sample("a\nb\nc", logprobs=tokens), SURE, to_the_end=True)
    assert got.steps == ("a\n", "b\n", "c")
    assert got.scores == pytest.approx((0.5, 0.2, 0.7))


def test_where_the_server_gave_no_log_probabilities_nothing_is_known() -> None:
    assert continued(EMPTY, sample("a", "stop_string", "\n"), SURE).scores == ()


# --- values -----------------------------------------------------------------------------------------


def test_a_partial_answer_goes_to_json_and_back() -> None:
    ahead = Partial(("a\n", "b"), (0.1, 0.2), 0.2, "stop", 7, -0.5, 2, ("s#0", "s#1"))
    partial = Partial(("a\n",), (0.1,), 0.2, None, 3, -0.25, 1, ("s#0",), ahead)
    assert loaded(Partial, dumped(partial)) == partial
    for broken in (b"[]", b'{"steps": 3}', b"x"):
        with pytest.raises(ValueError):
            loaded(Partial, broken)


def test_judging_changes_nothing_else() -> None:
    partial = Partial(("a\n",), (), None, "until", 3, -0.25, 1, ("s#0",), EMPTY)
    assert partial.judged((0.5,), 0.5) == replace(partial, scores=(0.5,), value=0.5)


def test_a_place_has_its_own_random_numbers_and_always_the_same() -> None:
    def drawn(*place: int) -> Any:
        return generator(*place).random(4).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert len({tuple(drawn(*place)) for place in ((1, 2), (1, 3), (2, 2), (1, 2, 0), (1,))}) >= 4
