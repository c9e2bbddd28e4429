"""The speed scripts run, and what they measure is what they say."""

from __future__ import annotations

from archon.benchmarks.speed import streaming


async def test_streaming_stops_at_the_first_passing_sample_and_waiting_takes_all() -> None:
    found = await streaming.measure(rounds=1)
    assert (found["chosen"], found["stopped"]) == ("sample#5", "early")
    answered, closed = found["early_answered_per_round"], found["early_connections_closed_per_round"]
    assert answered + closed == streaming.SAMPLES and answered > streaming.PASSING
    assert found["early_usage"]["requests"] == streaming.SAMPLES
    assert found["early_usage"]["estimated"] >= closed, "what we cut off while it was being answered, too"
