"""A process reward model that begins by comparing: what the writer expects next against what stands there.

A network of five layers that is trained on outcomes alone learns which questions are hard, and hardly which of two
answers to one question is right: to notice a wrong digit it has to compare two positions, at each of which it already
has to know something. So ours does not begin at the writer's weights with an empty head. It is the writer as it is
(frozen), beside it some dimensions that the writer does not see, and three layers on top:

1. what is expected: the writer's probabilities of the commonest tokens, learnt from it by regression (a logit is no use
   to a linear map that is to compare it), and whether the reply has begun;
2. what is surprising: a head that looks one place back for what was expected here, and units that are on where that is
   little for the token that stands here;
3. a judge that begins as the mean of it, and is what is learnt from roll-outs (`rewards.py`).

That a writer's own probabilities tell right answers from wrong ones is the finding behind confidence as a guide (Kang
et al. 2025, arXiv 2502.18581; Fu et al. 2025, arXiv 2508.15260).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from archon.backends.nano.tokens import BOS, EOS, PAD, SEP, encode
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.model import Language, Reward

_COMMON = 30
"""Tokens that are compared: the commonest of replies; nearly all of arithmetic, and most of programs."""
_BESIDE = 64
"""Dimensions beside the writer's: where each thing stands in them, from the writer's last on."""
_OWN, _SEP, _ONE, _NEXT, _BEGUN, _SURPRISE = range(0, 30), 30, 31, range(32, 62), 62, 63
_LAYERS = 3
_LOUD = 100.0
"""The constant, in units of the writer's: so loud that norms divide by it alone."""
_FAINT = 0.3
"""The token's own mark at the writer's layers, in units of the embedding: their norms hardly notice (0.04%)."""
_READ = 400_000
"""Positions that the regressions are made from."""


class _Read(NamedTuple):
    """Positions of replies as the writer leaves them, before its last norm."""

    hidden: Tensor
    counts: Tensor
    """How often each token stands in replies."""
    begins: Tensor
    """Of the positions where a reply begins: their size (root mean square)."""


class _Expected(NamedTuple):
    """A feed-forward layer that says what comes next."""

    common: list[int]
    norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    constant: Tensor
    """A row for `down`: 1 everywhere."""


def comparing(language: Language, data: Sequence[Labelled], device: str = "cpu", steps: int = 1200) -> Reward:
    """A reward model that scores by surprise, on the device, with all but its last layer frozen."""
    language.to(device).eval()
    read = _read(language, random.Random(0).sample(list(data), len(data)), device)
    return _built(language, read, _expected(language, read, steps))


# --- what the writer expects -----------------------------------------------------------------------


@torch.no_grad()
def _read(language: Language, data: Sequence[Labelled], device: str) -> _Read:
    hidden, begins = [], []
    counts = torch.zeros(language.model.shape.vocab_size)
    have = 0
    for at in range(0, len(data), 64):
        rows = [
            torch.tensor([BOS, *encode(d.question), SEP, *encode(d.reply), EOS]) for d in data[at : at + 64]
        ]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        x = language.model.before_norm(tokens.to(device))
        for row, one in enumerate(rows):
            start = int((one == SEP).nonzero()[0])
            hidden.append(x[row, start : len(one) - 1])
            begins.append(x[row, start])
            counts += torch.bincount(one[start + 1 :], minlength=len(counts))
            have += len(one) - 1 - start
        if have >= _READ:
            break
    return _Read(torch.cat(hidden), counts, _size(torch.stack(begins)))


def _expected(language: Language, read: _Read, steps: int) -> _Expected:
    """By regression of the writer's probabilities on its hidden states, a position at a time."""
    s, device = language.model.shape, read.hidden.device
    common = read.counts.argsort(descending=True)[:_COMMON].tolist()
    head = (language.model.embed_tokens.weight * language.model.norm.weight).detach()
    norm = nn.Parameter(torch.ones(s.hidden_size, device=device))
    gate, up = (
        nn.Parameter(0.09 * torch.randn(s.intermediate_size, s.hidden_size, device=device)) for _ in range(2)
    )
    down = nn.Parameter(0.02 * torch.randn(_COMMON, s.intermediate_size, device=device))
    with torch.no_grad():
        for times, scale in enumerate((1.0, 1.0, 0.5)):
            gate[times * _COMMON : (times + 1) * _COMMON] = scale * head[common]

    def units(x: Tensor) -> Tensor:
        x = x * norm
        return functional.silu(x @ gate.T) * (x @ up.T)

    adam = torch.optim.AdamW([norm, gate, up, down], lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps):
        for settings in adam.param_groups:
            settings["lr"] = 2e-3 * min(1.0, step / 100 + 0.01) * (1 - step / steps)
        x = _unit(read.hidden[torch.randint(len(read.hidden), (4096,), device=device)])
        probabilities = (x @ head.T).softmax(-1)[:, common]
        loss = (units(x) @ down.T - probabilities).square().sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([norm, gate, up, down], 1.0)
        adam.step()
        adam.zero_grad()
        if step % 500 == 499:
            print(f"expecting, step {step + 1:5d}  squared error {loss.item():.4f}", flush=True)
    with torch.no_grad():
        some = _unit(read.hidden[torch.randint(len(read.hidden), (60_000,), device=device)])
        constant = _giving_one(units(some))
    return _Expected(common, norm.detach(), gate.detach(), up.detach(), down.detach(), constant)


