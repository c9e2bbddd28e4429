"""`archon tune` over a toy engine on a virtual clock: every throughput and latency is exact, and no time passes."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import click
import pytest

from archon.benchmarks.tuning.pictures import draw
from archon.config import load
from archon.errors import ConfigError, UserError
from archon.strategies.sample import Sample
from tests.benchmarks.tuned import FILE, Engine, Toy, Tuned, forget


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tuned:
    forget()
    return Tuned(tmp_path, monkeypatch)


def options(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial["configuration"] for trial in told["trials"]]


def trial(told: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    (found,) = [one for one in told["trials"] if one["configuration"] == wanted]
    return dict(found)


# --- what it finds -------------------------------------------------------------------------------------


def test_the_winner_has_the_most_throughput_and_its_figures_are_of_fresh_starts(tuned: Tuned) -> None:
    told = tuned.told()
    best = told["best"]
    assert best["configuration"] == {"slots": 16, "pace": 0.5}
    assert best["throughput"] == pytest.approx(
        {"value": 16.0, "low": 16.0, "high": 16.0, "over": "starts", "count": 2}
    ), "8 requests of 10 tokens in 5 seconds"
    assert best["latency"]["p95"] == pytest.approx(5.0) and best["latency"]["requests"] == 2 * 2 * 8
    ratio = told["confirmation"]["ratio"]
    assert ratio["value"] == pytest.approx(8.0), "the default serves two at once, at twice the time"
    assert told["confirmation"]["verdict"] == "better" and ratio["pairs"] == 2
    assert told["baseline"]["model"] == {"backend": "toy"}, "what is chosen is left to the engine"
    assert {*told["importance"]} == {"slots", "pace"}
    assert [path.name for path in draw(told, tuned.folder)] == ["trials.png", "importance.png"]


def test_the_winner_is_a_configuration_that_archon_run_reads(tuned: Tuned) -> None:
    tuned.told()
    config = load(tuned.folder / "tuned" / "best.yaml")
    assert config.models["default"] == Toy(slots=16, pace=0.5)
    assert config.pipeline.nodes[0].stage == Sample(max_tokens=10)


def test_what_is_over_the_latency_limit_never_wins(tuned: Tuned) -> None:
    file = FILE.replace("slots: {choose", "per_slot: 0.5\n    slots: {choose")
    free = tuned.told(file.replace("limits: {latency: 30}", "limits: {}"), name="free")
    assert free["best"]["configuration"]["slots"] == 4, "one after the other is slow, and so is all at once"
    limit = free["best"]["latency"]["p95"] - 1
    told = tuned.told(file.replace("latency: 30", f"latency: {limit}"), name="limited", code=1)
    assert told["best"] is None and not (tuned.folder / "limited" / "best.yaml").exists()
    over = trial(told, slots=4, pace=0.5)
    assert not over["within"] and f"no more than {limit:g} s is allowed" in over["reason"]
    found = tuned.run(file.replace("latency: 30", f"latency: {limit}"), name="limited")
    assert "no configuration is within the limits" in found.output


def test_the_load_may_be_chosen_and_the_baseline_has_that_of_the_winner(tuned: Tuned) -> None:
    file = FILE.replace("concurrency: 8", "concurrency: {choose: [1, 4, 8]}").replace(
        "slots: {choose: [1, 4, 16]}\n    pace: {choose: [1.0, 0.5]}", "slots: {choose: [2, 4]}"
    )
    told = tuned.told(file.replace("latency: 30", "latency: 15"))
    assert told["best"]["configuration"] == {"slots": 4, "concurrency": 4}, "with 8, half of them would wait"
    assert told["best"]["in_flight"] == told["confirmation"]["baseline"]["in_flight"] == 4
    assert told["baseline"]["in_flight"] == 1, "the first that is named"
    assert told["workload"]["concurrency"] == [1, 4, 8]
    assert "allowed" in told["confirmation"]["baseline"]["over_limit"]
    assert trial(told, slots=4, concurrency=8)["state"] == "pruned"


def test_requests_per_second_may_be_wanted_instead(tuned: Tuned) -> None:
    told = tuned.told(FILE + "objective: request_throughput\n")
    assert told["best"]["throughput"]["value"] == pytest.approx(1.6) and told["unit"] == "requests/s"


def test_where_the_baseline_is_better_it_is_what_is_written(tuned: Tuned) -> None:
    file = FILE.replace(
        "slots: {choose: [1, 4, 16]}\n    pace: {choose: [1.0, 0.5]}", "pace: {choose: [1.1]}"
    )
    told = tuned.told(file.replace("latency: 30", "latency: 50"))
    assert told["confirmation"]["verdict"] == "worse" and told["recommended"] == "baseline"
    assert told["confirmation"]["ratio"]["value"] == pytest.approx(1 / 1.1)
    assert load(tuned.folder / "tuned" / "best.yaml").models["default"] == Toy()


def test_where_nothing_keeps_up_with_the_baseline_it_is_what_is_written(tuned: Tuned) -> None:
    file = FILE.replace("slots: {choose: [1, 4, 16]}\n    pace: {choose: [1.0, 0.5]}", "slots: {choose: [1]}")
    told = tuned.told(file.replace("latency: 30", "latency: 50"))
    assert told["best"] is None and told["recommended"] == "baseline"
    assert load(tuned.folder / "tuned" / "best.yaml").models["default"] == Toy()


def test_a_finalist_that_is_over_the_limit_when_confirmed_gives_way_to_the_next(tuned: Tuned) -> None:
    file = FILE.replace(
        "slots: {choose: [1, 4, 16]}\n    pace: {choose: [1.0, 0.5]}",
        "slots: 8\n    pace: {choose: [0.3, 0.6]}\n    tires: {optional: 1.0, where: {pace: [0.3]}}",
    ).replace("latency: 30", "latency: 9")
    file = file.replace("count: 2", "count: 2, margin: 0.9")
    told = tuned.told(file)
    assert len(told["refused"]) == 1 and "pace=0.3: its p95 latency is 12 s" in told["refused"][0]
    assert told["best"]["configuration"] == {"pace": 0.6} and told["best"]["throughput"][
        "value"
    ] == pytest.approx(80 / 6)
    forget()
    alone = tuned.told(file.replace("latency: 9", "latency: 8") + "finalists: 1\n", name="alone", code=1)
    assert alone["best"] is None and len(alone["refused"]) == 1


def test_without_a_confirmation_it_says_that_the_figure_is_too_high(tuned: Tuned) -> None:
    found = tuned.run(FILE.replace("confirm: 2", "confirm: 0"))
    assert "not confirmed" in found.output and found.return_value == 0


# --- how it measures -----------------------------------------------------------------------------------


def test_one_engine_runs_at_a_time_and_all_are_asked_the_same(tuned: Tuned) -> None:
    told = tuned.told()
    assert Engine.most_running == 1 and Engine.running == 0
    assert len(Engine.asked) == told["starts"]["count"] == 1 + 6 + told["states"]["complete"] + 4
    plain = [[text.split(" ", 1)[1] for text in asked] for asked in Engine.asked]
    probes, warm, rounds = plain[0][:2], 8, 8
    whole = [asked for asked in [plain[0][2:], *plain[1:]] if len(asked) == warm + 2 * rounds]
    assert len({tuple(sorted(asked[:warm])) for asked in whole}) == 1, "warmed up alike"
    firsts = {tuple(sorted(asked[warm : warm + rounds])) for asked in whole}
    assert len(firsts) == 1 + 1 + 2, "the trials', the finalists', and each pair's"
    assert len(probes) == 2
    for asked in Engine.asked:
        assert len(set(asked)) == len(asked), "nothing is asked twice of an engine"
    tags = [{text.split(" ", 1)[0] for text in asked[-8:]} for asked in Engine.asked]
    assert len(set.union(*tags)) == len(tags), "this engine might outlive us: a tag per measurement"


def test_prompts_have_about_the_tokens_that_were_asked_for(tuned: Tuned) -> None:
    told = tuned.told(FILE.replace("prompt_tokens: 40", "prompt_tokens: [30, 50]"))
    assert 30 <= told["best"]["prompt_tokens"] - 1 <= 50, "the tag is a word"
    assert told["best"]["completion_tokens"] == 10
    lengths = {len(text.split()) + 5 for text in Engine.asked[-1]}
    assert len(lengths) > 3 and min(lengths) >= 31 and max(lengths) <= 51


def test_winner_and_baseline_are_started_in_alternating_order(tuned: Tuned) -> None:
    told = tuned.told()
    assert [pair["first"] for pair in told["confirmation"]["pairs"]] == ["winner", "baseline"]
    last = [{"slots": one.slots, "pace": one.pace} for one in Engine.options[-4:]]
    winner, baseline = {"slots": 16, "pace": 0.5}, {"slots": 2, "pace": 1.0}
    assert last == [winner, baseline, baseline, winner]


def test_what_is_far_behind_gets_no_more_rounds(tuned: Tuned) -> None:
    told = tuned.told(FILE.replace("latency: 30", "latency: 1000"))
    slow = trial(told, slots=1, pace=0.5)
    assert slow["state"] == "complete", "as fast as the baseline, two at once at half the pace"
    slowest = trial(told, slots=1, pace=1.0)
    assert slowest["state"] == "pruned" and slowest["rounds"] == 1
    assert "1 tokens/s after 1 of 2 rounds, where baseline had 2" in slowest["reason"]
    assert told["best"]["configuration"] == {"slots": 16, "pace": 0.5}


def test_a_round_that_takes_for_ever_is_cut_off(tuned: Tuned) -> None:
    told = tuned.told(
        FILE.replace("[1.0, 0.5]", "[1.0, 1000000.0]").replace("latency: 30", "latency: 1000000000")
    )
    slow = trial(told, slots=4, pace=1000000.0)
    assert slow["state"] == "pruned" and "more than 4 times those of" in slow["reason"]
    assert slow["throughput"] == 0.0


def test_a_configuration_that_does_not_start_is_a_failed_trial_and_the_others_go_on(tuned: Tuned) -> None:
    told = tuned.told(FILE.replace("pace: {choose: [1.0, 0.5]}", "starts: {choose: [false, true]}"))
    assert told["states"]["failed"] == 3 and told["best"]["configuration"] == {"slots": 16, "starts": True}
    assert "it ran out of memory. The end of its log" in trial(told, slots=4, starts=False)["reason"]
    assert Engine.running == 0


def test_a_configuration_whose_requests_fail_is_a_failed_trial(tuned: Tuned) -> None:
    told = tuned.told(FILE.replace("pace: {choose: [1.0, 0.5]}", "serves: {choose: [false, true]}"))
    assert "8 of 8 requests failed: this request is too long" in trial(told, slots=4, serves=False)["reason"]
    assert told["best"]["configuration"]["serves"] is True


def test_where_nothing_starts_it_gives_up_and_says_why(tuned: Tuned) -> None:
    file = FILE.replace("engine:\n  toy:\n", "engine:\n  toy:\n    starts: false\n")
    found = tuned.run(file)
    assert found.return_value == 1
    assert "none of the first 5 could be measured" in found.output and "out of memory" in found.output
    assert len(Engine.asked) == 5


def test_where_only_the_baseline_does_not_start_there_is_a_winner_and_no_comparison(tuned: Tuned) -> None:
    told = tuned.told(
        FILE.replace("pace: {choose: [1.0, 0.5]}", "starts: {choose: [true]}") + "baseline: {slots: 4}\n"
    )
    assert told["confirmation"]["ratio"] is not None
    broken = FILE.replace("pace: {choose: [1.0, 0.5]}", "starts: {choose: [true, false]}")
    told = tuned.told(broken + "baseline: {starts: false}\n", name="broken")
    assert told["confirmation"]["ratio"] is None and told["confirmation"]["verdict"] == "unknown"
    assert "out of memory" in told["confirmation"]["baseline"]["failed"]
    assert sum(not one.starts for one in Engine.options) == 1 + 3 + 1, "it is not started in every pair"


# --- going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [3, 11])
def test_one_that_was_ended_goes_on_and_measures_nothing_twice(tuned: Tuned, starts: int) -> None:
    whole = tuned.told(name="whole")
    forget()
    Engine.ends_after = starts
    ended = tuned.run(name="ended")
    assert isinstance(ended.exception, KeyboardInterrupt | click.Abort)
    assert Engine.running == 0
    Engine.ends_after = None
    told = tuned.told(name="ended")
    assert len(Engine.asked) == whole["starts"]["count"]
    for key in ("best", "confirmation", "trials", "requests", "starts", "tokens", "importance"):
        assert told[key] == whole[key], key
    again = tuned.told(name="ended")
    assert again == told and len(Engine.asked) == whole["starts"]["count"], "nothing is left to measure"


def test_more_trials_go_on_from_those_that_were_made(tuned: Tuned) -> None:
    file = FILE.replace("latency: 30", "latency: 1000")
    few = tuned.told(file, "--trials", "2")
    more = tuned.told(file, "--trials", "4")
    assert options(more)[:2] == options(few) and len(more["trials"]) == 4


def test_another_workload_needs_another_folder(tuned: Tuned) -> None:
    tuned.told()
    found = tuned.run(FILE.replace("max_tokens: 10", "max_tokens: 11"))
    assert isinstance(found.exception, UserError) and "workload" in str(found.exception)


def test_two_at_once_are_refused(tuned: Tuned) -> None:
    (tuned.folder / "tuned").mkdir()
    with (tuned.folder / "tuned" / "tune.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = tuned.run()
    assert "another process tunes into" in str(found.exception)


# --- what is refused before anything starts ------------------------------------------------------------


def test_a_dry_run_says_what_it_would_cost_and_starts_nothing(tuned: Tuned) -> None:
    found = tuned.run(FILE, "--dry-run")
    assert "6 configurations" in found.output and "slots: one of 1, 4, 16" in found.output
    assert (
        "at most 14 starts (1 baseline, 6 trials, 3 finalists, 2 x 2 to confirm) and 224 requests"
        in found.output
    )
    assert not Engine.asked and not (tuned.folder / "tuned").exists()


def test_what_changes_answers_is_refused_unless_it_is_allowed(tuned: Tuned) -> None:
    file = FILE.replace("pace: {choose: [1.0, 0.5]}", "dialect: {choose: [plain, odd]}")
    refused = tuned.run(file)
    assert "'dialect' may change what the model answers" in str(refused.exception)
    assert "may_change_answers: [dialect]" in str(refused.exception)
    told = tuned.told(file + "may_change_answers: [dialect]\n")
    assert any("dialect" in note and "accuracy" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("option", "silent"),
    [
        ("max_num_seqs: {choose: [16, 64]}", True),
        ("max_num_batched_tokens: {range: [512, 8192], log: true, integer: true}", True),
        ("enable_chunked_prefill: {choose: [true, false]}", True),
        ("dtype: {choose: [float16, bfloat16]}", False),
        ("quantization: {optional: fp8}", False),
        ("max_model_len: {range: [1024, 4096], integer: true}", False),
    ],
)
def test_of_vllm_s_options_some_change_answers(tuned: Tuned, option: str, silent: bool) -> None:
    file = f"engine: {{vllm: {{model: some/model, options: {{{option}}}}}}}\nworkload: {{concurrency: 4}}\n"
    found = tuned.run(file, "--dry-run")
    assert (found.exception is None) is silent, found.output
    if not silent:
        assert "may change what the model answers" in str(found.exception)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("slots:", "slotss:", "Did you mean 'slots'?"),
        ("[1, 4, 16]", "[1, many]", "engine.toy.slots"),
        ("engine:\n  toy:", "engine:\n  toyy:", "toyy"),
        ("workload:", "workloads:", "Did you mean 'workload'?"),
        ("max_tokens: 10", "max_token: 10", "Did you mean 'max_tokens'?"),
        ("max_tokens: 10", "max_tokens: [20, 10]", "the least is above the most"),
        ("max_tokens: 10", "pipeline: best_of_n", "name one by `benchmark:`"),
        ("concurrency: 8", "concurrency: 9", "9 requests cannot be in flight where a round has 8"),
        ("concurrency: 8", "concurrency: {range: [1, 8]}", "integer: true"),
        ("concurrency: 8", "concurrency: {choose: [0, 8]}", "from 1"),
        ("proposer: grid", "proposer: grit", "grid"),
        ("confirm: 2", "baseline: {slot: 1}", "Did you mean 'slots'?"),
        ("confirm: 2", "may_change_answers: [slotz]", "Did you mean 'slots'?"),
        ("trials: 6", "", "an effort is `trials:`, `minutes:`, or both"),
        ("confirm: 2", "models: {default: {backend: nano}}", "the engine that is tuned"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_what_to_do(
    tuned: Tuned, before: str, after: str, says: str
) -> None:
    assert before in FILE
    found = tuned.run(FILE.replace(before, after), "--dry-run")
    assert isinstance(found.exception, ConfigError), found.output
    assert says in str(found.exception) and "engine.yaml" in str(found.exception)


def test_a_file_without_choices_is_refused(tuned: Tuned) -> None:
    found = tuned.run("engine: {toy: {slots: 2}}\n", "--dry-run")
    assert "no field has a mark" in str(found.exception)
    found = tuned.run("workload: {requests: 8}\n", "--dry-run")
    assert "`engine` is missing" in str(found.exception)


def test_an_engine_in_our_own_process_is_refused(tuned: Tuned) -> None:
    file = "engine: {vllm: {model: m, in_process: true, options: {max_num_seqs: {choose: [1, 2]}}}}\n"
    found = tuned.run(file, "--dry-run")
    assert "without `in_process`" in str(found.exception)


def test_a_load_above_a_round_is_never_proposed(tuned: Tuned) -> None:
    told = tuned.told(FILE.replace("concurrency: 8", "concurrency: {choose: [2, 8, 64]}"), "--trials", "30")
    assert {one["concurrency"] for one in options(told)} == {2, 8}
