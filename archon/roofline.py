"""How fast a model could run on a machine: idealised runtime by a roofline.

A phase takes as long as the slower of its arithmetic at the machine's peak and its memory traffic at full
bandwidth (Williams et al. 2009); for transformers, prefill and decode apart, weights and attention apart, as in
GenZ (Bambhaniya et al. 2024, arXiv 2406.01698). What comes out is a lower bound on time: no kernel is perfect, and
nothing is said of schedulers, networks or queues. That makes it comparable between models, which wall-clock time
behind an API is not: Narayanan et al. 2023 (arXiv 2305.02440) call it idealised runtime, the time to read a prompt
plus a time per generated token, on given hardware and without contention.

Weights are read once a step for the whole batch, a mixture's experts as far as its tokens are expected to meet
them; keys and values once per sequence; activations stay on the chip. An engine that reads the keys and values of a
prompt once for all of its samples, or makes several tokens a step, can be faster than this.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from archon.component import Value
from archon.compute import BYTES, Architecture, Dtype, seen
from archon.errors import DataError, UnknownName
from archon.suggest import hint
from archon.usage import Usage

Bound = Literal["compute", "memory"]
HERE = "here"
"""The name of this machine, measured when it is asked for."""
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_WIDER: tuple[Dtype, ...] = ("int4", "int8", "float8", "bfloat16", "float16", "float32")
_AS_WIDE: Mapping[Dtype, tuple[Dtype, ...]] = {"float16": ("float16", "bfloat16", "float32")}
"""Where a format runs that has no units of its own: the next wider one, or another of the same width."""


class Cache(Value):
    """A cache that a small model fits into as a whole."""

    size: _Rate
    """Bytes."""
    bandwidth: _Rate
    """Bytes per second."""


class Hardware(Value):
    """What a machine can do at most."""

    peaks: Annotated[Mapping[Dtype, _Rate], Field(min_length=1)]
    """FLOP/s by number format, dense."""
    bandwidth: _Rate
    """Bytes per second from memory."""
    memory: _Rate
    """Bytes."""
    cache: Cache | None = None
    """For models so small that they never leave it."""
    usd_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """What it costs, where you pay by the hour."""

    def peak(self, dtype: Dtype) -> float:
        """FLOP/s in this format: those of the next wider one where it has no units of its own. Raises DataError."""
        wider = _AS_WIDE.get(dtype, _WIDER[_WIDER.index(dtype) :])
        for format in wider:
            if format in self.peaks:
                return self.peaks[format]
        raise DataError(
            f"this hardware computes in {', '.join(self.peaks)}, and the model in {dtype}, which is wider. "
            f"Add `{dtype}` to the machine's `peaks:` (docs/costs.md)"
        )

    def reads(self, size: float) -> float:
        """Bytes per second where so many bytes are read again and again."""
        if self.cache is not None and size <= self.cache.size:
            return max(self.cache.bandwidth, self.bandwidth)
        return self.bandwidth

    def times(self, devices: int) -> Hardware:
        """So many of them, as if they were one: communication is free here."""
        return self.model_copy(
            update={
                "peaks": {dtype: peak * devices for dtype, peak in self.peaks.items()},
                "bandwidth": self.bandwidth * devices,
                "memory": self.memory * devices,
                "usd_per_hour": None if self.usd_per_hour is None else self.usd_per_hour * devices,
            }
        )


class _Table(Value):
    """Hardware by name."""

    as_of: str = ""
    hardware: Mapping[str, Hardware]


class Phase(NamedTuple):
    """A step of a batch."""

    seconds: float
    flops: float
    bytes: float
    bound: Bound
    """What most of its time is spent on."""


class Ideal(NamedTuple):
    """A batch of equal requests, from the first prompt token to the last generated one."""

    prefill: Phase
    decode: Phase
    """Every step together."""
    memory: float
    """Bytes of weights, keys and values at the end."""
    fits: bool
    seconds: float
    seconds_per_token: float
    """Between two tokens of one reply; 0 where no step is made."""
    tokens_per_second: float
    """Generated, over the whole batch and the whole time."""


def ideal(
    model: Architecture,
    hardware: Hardware,
    *,
    prompt: float,
    output: float,
    batch: int = 1,
    cached: float = 0,
) -> Ideal:
    """The idealised runtime of `batch` requests at once; `cached` prompt tokens are not read again."""
    first = step(model, hardware, batch, new=prompt - cached, held=cached, writes=output > 0)
    steps = max(output - 1, 0)
    one = step(model, hardware, batch, new=1, held=prompt, steps=steps)
    decode = Phase(one.seconds * steps, one.flops * steps, one.bytes * steps, one.bound)
    memory = model.weight_bytes + batch * model.held_bytes(prompt + steps)
    seconds = first.seconds + decode.seconds
    return Ideal(
        first,
        decode,
        memory,
        memory <= hardware.memory,
        seconds,
        one.seconds if steps else 0.0,
        batch * output / seconds if seconds else 0.0,
    )


def step(
    model: Architecture,
    hardware: Hardware,
    batch: int,
    *,
    new: float,
    held: float,
    steps: float = 1,
    writes: bool = True,
) -> Phase:
    """One pass of `batch` sequences, each with so many new tokens after those whose keys and values are held; the mean
    of so many passes, one after the other. `writes`: whether a token is generated of each."""
    if new <= 0 or steps <= 0:
        return Phase(0.0, 0.0, 0.0, "memory")
    flops, end = model.flops, held + new * steps
    met = 0.0
    if model.experts:
        met = model.experts * (1 - (1 - model.active_experts / model.experts) ** (batch * new))
    output = model.output if writes else 0
    weights = model.matrix_bytes * (model.always + met * model.expert) + BYTES[model.dtype] * output
    far, near = seen(held, end) / steps, seen(held, end, model.window or math.inf) / steps
    cache = batch * model.held_bytes(end, new)
    if new == 1:  # what a token sees is what is read for it
        cache = (
            batch
            * model.kv_bytes
            * ((model.layers - model.windowed) * far + model.windowed * near)
            / model.layers
        )
    layers, last = batch * flops.per_token * new, batch * 2 * output
    attention = batch * (flops.per_pair * far + flops.per_near_pair * near)
    peak, bandwidth = hardware.peak(model.dtype), hardware.reads(weights + cache)
    dense = layers / hardware.peak(model.arithmetic) + last / peak
    parts = [(dense, weights / bandwidth), (attention / peak, cache / bandwidth)]
    slow = sum(max(part) for part in parts if part[0] >= part[1])
    seconds = sum(map(max, parts))
    bound: Bound = "compute" if 2 * slow >= seconds else "memory"
    return Phase(seconds, layers + last + attention, weights + cache, bound)


class MachineTime(NamedTuple):
    """What recorded calls take of a machine."""

    seconds: float
    fits: bool
    """Whether a batch of them fits into its memory."""


def machine_time(
    model: Architecture, hardware: Hardware, usage: Usage, *, sequences: int, batch: int = 1
) -> MachineTime:
    """The idealised time that recorded calls take of a machine that always has `batch` of them in work.

    Every call is taken as of average length; `sequences` is how many replies they gave. Where nothing was written
    the replies were scored, each read by itself, however many were sent together.
    """
    if not usage.requests:
        return MachineTime(0.0, True)
    replies = max(usage.requests, sequences)
    calls = usage.requests if usage.completion_tokens else replies
    prompt, cached = usage.prompt_tokens / calls, usage.cached_tokens / calls
    output = usage.completion_tokens / replies
    one = ideal(model, hardware, prompt=prompt, output=output, batch=batch, cached=cached)
    return MachineTime((calls * one.prefill.seconds + replies * one.decode.seconds) / batch, one.fits)


def find_hardware(name: str, table: Path | None = None) -> Hardware:
    """A machine by its name; `here` is measured. Raises UnknownName, DataError, ConfigError."""
    if name == HERE:
        return measure()
    known = known_hardware(table)
    if name not in known:
        raise UnknownName(f"there is no hardware named {name!r}. {hint(name, [*known, HERE])}")
    return known[name]


def known_hardware(table: Path | None = None) -> dict[str, Hardware]:
    """The packaged machines and the user's: those of `table`, or of the file that ARCHON_HARDWARE names."""
    text = files("archon").joinpath("hardware.yaml").read_text(encoding="utf-8")
    known = dict(_parsed(text, "hardware.yaml").hardware)
    user = table or os.environ.get("ARCHON_HARDWARE")
    if user:
        try:
            text = Path(user).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read the hardware table {str(user)!r}: {getattr(error, 'strerror', None) or 'it is no text'}. "
                "It is named by ARCHON_HARDWARE or --hardware-table"
            ) from error
        known.update(_parsed(text, str(user)).hardware)
    return known