def _giving_one(x: Tensor) -> Tensor:
    """What to multiply rows by to get 1, by least squares."""
    ones = torch.ones(len(x), 1, dtype=torch.float64, device=x.device)
    x = x.double()
    ridge = 1e-6 * x.square().mean() * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ ones)[:, 0].float()


def _size(x: Tensor) -> Tensor:
    return x.square().mean(-1).sqrt()


def _unit(x: Tensor) -> Tensor:
    return x / _size(x)[:, None]


# --- putting it together ---------------------------------------------------------------------------


@torch.no_grad()
def _built(language: Language, read: _Read, expected: _Expected) -> Reward:
    s = language.model.shape
    wide = replace(s, hidden_size=s.hidden_size + _BESIDE, num_hidden_layers=s.num_hidden_layers + _LAYERS)
    net = Reward(wide).to(read.hidden.device)
    _writer(net, language, expected.common)
    unit = float(_size(read.hidden).median())  # of what the writer leaves
    faint = float(net.model.embed_tokens.weight[SEP, s.hidden_size + _SEP])
    _expecting(net, s.num_hidden_layers, expected, read, unit, faint)
    _surprised(net, s.num_hidden_layers + 1, unit, faint, float((unit / read.begins).mean()))
    _judging(net, s.num_hidden_layers + 2, unit)
    for part in (net.model.embed_tokens, *net.model.layers[:-1]):
        part.requires_grad_(False)
    return net


def _writer(net: Reward, language: Language, common: Sequence[int]) -> None:
    """The writer's layers in the wider network, blind to what stands beside; and each token's mark there."""
    own = language.model.shape.hidden_size
    louder = (own / net.model.shape.hidden_size) ** 0.5  # a norm that sees nothing beside divides by less
    embedding = net.model.embed_tokens.weight
    embedding.zero_()
    embedding[:, :own] = language.model.embed_tokens.weight
    faint = _FAINT * float(_size(language.model.embed_tokens.weight).median())
    for place, token in enumerate([*common, SEP]):
        embedding[token, own + place] = faint
    for mine, its in zip(net.model.layers, language.model.layers, strict=False):
        for name, weight in its.named_parameters():
            target = mine.get_parameter(name)
            target.zero_()
            if weight.ndim == 1:
                target[:own] = weight * louder
            else:
                target[: len(weight), : weight.shape[1]] = weight


def _blank(net: Reward, number: int) -> nn.Module:
    """A layer that adds nothing yet, with the dimensions at hand."""
    layer: nn.Module = net.model.layers[number]
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
    nn.init.zeros_(layer.get_parameter("self_attn.o_proj.weight"))
    nn.init.zeros_(layer.get_parameter("mlp.down_proj.weight"))
    return layer


def _expecting(net: Reward, number: int, expected: _Expected, read: _Read, unit: float, faint: float) -> None:
    """What comes next, a constant, and whether the reply has begun."""
    layer, shape = _blank(net, number), net.model.shape
    own = shape.hidden_size - _BESIDE
    louder = (own / shape.hidden_size) ** 0.5
    attention, feed = layer.self_attn, layer.mlp
    marks = slice(own, own + _SEP + 1)
    layer.input_layernorm.weight.fill_(louder)
    layer.input_layernorm.weight[marks] = louder * unit / faint
    # Only where a reply begins is there a key, so whoever stands behind it looks at it. The last pair of a head turns
    # least with the distance.
    slow = shape.head_dim // 2 - 1
    attention.q_proj.weight[: shape.head_dim] = 0
    attention.q_proj.weight[slow, :own] = 40 * _giving_one(_unit(read.hidden[:60_000]))
    attention.k_proj.weight.zero_()
    attention.k_proj.weight[slow, own + _SEP] = 40
    attention.v_proj.weight[0] = 0
    attention.v_proj.weight[0, own + _SEP] = 1
    attention.o_proj.weight[own + _BEGUN, 0] = unit
    layer.post_attention_layernorm.weight.fill_(louder)
    layer.post_attention_layernorm.weight[:own] = expected.norm * louder
    feed.gate_proj.weight.zero_()
    feed.up_proj.weight.zero_()
    feed.gate_proj.weight[:, :own], feed.up_proj.weight[:, :own] = expected.gate, expected.up
    feed.down_proj.weight[_at(own, _NEXT)] = expected.down * unit
    feed.down_proj.weight[own + _ONE] = expected.constant * _LOUD * unit


