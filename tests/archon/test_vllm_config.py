"""What a configuration says about a vLLM server, before any runs."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.vllm.config import VLLM, devices
from archon.backends.vllm.errors import death, failure
from archon.backends.vllm.server import place
from archon.errors import EndpointDown, MissingExtra, ModelNotFound, UserError
from tests.archon.nano_model import random_folder


def test_options_become_flags() -> None:
    options: dict[str, Any] = {
        "max_model_len": 1024,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "middleware": ["a", "b"],
        "speculative_config": {"method": "ngram"},
        "quantization": None,
        "enable_prompt_tokens_details": False,
    }
    assert VLLM(model="m", options=options).flags == [
        "--no-enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        *("--max-model-len", "1024"),
        "--enforce-eager",
        "--no-enable-prefix-caching",
        *("--middleware", "a", "b"),
        *("--speculative-config", '{"method": "ngram"}'),
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"port": 8000}}, "write `port:` beside"),
        ({"options": {"api_key": "x"}}, "VLLM_API_KEY"),
        ({"options": {"--max-model-len": 8}}, "as 'max_model_len'"),
        ({"environment": {"HF_TOKEN": "x"}}, "looks like a secret"),
        ({"options": {"hf_token": "hf_x"}}, r"looks like a secret.*HF_TOKEN"),
        ({"url": "http://x/v1", "replicas": 2}, "`replicas` is for a server that is started"),
        ({"url": "x"}, "starts with http"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VLLM(model="m", **fields)


def test_samples_are_told_apart_by_weights_and_options_not_by_place_and_speed(tmp_path: Path) -> None:
    one, copy = random_folder(tmp_path / "a" / "m"), random_folder(tmp_path / "b" / "m")
    other = random_folder(tmp_path / "c" / "m", seed=1)
    plain = VLLM(model=str(one)).identity
    fast = VLLM(model=str(copy), replicas=2, port=9000, options={"enforce_eager": True}).identity
    assert plain == fast
    assert plain != VLLM(model=str(other)).identity
    assert plain != VLLM(model=str(one), options={"quantization": "fp8"}).identity
    assert plain != VLLM(model=str(one), url="http://127.0.0.1:1/v1").identity


def test_a_file_that_an_option_names_counts_by_what_it_holds(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    model = VLLM(model="m", options={"chat_template": str(template)}, python=sys.executable)
    assert str(template) not in str(model.identity)
    before, files = model.identity, model.files
    template.write_text("{{ messages | reverse }}")
    assert model.identity != before and model.files != files
    assert VLLM(model="m", options={"chat_template": "{{ x }}" * 999}).identity["options"]["chat_template"]


def test_a_python_without_vllm_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHON_VLLM_PYTHON", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"archon\[vllm\].*docs/vllm.md"):
        VLLM(model="m").check()
    monkeypatch.setenv("ARCHON_VLLM_PYTHON", "/nowhere/python")
    with pytest.raises(
        MissingExtra, match=r"'/nowhere/python' is no program, which ARCHON_VLLM_PYTHON names"
    ):
        VLLM(model="m").check()


def test_a_folder_that_is_no_model_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder '/nowhere/m'"):
        VLLM(model="/nowhere/m").check()
    with pytest.raises(UserError, match=r"no `config\.json`"):
        VLLM(model=str(tmp_path)).check()


def test_replicas_get_gpus_of_their_own_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    model = VLLM(model="m", replicas=2, options={"tensor_parallel_size": 2})
    assert devices(model, 1) == {"CUDA_VISIBLE_DEVICES": "6,7"}
    assert devices(model.model_copy(update={"replicas": 3}), 1) == {}
    assert devices(model.model_copy(update={"replicas": 1}), 0) == {}


def test_the_default_place_is_no_link_and_of_a_given_one_only_our_logs_are_deleted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path_factory.mktemp("v")  # a test's own folder has a name too long for a socket
    monkeypatch.delenv("ARCHON_VLLM_STATE", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short))
    mine = short / "mine"
    mine.mkdir(mode=0o700)
    link = short / f"archon-vllm-{os.getuid()}"
    link.symlink_to(mine)
    with pytest.raises(UserError, match="is a link"):
        place()
    monkeypatch.setenv("ARCHON_VLLM_STATE", str(link))
    names = [f"{n}.log" for n in range(30)] + [f"{n:016x}-20260101-000000-000000.log" for n in range(30)]
    for name in names:
        (mine / name).touch()
        os.utime(mine / name, (1, 1))
    assert place() == mine
    assert len(list(mine.glob("*.log"))) == 30 + 20
    mine.chmod(0o770)
    with pytest.raises(UserError, match="can be written by others"):
        place()


def test_of_a_log_the_error_shows_what_matters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(APIServer pid=1) INFO 11-25 23:21:37 [api_utils.py:347] version 0.32.0\n"
        "(EngineCore pid=2) ERROR 11-25 23:21:59 [core.py:133] ValueError: head size 7 is not supported\n"
        "(APIServer pid=1) Traceback (most recent call last):\n"
        "(APIServer pid=1)     raise RuntimeError(\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    error = failure("m", {"state": "failed", "why": "exit", "code": 1, "log": str(log)})
    assert type(error) is EndpointDown
    assert str(error) == (
        f"vLLM did not start with 'm' (exit code 1): ValueError: head size 7 is not supported. Its log: {log}"
    )


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        (
            "ValueError: No available memory for the cache blocks. Try",
            EndpointDown,
            "memory does not suffice",
        ),
        (
            "ValueError: To serve at least one request with the model's max seq len (1024), (0.4 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.1 GiB). Try increasing",
            EndpointDown,
            "memory does not suffice",
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.2/79.1 GiB) on startup is less than desired GPU memory",
            EndpointDown,
            "memory does not suffice",
        ),
        (
            "ValueError: Available memory on node 0 (9.1/23.4 GiB) on startup is less than desired CPU memory",
            EndpointDown,
            "memory does not suffice",
        ),
        ("RuntimeError: Failed to infer device type, please set", EndpointDown, "needs a GPU"),
        ("OSError: [Errno 98] Address already in use", EndpointDown, "port is taken"),
        ("OSError: We couldn't connect to 'https://huggingface.co' to", ModelNotFound, "no such model"),
        (
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate",
            ModelNotFound,
            "no such model",
        ),
        (
            "api_server.py: error: unrecognized arguments: --max-model-lenght 5",
            EndpointDown,
            "refuses its `options`",
        ),
    ],
)
def test_what_vllm_0_32_writes_when_it_cannot_start_is_understood(
    line: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text(
        f"(EngineCore pid=2) ERROR 11-26 02:25:53 [core.py:1193] {line}\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core "
        "proc(s): {'EngineCore': 1}\n"
    )
    found = failure("m", {"state": "failed", "why": "exit", "code": 1, "log": str(log)})
    assert type(found) is error and words in str(found) and line[:40] in str(found)


def test_a_refused_value_is_said_as_vllm_says_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, User-specified max_model_len (4096) is greater than the derived max_model_len (1024).\n"
        "    For further information visit https://errors.pydantic.dev/2.14/v/value_error\n"
    )
    error = failure("m", {"state": "failed", "why": "exit", "code": 1, "log": str(log)})
    assert "(exit code 1): Value error, User-specified max_model_len (4096) is greater" in str(error)


def test_what_a_log_says_calmly_is_no_reason_and_no_secret_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    log = tmp_path / "log"
    log.write_text(
        "WARNING 11-25 23:21:37 [cuda.py:22] ModuleNotFoundError: No module named 'vllm._C'\n"
        "INFO 11-25 23:21:38 [gpu_worker.py:300] Free memory on device cuda:0 (79/80 GiB) on startup.\n"
        "(APIServer pid=1) ValueError: no chat template in hf_verysecret\n"
    )
    error = failure("m", {"state": "failed", "why": "exit", "code": 1, "log": str(log)})
    assert "(exit code 1): ValueError: no chat template in [key]." in str(error)


def test_a_death_is_told_by_the_engine_s_own_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(Worker pid=3) ERROR 11-26 00:47:55 [multiproc_executor.py:1063] RuntimeError: head_dim=16\n"
        "(APIServer pid=1) ERROR 11-26 00:47:56 [async_llm.py:700] vllm.v1.engine.exceptions.EngineDeadError: "
        "EngineCore encountered an issue. See stack trace (above) for the root cause.\n"
        "(APIServer pid=1) INFO 11-26 00:48:02 [core_client.py:777] [shutdown] MPClient: complete\n"
    )
    told = {"state": "ended", "why": "exit", "code": 0, "log": str(log)}
    assert death(told) == "it ended with code 0 (RuntimeError: head_dim=16)"