@lru_cache(maxsize=8)
def _parsed(text: str, name: str) -> _Table:
    from archon.config import read_value

    return read_value(_Table, text, name)


# --- this machine ----------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def measure(cores: int | None = None) -> Hardware:
    """This machine's processor in float32, by numpy: a matrix product for its peak, products of a matrix and a
    vector for its bandwidth, out of memory and out of the cache. The best of several, per CPU second and times the
    cores that we may use, so that what others do beside us disturbs it little. Takes about a second."""
    import numpy as np

    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side = np.ones((768, 768), np.float32)
    peak = cores * 2 * 768**3 / _best(side, side)
    large, small = (np.ones((rows, 2048), np.float32) for rows in (2**14, 2**9))
    bandwidth, close = (cores * m.nbytes / _best(m, m[0]) for m in (large, small))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    cache = Cache(size=4 * small.nbytes, bandwidth=close) if close > bandwidth else None
    return Hardware(peaks={"float32": peak}, bandwidth=bandwidth, memory=memory, cache=cache)


def _best(a: Any, b: Any) -> float:
    """CPU seconds of the fastest of several products: the others were disturbed."""
    found: list[float] = []
    while len(found) < 3 or (len(found) < 30 and sum(found) < 0.3):
        start = time.process_time()
        a @ b
        found.append(time.process_time() - start)
    return min(found)
