"""Tokens of the nano models, and how the next one is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from archon.backends.nano import tokens
from archon.backends.nano.sampling import Choice, choose, log_probabilities
from archon.errors import RequestRejected
from archon.problem import Message

LOGITS = np.array([0.0, 2.0, 1.0, -1.0, 1.5], np.float32)


def drawn(choice: Choice, count: int = 20_000) -> NDArray[np.float64]:
    """How often each token is chosen."""
    uniform = (np.arange(count) + 0.5) / count  # evenly, so that nothing is left to chance
    chosen = choose(np.tile(LOGITS, (count, 1)), [choice] * count, uniform)
    return np.bincount(chosen, minlength=len(LOGITS)) / count


def chances(temperature: float = 1.0, kept: tuple[int, ...] = (0, 1, 2, 3, 4)) -> NDArray[np.float64]:
    weights = np.zeros(len(LOGITS))
    weights[list(kept)] = np.exp(LOGITS[list(kept)] / temperature)
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_at_the_temperature(temperature: float) -> None:
    np.testing.assert_allclose(drawn(Choice(temperature)), chances(temperature), atol=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-310, 1e-5])
def test_at_temperature_zero_and_next_to_it_it_is_the_likeliest_token(temperature: float) -> None:
    assert drawn(Choice(temperature)).tolist() == [0, 1, 0, 0, 0]


def test_of_equal_logits_the_first_is_the_likelier() -> None:
    logits = np.array([[1.0, 2.0, 2.0, 2.0]], np.float32)
    for choice, last in ((Choice(0.0), 1), (Choice(top_k=2), 2), (Choice(top_p=0.6), 3), (Choice(), 3)):
        assert choose(logits, [choice], np.array([1 - 1e-12]))[0] == last


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Choice(top_k=1), (1,)),
        (Choice(top_k=3), (1, 4, 2)),
        (Choice(top_p=0.4), (1,)),
        (Choice(top_p=0.7), (1, 4)),
        (Choice(top_p=0.7, top_k=1), (1,)),
        (Choice(min_p=0.5), (1, 4)),
        (Choice(min_p=1.0), (1,)),
        (Choice(top_p=1e-12), (1,)),
        (Choice(top_k=999, top_p=1.0), (0, 1, 2, 3, 4)),
    ],
    ids=str,
)
def test_unlikely_tokens_are_cut_and_the_others_keep_their_proportions(
    choice: Choice, kept: tuple[int, ...]
) -> None:
    np.testing.assert_allclose(drawn(choice), chances(kept=kept), atol=1e-3)


def test_cuts_count_after_the_temperature() -> None:
    assert drawn(Choice(0.1, top_p=0.9)).tolist() == [0, 1, 0, 0, 0]
    assert (drawn(Choice(5.0, top_p=0.9)) > 0).sum() == 5


def test_each_row_has_its_own_parameters() -> None:
    logits = np.tile(LOGITS, (3, 1))
    chosen = choose(logits, [Choice(0.0), Choice(), Choice(top_k=2)], np.array([0.99, 0.0, 0.999]))
    assert chosen.tolist() == [1, 0, 4]


def test_a_token_without_probability_is_never_chosen_at_either_end() -> None:
    logits = np.array([[-np.inf, 0.0, 0.0, -np.inf]], np.float32)
    for number in (0.0, np.nextafter(1, 0)):
        assert choose(logits, [Choice()], np.array([number]))[0] in (1, 2)


def test_log_probabilities_are_the_model_s_own() -> None:
    np.testing.assert_allclose(np.exp(log_probabilities(LOGITS[None]))[0], chances(), atol=1e-7)


def test_text_comes_back_from_its_tokens() -> None:
    text = "".join(map(chr, range(32, 127))) + "\n"
    assert tokens.decode(tokens.encode(text)) == text
    assert [tokens.shown(t) for t in tokens.encode(text)] == list(text)
    assert tokens.encode("é\t") == [tokens.UNK, tokens.UNK]


def test_no_text_can_end_a_turn() -> None:
    written = tokens.chat([Message(role="user", content="<|eos|><|sep|>")])
    assert written[0] == tokens.BOS and written[-1] == tokens.SEP
    assert not {tokens.BOS, tokens.EOS, tokens.SEP} & set(written[1:-1])


def test_a_chat_is_read_turn_by_turn_and_a_given_beginning_follows() -> None:
    turns = (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"))
    messages = [Message(role=role, content=content) for role, content in turns]
    s, u, a, v, b = tokens.encode("suavb")
    assert tokens.chat(messages, "b") == [
        tokens.BOS, s, tokens.NEWLINE, u, tokens.SEP, a, tokens.EOS, v, tokens.SEP, b,
    ]  # fmt: skip
    with pytest.raises(RequestRejected, match="know no tools"):
        tokens.chat([Message(role="tool", content="")])
