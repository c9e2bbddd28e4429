"""Where everything stands in a TOML file: Python's parser gives the data and no lines.

A small scanner that follows the grammar (https://toml.io/en/v1.0.0). It is given text that is known to be
valid, so it checks nothing; should it lose its way, the lines it has found are all there are.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]
"""Where something is inside a file: keys and indices from the top."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:\\.|[^"\\])*"|' r"'[^']*'", re.DOTALL
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\r\n#]+")


def toml_lines(text: str) -> dict[Path, int]:
    """The line of every table, key and item of a valid TOML text."""
    scan = _Scan(text)
    with contextlib.suppress(_Lost):
        scan.document()
    return scan.lines


class _Lost(Exception):
    """Something else comes next than the grammar says."""


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [found.end() for found in re.finditer("\n", text)]
        self._items: dict[Path, int] = {}
        """The index of the last item of every list of tables."""
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        """The whole text."""
        table: Path = ()
        while self._next():
            if self._take("[["):
                table = self._header(item=True)
            elif self._take("["):
                table = self._header(item=False)
            else:
                self._pair(table)

    def _header(self, *, item: bool) -> Path:
        """`[a.b]` or `[[a.b]]`: the path of the table it opens."""
        start = self._at
        keys = self._key()
        path: Path = ()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            self._note(path, start)
            if item and number == len(keys):
                self._items[path] = self._items.get(path, -1) + 1
            if path in self._items:
                path = (*path, self._items[path])
                self._note(path, start)
        self._take("]]" if item else "]")
        return path

    def _pair(self, table: Path) -> None:
        """`a.b = value`."""
        start = self._at
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path, start)
        if not self._take("="):
            raise _Lost
        self._value(path)

    def _key(self) -> list[str]:
        """`a."b c".d` as its parts."""
        parts = []
        while True:
            self._next()
            if self._text.startswith(("'", '"'), self._at):
                parts.append(str(tomllib.loads(f"key = {self._match(_STRING)}")["key"]))
            else:
                parts.append(self._match(_BARE_KEY))
            if not self._take("."):
                return parts

    def _value(self, path: Path) -> None:
        if self._take("["):
            index = 0
            while not self._take("]"):
                self._note((*path, index), self._at)
                self._value((*path, index))
                self._take(",")
                index += 1
        elif self._take("{"):
            while not self._take("}"):
                self._pair(path)
                self._take(",")
        elif self._text.startswith(("'", '"'), self._at):
            self._match(_STRING)
        else:
            self._match(_BARE_VALUE)

    def _next(self) -> bool:
        """Go to the next thing that is neither blank nor comment, if there is one."""
        self._match(_BLANK)
        return self._at < len(self._text)

    def _take(self, mark: str) -> bool:
        """Go behind a mark, if it comes next; and to what follows."""
        self._next()
        found = self._text.startswith(mark, self._at)
        if found:
            self._at += len(mark)
            self._next()
        return found

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _Lost
        self._at = found.end()
        return found[0]

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self._ends, at) + 1)
