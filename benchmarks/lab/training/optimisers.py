"""Muon for the matrices inside the network, AdamW for the rest.

Muon (Jordan et al. 2024) moves a matrix along the nearest orthogonal matrix of its momentum, found by a few
Newton-Schulz iterations; its rate is scaled so that a step is as long as AdamW's (Liu et al. 2025, arXiv 2502.16982).
torch has one too; it iterates in bfloat16, which a CPU without such units does a hundred times slower.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""The quintic that drives singular values towards 1."""


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest orthogonal matrix of each of a stack."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x.mT if tall else x


class Optimisers:
    """Both together, with one learning rate."""

    def __init__(self, net: nn.Module, rate: float, *, momentum: float = 0.95, decay: float = 0.02) -> None:
        stacks: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        others = []
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2 and ".layers." in name:
                stacks[tuple(parameter.shape)].append(parameter)
            else:
                others.append(parameter)
        self._stacks = [(group, torch.zeros_like(torch.stack(list(group)))) for group in stacks.values()]
        self._adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._rate, self._momentum, self._decay = rate, momentum, decay

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One step at this share of the peak rate, and gradients forgotten."""
        rate = self._rate * share
        for group, moving in self._stacks:
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            moving.lerp_(gradient, 1 - self._momentum)
            along = orthogonal(gradient.lerp(moving, self._momentum))
            along *= 0.2 * max(moving.shape[-2:]) ** 0.5 * rate
            for parameter, change in zip(group, along, strict=True):
                parameter.mul_(1 - rate * self._decay).sub_(change)
                parameter.grad = None
        for settings in self._adam.param_groups:
            settings["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


class Gently:
    """AdamW alone, for weights that begin as something; those that are frozen stay as they are."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        free = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._rate = rate
        self._adam = torch.optim.AdamW(free, betas=(0.9, 0.98), weight_decay=0.01)

    def step(self, share: float) -> None:
        """One step at this share of the peak rate, and gradients forgotten."""
        for settings in self._adam.param_groups:
            settings["lr"] = self._rate * share
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
