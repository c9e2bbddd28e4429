"""What a vLLM server is asked, and what it tells: capabilities by its own description, figures, and real requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from archon.backends.base import Capabilities, Request, Sampling
from archon.backends.vllm import metrics
from archon.backends.vllm.capabilities import Known, fields, known, needs_fields, number
from archon.engine import EngineFigures
from archon.errors import CapabilityError
from archon.problem import Message

# --- capabilities -----------------------------------------------------------------------------------


def asking(prefix: str = "", **extra: Any) -> Request:
    return Request((Message(role="user", content="q"),), prefix=prefix, sampling=Sampling(extra=extra))


PUBLISHED = frozenset({"messages", "n", "structured_outputs", "priority", "allowed_token_ids"})


def test_a_field_that_a_later_version_renamed_is_refused_with_its_new_name() -> None:
    with pytest.raises(
        CapabilityError, match=r"vLLM 0\.32\.0 has no field 'guided_choice'.*structured_outputs: "
    ):
        Known("0.32.0").check(asking(guided_choice=["yes", "no"]), PUBLISHED, "chat")


def test_a_misspelt_field_is_refused_with_the_nearest_that_there_is() -> None:
    with pytest.raises(CapabilityError, match="Did you mean 'priority'"):
        Known("0.32.0").check(asking(prioritiy=1), PUBLISHED, "chat")


def test_what_the_server_publishes_is_sent() -> None:
    Known("0.32.0").check(asking(priority=1, structured_outputs={"choice": ["a"]}), PUBLISHED, "chat")


def test_a_server_that_publishes_nothing_is_believed_but_for_what_is_known_to_be_gone() -> None:
    Known("0.32.0").check(asking(anything=1, prefix="so"), frozenset(), "chat")
    Known("0.9.2").check(asking(guided_choice=["a"]), frozenset(), "chat")
    for version in ("0.12.0", "0.33.1rc2", ""):
        with pytest.raises(CapabilityError, match="guided_choice"):
            Known(version).check(asking(guided_choice=["a"]), frozenset(), "chat")


def test_a_given_beginning_needs_a_server_that_continues_it() -> None:
    with pytest.raises(CapabilityError, match=r"vLLM 0\.5\.0 cannot continue"):
        Known("0.5.0").check(asking(prefix="so"), PUBLISHED, "chat")
    Known("0.32.0").check(asking(prefix="so"), PUBLISHED | {"continue_final_message"}, "chat")
    Known("0.5.0").check(asking(prefix="so"), PUBLISHED, "completions")  # its prompt simply goes on


def test_plain_requests_need_no_description() -> None:
    assert not needs_fields(asking(), "chat") and not needs_fields(asking(prefix="so"), "completions")
    assert needs_fields(asking(prefix="so"), "chat") and needs_fields(asking(priority=1), "completions")


def test_versions_compare_as_numbers() -> None:
    assert number("0.9.2") < number("0.12.0rc1") == (0, 12, 0) < number("v0.32.0+cpu") < number("")


def test_the_context_is_that_of_the_model_asked() -> None:
    listed = {"data": [{"id": "other", "max_model_len": 9}, {"id": "m", "max_model_len": 1024}]}
    server = known(b'{"version": "0.32.0"}', json.dumps(listed).encode(), "m")
    assert server == Known("0.32.0", 1024)
    assert server.capabilities(Capabilities(max_n=7)) == Capabilities(max_n=7, max_tokens=1024)
    assert server.capabilities(Capabilities(max_tokens=5)).max_tokens == 5


@pytest.mark.parametrize(
    "content", [None, b"", b"<html>", b"[1]", b'{"data": [3], "version": 4}', b'{"paths": {}}']
)
def test_what_is_no_description_tells_nothing(content: bytes | None) -> None:
    assert known(content, content, "m") == Known()
    assert fields(content, "chat") == frozenset()


def test_fields_are_read_by_reference_or_in_place() -> None:
    schema: dict[str, Any] = {"properties": {"n": {}, "seed": {}}}
    for where in ({"$ref": "#/components/schemas/Asked"}, schema):
        body = {"content": {"application/json": {"schema": where}}}
        described = {
            "paths": {"/v1/chat/completions": {"post": {"requestBody": body}}},
            "components": {"schemas": {"Asked": schema}},
        }
        assert fields(json.dumps(described).encode(), "chat") == {"n", "seed"}


# --- figures ----------------------------------------------------------------------------------------

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c}"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 750.0
vllm:prefix_cache_hits_created{engine="0",model_name="m"} 1.79e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 4.0e+02
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 8.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 8.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} NaN
python_gc_objects_collected_total{generation="0"} 1.0
"""


def test_a_page_of_metrics_is_read_and_its_engines_are_added_up() -> None:
    figures = metrics.read(PAGE)
    assert figures == EngineFigures(
        running=5,
        waiting=1,
        finished=7,
        aborted=4,
        prompt_tokens=1000,
        completion_tokens=400,
        looked_up=1000,
        cached=750,
        first_tokens=8,
        first_token_seconds=2.0,
    )
    assert figures.hit_rate == 0.75 and figures.time_to_first_token == 0.25
    assert figures.describe() == (
        "7 sequences, 4 aborted, 75% of 1,000 prompt tokens from the prefix cache, "
        "first token after 0.25 s on average"
    )
    assert EngineFigures.from_json(figures.as_json()) == figures


def test_labels_may_hold_quotes_and_braces() -> None:
    first = next(iter(metrics.samples(PAGE)))
    assert first == ("num_requests_running", {"engine": "0", "model_name": 'a \\"b\\" {c}'}, 3.0)


@pytest.mark.parametrize(
    "page", ["", "<html>404</html>", "python_info 1.0", "vllm:prompt_tokens_total{} many"]
)
def test_a_page_without_figures_of_vllm_s_gives_none(page: str) -> None:
    assert metrics.read(page) is None


def test_a_difference_counts_what_happened_and_keeps_what_is_now() -> None:
    before = EngineFigures(running=2, finished=10, first_tokens=10, first_token_seconds=5.0)
    now = EngineFigures(running=1, waiting=3, finished=14, first_tokens=15, first_token_seconds=6.0)
    since = now - before
    assert (since.running, since.waiting, since.finished, since.time_to_first_token) == (1, 3, 4, 0.2)
    assert since + since == EngineFigures(2, 6, 8, first_tokens=10, first_token_seconds=2.0)
    assert EngineFigures().describe() == "0 sequences"
