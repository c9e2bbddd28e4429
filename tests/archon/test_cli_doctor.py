"""`archon doctor`: what can be used, with how to get the rest; every layer with what it protects; exit code 1 where
programs would not be run."""

from __future__ import annotations

import json
import os
import sys
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from archon import registry
from archon.backends import nano
from archon.backends.base import Backend, Model
from archon.cli import main
from archon.errors import UserError
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


# --- what can be used ------------------------------------------------------------------------------


def examined(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    doctor("--json")
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def part(data: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in data[kind] if one["name"] == name)
    return dict(found)


def test_the_json_has_the_schema_that_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    data = examined(capsys)
    documented = Path(__file__).parents[2].joinpath("docs/doctor.md").read_text()
    assert data["schema"] == 1
    for field in data:
        assert f"`{field}`" in documented
    assert [one["name"] for one in data["backends"]] == registry.names("backend")
    assert [one["name"] for one in data["engines"]] == ["nano", "vllm", "torch"]
    assert {"dev", "train", "vllm"} <= {one["name"] for one in data["extras"]}
    for kind in ("backends", "engines", "extras"):
        for one in data[kind]:
            assert set(one) == {"name", "usable", "missing", "get", "about"}
            assert bool(one["missing"]) is not one["usable"], one
            assert one["usable"] is (one["get"] == ""), "what is missing can be got"


def test_a_key_is_said_to_be_there_and_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    without = examined(capsys)
    lacking = part(without, "backends", "openai")
    assert not lacking["usable"] and "OPENAI_API_KEY" in lacking["get"]
    assert without["keys"]["OPENAI_API_KEY"] is False
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret123456")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:hunter2@example.org/v1")
    with_key = examined(capsys)
    assert part(with_key, "backends", "openai")["usable"]
    assert with_key["keys"]["OPENAI_API_KEY"] is True
    assert "verysecret" not in json.dumps(with_key) and "hunter2" not in json.dumps(with_key)


def test_backends_that_need_nothing_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    data = examined(capsys)
    assert part(data, "backends", "scripted")["usable"]
    assert part(data, "backends", "replay") == {
        "name": "replay", "usable": True, "missing": "", "get": "", "about": "needs `path`",
    }  # fmt: skip


class Picky(Model):
    """Lacks something of its own."""

    name: ClassVar[str] = "picky"

    def check(self) -> None:
        raise UserError("the moon is not full")

    def connect(self) -> Backend:
        raise NotImplementedError


def test_anyone_s_backend_says_what_it_lacks_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._added, "backend", {"picky": Picky})
    picky = part_of(capsys, "backends", "picky")
    assert (picky["usable"], picky["missing"]) == (False, "the moon is not full")


@pytest.mark.parametrize("fault", [RuntimeError("no moon\nat all"), OSError("libmoon.so"), KeyError("moon")])
def test_a_broken_backend_is_said_to_be_broken_and_the_others_are_examined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    class Broken(Picky):
        def check(self) -> None:
            raise fault

    monkeypatch.setitem(registry._added, "backend", {"picky": Broken})
    data = examined(capsys)
    picky = part(data, "backends", "picky")
    assert not picky["usable"] and "moon" in picky["missing"] and type(fault).__name__ in picky["missing"]
    assert "\n" not in picky["missing"]
    assert part(data, "backends", "scripted")["usable"]


def test_a_key_in_the_words_of_a_broken_backend_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Telling(Picky):
        def check(self) -> None:
            raise RuntimeError(f"cannot use {os.environ['OPENAI_API_KEY']}")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret123456")
    monkeypatch.setitem(registry._added, "backend", {"picky": Telling})
    assert "cannot use ***" in part_of(capsys, "backends", "picky")["missing"]


def test_a_folder_named_torch_is_not_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if find_spec("torch") is not None:
        pytest.skip("torch is installed")
    (tmp_path / "torch").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not part_of(capsys, "engines", "torch")["usable"]
    (tmp_path / "torch/__init__.py").touch()
    invalidate_caches()
    assert part_of(capsys, "engines", "torch")["about"] == str(tmp_path / "torch/__init__.py")


def part_of(capsys: pytest.CaptureFixture[str], kind: str, name: str) -> dict[str, Any]:
    return part(examined(capsys), kind, name)


def test_the_nano_weights_are_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nano.folder, "SHIPPED", tmp_path)
    lacking = part_of(capsys, "engines", "nano")
    assert "lm, prm, orm" in lacking["missing"] and "archon.benchmarks.lab.training" in lacking["get"]
    for name in ("lm", "prm", "orm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    assert part_of(capsys, "engines", "nano")["about"] == str(tmp_path)


def test_a_python_with_vllm_is_found_by_its_variable_or_in_its_usual_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHON_VLLM_PYTHON", str(tmp_path / "nowhere"))
    assert "ARCHON_VLLM_PYTHON" in part_of(capsys, "engines", "vllm")["missing"]
    monkeypatch.delenv("ARCHON_VLLM_PYTHON")
    python = tmp_path / ".venv-vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    found = part_of(capsys, "engines", "vllm")
    assert found["usable"] or found["get"] == f"export ARCHON_VLLM_PYTHON={python}"


def test_an_extra_names_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from archon import surroundings

    monkeypatch.setattr(surroundings, "_installed", lambda name: name != "torch")
    data = examined(capsys)
    train = part(data, "extras", "train")
    assert (train["missing"], train["get"]) == ("not installed: torch", "pip install 'archon[train]'")
    assert part(data, "extras", "dev")["usable"]
