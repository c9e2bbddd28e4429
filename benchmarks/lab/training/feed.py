"""Batches for training, made beside it: on a GPU, processes that draw problems keep ahead of the steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from archon.benchmarks.lab.training.data import Exchange, batches, laid_out

Source = Callable[[int], Iterator[Exchange]]
"""Endless exchanges from a seed."""


def fed(source: Source, tokens: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of about so many tokens on the device: token ids, padded on the right, and where each reply begins."""
    workers = 0 if device == "cpu" else max(1, (os.cpu_count() or 2) - 2)
    options: dict[str, Any] = {"prefetch_factor": 8, "multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(_Batches(source, tokens), batch_size=None, num_workers=workers, **options)
    for rows, starts in loader:
        yield rows.to(device, non_blocking=True).long(), starts.to(device, non_blocking=True)


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """One process's batches: exchanges of a seed of its own."""

    def __init__(self, source: Source, tokens: int) -> None:
        self._source, self._tokens = source, tokens

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        if worker is not None:
            torch.set_num_threads(1)
        for batch in batches(
            self._source(worker.id if worker else 0), self._tokens, ahead=4 if worker else 16
        ):
            rows, starts = laid_out(batch)
            yield torch.tensor(rows, dtype=torch.uint8), torch.tensor(starts)
