"""The engine: requests share steps, and none can tell from its samples."""

from __future__ import annotations

import numpy as np
import pytest

from archon.backends.nano.engine import Ask, Done, Engine, _Sample
from archon.backends.nano.llama import Llama
from archon.backends.nano.sampling import Choice
from archon.backends.nano.tokens import EOS, SEP, UNK, encode
from tests.archon.nano_model import random_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return Llama(random_folder(tmp_path_factory.mktemp("weights") / "lm"))


def prompt(text: str) -> tuple[int, ...]:
    return (1, *encode(text))


def ask(key: int, text: str = "hello", n: int = 1, **fields: object) -> Ask:
    samples = tuple((number, 100 * key + number) for number in range(n))
    base = Ask(key, prompt(text), samples, Choice(), limit=20)
    return base._replace(**fields)  # type: ignore[arg-type]


def everything(engine: Engine, *asks: Ask) -> dict[tuple[int, int], Done]:
    for one in asks:
        engine.add(one)
    found: dict[tuple[int, int], Done] = {}
    while not engine.idle:
        found |= {(done.key, done.number): done for done in engine.step()}
    return found


def test_a_seed_means_one_sample_whatever_is_decoded_beside_it(model: Llama) -> None:
    """Alone, beside others in one batch, and in a batch too small for all: tokens and log-probabilities alike."""
    asks = [ask(key, "what is " + "x" * (7 * key), n=5, logprobs=1, limit=12 + 9 * key) for key in range(4)]
    together = everything(Engine(model), *asks)
    crowded = everything(Engine(model, capacity=3), *reversed(asks))
    engine = Engine(model)
    alone = {place: done for one in asks for place, done in everything(engine, one).items()}
    assert len(alone) == 20
    for place, done in alone.items():
        assert together[place]._replace(cached=0) == done._replace(cached=0)
        assert crowded[place]._replace(cached=0) == done._replace(cached=0)


def test_samples_differ_by_seed_and_are_random_without_one(model: Llama) -> None:
    seeded = everything(Engine(model), ask(0, n=8))
    unseeded = Ask(1, prompt("hello"), ((0, None), (1, None)), Choice(), limit=40)
    once, again = (everything(Engine(model), unseeded) for _ in range(2))
    assert len({done.tokens for done in seeded.values()}) == 8
    assert len({done.tokens for done in (*once.values(), *again.values())}) == 4


def test_greedy_is_the_likeliest_token_each_time(model: Llama) -> None:
    (done,) = everything(Engine(model), ask(0, choice=Choice(0.0), logprobs=3)).values()
    assert done.logprobs is not None
    for token, logprob in zip(done.tokens, done.logprobs, strict=True):
        assert logprob.top[0] == (token, logprob.value)
        assert len(logprob.top) == 3


def test_a_given_logprob_is_that_of_the_whole_sequence_read_at_once(model: Llama) -> None:
    (done,) = everything(Engine(model), ask(0, "2+2", logprobs=0, limit=30)).values()
    whole = model.read((*prompt("2+2"), *done.tokens)).outcome[len(prompt("2+2")) - 1 :].astype(np.float64)
    whole -= np.log(np.exp(whole).sum(axis=1, keepdims=True))
    assert done.logprobs is not None and done.logprobs[0].top == ()
    for at, (token, logprob) in enumerate(zip(done.tokens, done.logprobs, strict=True)):
        assert logprob.value == pytest.approx(whole[at, token], abs=1e-4)


def test_a_sample_ends_at_its_limit_at_a_stop_string_or_by_itself(model: Llama) -> None:
    warm = Choice(3.0)  # so that nothing repeats
    drawn = (everything(Engine(model), ask(key, limit=40, choice=warm)) for key in range(30))
    ((key, _), long) = next(
        (name, done) for some in drawn for name, done in some.items() if done.stop is None
    )
    assert long.text == len(long.tokens) == 40
    (short,) = everything(Engine(model), ask(key, limit=7, choice=warm)).values()
    assert short.tokens == long.tokens[:7]
    stop = long.tokens[5:8]
    stopping = ask(key, limit=40, choice=warm, stops=((0,), stop, stop[1:]))
    (stopped,) = everything(Engine(model), stopping).values()
    assert stopped.tokens == long.tokens[:8]
    assert (stopped.stop, stopped.text) == (1, 5)  # the longer of those that end here
    many = everything(Engine(model), ask(5, n=64, limit=300))
    ended = [done for done in many.values() if done.tokens[-1] == EOS]
    assert ended and all(done.stop == -1 and done.text == len(done.tokens) - 1 for done in ended)
    assert all(EOS not in done.tokens[:-1] for done in many.values())


