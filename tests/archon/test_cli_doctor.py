"""`archon doctor`: every layer with what it protects; exit code 1 where programs would not be run."""

from __future__ import annotations

import json

import pytest

from archon.cli import main
from archon.verifiers.sandbox import Sandbox


def doctor(*options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *options])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_it_names_every_layer_and_what_it_protects(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor("--json")
    said = json.loads(capsys.readouterr().out)
    assert {"mount namespace", "Landlock", "seccomp", "resource limits"} <= {
        x["name"] for x in said["layers"]
    }
    assert all(x["protects"] and (x["active"] or x["why"]) for x in said["layers"])
    assert code == (0 if said["strict"] else 1)


def test_where_too_little_protects_it_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Sandbox.__init__,
        "__kwdefaults__",
        {**(Sandbox.__init__.__kwdefaults__ or {}), "without": ("namespaces", "landlock")},
    )
    assert doctor() == 1
    shown = capsys.readouterr().out
    assert "NO  Landlock: " in shown and "not here: not used, as asked" in shown
    assert "files" in shown.splitlines()[-1] and 'isolation="weak"' in shown.splitlines()[-1]
