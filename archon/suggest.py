"""Did you mean: one way to phrase an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to `name`, or None where nothing is close."""
    options = sorted(valid)
    folded = {option.lower().replace("-", "_"): option for option in reversed(options)}
    wanted = name.lower().replace("-", "_")
    close = get_close_matches(wanted, folded, n=1, cutoff=0.6)
    if close:
        return folded[close[0]]
    starts = [option for key, option in folded.items() if wanted and key.startswith(wanted)]
    return min(starts) if starts else None


def hint(name: str, valid: Iterable[str]) -> str:
    """A sentence that names the nearest valid name, or lists all where nothing is near."""
    options = sorted(valid)
    best = nearest(name, options)
    if best is not None:
        return f"Did you mean {best!r}?"
    if not options:
        return "There are none."
    return f"Valid: {', '.join(options)}."
