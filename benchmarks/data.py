"""Finding a benchmark's data: a path, a folder of data, or a fetch.

Order: the path that was given (`--data`), the folder named by ARCHON_DATA, the cache of this user
(ARCHON_CACHE, else ~/.cache/archon/data), and last the benchmark's own address, on a connected machine. What is
fetched must have the recorded SHA-256, so that everybody grades the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from archon.errors import DataError

_MOST_BYTES = 200 * 2**20
_SECONDS = 60


class Origin(NamedTuple):
    """Where a data file comes from."""

    folder: str
    """Its folder under a folder of data."""
    file: str
    url: str
    sha256: str


def locate(origin: Origin, given: Path | None) -> Path:
    """The data file. Raises DataError that names every place tried."""
    if given is not None:
        for path in (given / origin.folder / origin.file, given / origin.file, given):
            if path.is_file():
                return path
        raise DataError(
            f"there is no {origin.file} at {str(given)!r}. Give the file, or the folder that holds it, with --data"
        )
    tried = []
    for root in (os.environ.get("ARCHON_DATA"), str(cache_folder())):
        if root:
            path = Path(root) / origin.folder / origin.file
            if path.is_file():
                return path
            tried.append(str(path))
    target = cache_folder() / origin.folder / origin.file
    try:
        fetch(origin, target)
    except DataError as error:
        raise DataError(
            f"no data for {origin.folder}: not at {' nor at '.join(tried)}, and {error}. "
            "Name it with --data, or set ARCHON_DATA"
        ) from None
    return target


def cache_folder() -> Path:
    """This user's folder of fetched data."""
    root = os.environ.get("ARCHON_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "archon" / "data"


def fetch(origin: Origin, target: Path) -> None:
    """Fetch a file, check its SHA-256, and put it in place at once. Raises DataError."""
    try:
        request = urllib.request.Request(origin.url, headers={"User-Agent": "archon"})
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:  # the address is a constant of ours
            data = reply.read(_MOST_BYTES + 1)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(
            f"{origin.url} cannot be fetched ({getattr(error, 'reason', None) or error})"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != origin.sha256:
        raise DataError(
            f"{origin.url} gave another file than expected (SHA-256 {found[:12]}, expected {origin.sha256[:12]})"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise DataError(f"cannot keep {origin.file} in {str(target.parent)!r}: {error.strerror}") from error
