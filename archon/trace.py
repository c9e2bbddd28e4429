"""The trace: what happened in a run, as one JSON object per line.

Events: `sampled` and `scored` (fresh or replayed), `attempt` (a call that gave nothing: cancelled, failed,
retried), `verdict`, `solved`; each with its problem and stage. Off unless asked for; the store already keeps samples
and their costs.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Protocol, TextIO


class Trace(Protocol):
    """Takes events. Must not raise and must not block."""

    def event(self, kind: str, **data: Any) -> None:
        """One thing that happened."""
        ...

    def close(self) -> None:
        """Nothing more will happen."""
        ...


class MemoryTrace:
    """Keeps events in a list, for tests and notebooks."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, kind: str, **data: Any) -> None:
        """One thing that happened."""
        self.events.append({"event": kind, **data})

    def close(self) -> None:
        """Nothing to let go of."""


class FileTrace:
    """Appends events to a JSONL file; each has `at`, seconds since the trace was opened."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO | None = path.open("a", encoding="utf-8")
        self._opened = time.monotonic()

    def event(self, kind: str, **data: Any) -> None:
        """One thing that happened."""
        if self._file is not None:
            at = round(time.monotonic() - self._opened, 6)
            try:
                self._file.write(json.dumps({"event": kind, "at": at, **data}, ensure_ascii=True) + "\n")
            except OSError:  # a full disk must not cost a sample: the trace ends here
                self.close()

    def close(self) -> None:
        """Write what is buffered."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