def _calmed(norm: nn.Module, size: int) -> None:
    """A norm after which the writer's median and the constant are 1, whatever the position: the constant is what it
    divides by."""
    weight = norm.get_parameter("weight")
    weight.fill_(_LOUD / size**0.5)
    weight[size - _BESIDE + _ONE] = size**-0.5


def _surprised(net: Reward, number: int, unit: float, faint: float, begun: float) -> None:
    """What was expected here is brought from one place back, and compared with what stands here."""
    layer, shape = _blank(net, number), net.model.shape
    size, head = shape.hidden_size, shape.head_dim
    own = size - _BESIDE
    attention, feed = layer.self_attn, layer.mlp
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        _calmed(norm, size)
    layer.post_attention_layernorm.weight[own : own + _SEP] *= unit / faint
    half = head // 2
    turns = shape.rope_theta ** -(torch.arange(0, head, 2).float() / head)
    sharp = 80**0.5 * (
        torch.arange(half) < half // 2
    )  # pairs that turn too slowly to tell two places apart are left
    still = torch.cat((sharp, torch.zeros(half)))
    back = torch.cat((sharp * turns.cos(), -sharp * turns.sin()))
    attention.q_proj.weight.zero_()
    attention.q_proj.weight[:head, own + _ONE] = back.to(attention.q_proj.weight)
    attention.q_proj.weight[head : 2 * head, own + _ONE] = still.to(attention.q_proj.weight)
    attention.k_proj.weight.zero_()
    attention.k_proj.weight[:, own + _ONE] = still.to(attention.k_proj.weight)
    attention.v_proj.weight.zero_()
    places = torch.arange(_COMMON)
    following = torch.tensor(_at(own, _NEXT))
    attention.v_proj.weight[places, following] = 1
    attention.o_proj.weight[following, places] = unit
    attention.o_proj.weight[following, head + places] = -unit  # in place of what is expected next
    steep, least = 20.0, 0.6  # what was expected with that or more is no surprise
    marks = own + torch.tensor(list(_OWN))
    feed.gate_proj.weight[:_COMMON] = 0
    feed.gate_proj.weight[places, marks] = steep
    feed.gate_proj.weight[places, following] = -steep
    feed.gate_proj.weight[:_COMMON, own + _ONE] = -steep * (1 - least)
    feed.up_proj.weight[:_COMMON] = 0
    feed.up_proj.weight[:_COMMON, own + _BEGUN] = 1 / begun
    feed.down_proj.weight[own + _SURPRISE, :_COMMON] = unit / (steep * least)


def _judging(net: Reward, number: int, unit: float) -> None:
    """A head that takes the mean, which is the score: the rest is to be learnt."""
    layer, size = _blank(net, number), net.model.shape.hidden_size
    own, attention = size - _BESIDE, layer.self_attn
    for norm in (layer.input_layernorm, layer.post_attention_layernorm, net.model.norm):
        _calmed(norm, size)
    nn.init.normal_(attention.o_proj.weight, std=0.005 * unit)
    nn.init.normal_(layer.mlp.down_proj.weight, std=0.005 * unit)
    attention.q_proj.weight *= 0.3
    attention.q_proj.weight[: net.model.shape.head_dim] = 0
    attention.v_proj.weight[0] = 0
    attention.v_proj.weight[0, own + _SURPRISE] = 1
    attention.o_proj.weight[:, 0] = 0
    attention.o_proj.weight[own + _SURPRISE] = 0
    attention.o_proj.weight[own + _SURPRISE, 0] = 100 * unit
    net.score.weight[0, own + _SURPRISE] = -1
    net.score.weight[0, own + _ONE] = 1


def _at(own: int, places: Sequence[int]) -> list[int]:
    return [own + place for place in places]