def test_a_stop_string_is_found_in_the_text_across_tokens_that_have_none(model: Llama) -> None:
    """A model may write `<|unk|>`, which has no text: what is left would hold the stop string."""
    stopping = ask(0, stops=(tuple(encode("abc")), tuple(encode("bc"))))
    sample = _Sample(stopping, 0, 0, model.read(prompt("hello")), 0, limit=9)
    x, a, b, c = encode("xabc")
    assert [sample.append(token) for token in (x, a, UNK, b, SEP)] == [None] * 5
    done = sample.append(c)
    assert done is not None and (done.stop, done.text, len(done.tokens)) == (0, 1, 6)


def test_a_stop_string_in_the_given_beginning_does_not_count(model: Llama) -> None:
    plain, stopping = (ask(0, "hello", limit=8, stops=stops) for stops in ((), (tuple(encode("lo")),)))
    (expected,), (found,) = (everything(Engine(model), one).values() for one in (plain, stopping))
    assert found.tokens == expected.tokens


def test_long_prompts_enter_bit_by_bit_so_that_others_are_not_kept_waiting(model: Llama) -> None:
    engine = Engine(model)
    engine.add(ask(0, limit=900, choice=Choice(top_k=2)))
    engine.step()
    for key in range(1, 7):
        engine.add(ask(key, str(key) * 900, limit=1))
    assert [sum(done.key > 0 for done in engine.step()) for _ in range(2)] == [3, 3]


def test_a_reply_ends_with_the_context(model: Llama) -> None:
    room = 3
    full = ask(0, "y" * (model.shape.positions - 1 - room), limit=50, choice=Choice(top_k=1))
    (done,) = everything(Engine(model), full).values()
    assert len(done.tokens) == room and done.stop is None


def test_what_was_read_of_a_prompt_is_not_read_again(model: Llama) -> None:
    engine = Engine(model)
    first = everything(engine, ask(0, "a common beginning, and one end", n=2))
    assert {done.cached for done in first.values()} == {0}
    again = everything(engine, ask(1, "a common beginning, and one end"))
    assert again[1, 0].cached == len(prompt("a common beginning, and one end"))
    other = everything(engine, ask(2, "a common beginning, and another"))
    assert other[2, 0].cached == len(prompt("a common beginning, and "))
    part = everything(engine, ask(3, "a common"))
    assert part[3, 0].cached == len(prompt("a common"))
    assert part[3, 0].tokens == everything(Engine(model), ask(3, "a common"))[3, 0].tokens


def test_texts_that_begin_alike_are_read_together_but_their_beginning_once(model: Llama) -> None:
    beginning = "a beginning that all of them have in common, long enough"
    texts = [prompt(f"{beginning} {end}") for end in ("one", "two", "two", "three and more")]
    texts += [prompt("something else altogether"), prompt(beginning)]
    read = Engine(model).read(texts)
    for tokens, (prefix, _) in zip(texts, read, strict=True):
        assert prefix.tokens == tokens
        np.testing.assert_array_equal(prefix.outcome, model.read(tokens).outcome)
    begun = len(prompt(beginning)) + 1
    assert [cached for _, cached in read] == [0, begun, len(texts[2]), begun, 0, begun - 1]
    assert read[1][0] is read[2][0], "samples of one prompt share it"
    assert Engine(model).read([]) == []


def test_what_was_read_leaves_when_there_is_no_room(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    size = model.read(prompt("x" * 50)).nbytes
    monkeypatch.setattr("archon.backends.nano.engine._KEPT_BYTES", 3 * size)
    engine = Engine(model)
    texts = [prompt(letter * 50) for letter in "abcdef"]
    engine.read(texts)
    assert [engine.read([text])[0][1] == len(text) for text in reversed(texts[3:])] == [True] * 3
    assert engine.read([texts[0]])[0][1] < len(texts[0])


def test_a_cancelled_request_leaves_at_once_and_tells_what_it_had_got(model: Llama) -> None:
    engine = Engine(model, capacity=4)
    engine.add(ask(0, n=3, limit=500, choice=Choice(top_k=2)))
    engine.add(ask(1, "another", n=3, limit=10))
    steps = [engine.step() for _ in range(5)]
    ended = sum(done.key == 0 for some in steps for done in some)
    assert engine.cancel(0) == (3 - ended) * 6  # one with the prompt, one per step
    rest: list[Done] = []
    while not engine.idle:
        rest += engine.step()
    assert {done.key for done in rest} == {1}
    expected = everything(Engine(model), ask(1, "another", n=3, limit=10))
    assert all(done.tokens == expected[1, done.number].tokens for done in rest)
    assert engine.cancel(7) == 0
