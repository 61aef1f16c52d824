"""What every recorder promises, as a pytest suite. Subclass it, give a ``recorder`` fixture, and the recorder is done when it passes::

class TestMyRecorder(RecorderContract):
    @pytest.fixture
    def recorder(self, tmp_path):
        yield MyRecorder(...)   # fresh, and held by a living process
"""

from __future__ import annotations

from typing import Any

import pytest

from salt_lab.errors import StoreError
from salt_lab.record.fold import COCO_NAMES
from salt_lab.record.recorder import Recorder

NUMBERS: dict[str, float | None] = {name: 30.0 + i for i, name in enumerate(COCO_NAMES)}
START: dict[str, Any] = {
    "trial": {"host": "atss", "salt": {"enabled": True, "points": 9}, "schedule": {"image_size": [112, 112]}, "seed": 0},
    "study": "quickstart",
    "launch_id": "20260101T000000-abcd",
    "data_fingerprint": "marks-0123456789ab",
    "provenance": {"code_version": "c0de", "git_commit": None},
}
BUILT: dict[str, Any] = {"effective": {"salt.points": 9}, "parameters": 1234, "gflops": 1.5, "input_size": (112, 112)}
DONE: dict[str, Any] = {"metrics": NUMBERS, "train_seconds": 12.5, "eval_seconds": 1.5, "peak_memory_mb": 300.0, "epochs": 2}
RUNG: dict[str, Any] = {"ap": 12.5, "threshold": 20.0, "places": 1, "peers": {"b" * 12: 20.0, "c" * 12: 5.0}}


def tell_epoch(recorder: Recorder, epoch: int, loss: float = 1.0, ap: float | None = 10.0) -> None:
    """One trained and evaluated epoch."""
    recorder.epoch(epoch, losses={"loss_cls": loss}, lr=0.01, seconds=2.0, images_per_second=50.0, memory_mb=250.0)
    recorder.eval(epoch, {**NUMBERS, "AP": ap})


class RecorderContract:
    """Subclass with a fixture ``recorder``: a fresh :class:`~salt_lab.record.recorder.Recorder`."""

    @pytest.fixture
    def recorder(self) -> Any:
        """A fresh recorder, held by a living process."""
        raise NotImplementedError("give a fixture 'recorder' that makes a fresh recorder")

    def test_it_is_a_recorder(self, recorder: Recorder) -> None:
        assert isinstance(recorder, Recorder)

    def test_before_the_start_nothing_is_known(self, recorder: Recorder) -> None:
        record = recorder.record()
        assert (record.trial_id, record.state, record.attempt) == (recorder.trial_id, "new", 0)
        assert record.metrics is None and not record.epochs and not record.cost

    def test_a_started_trial_runs_and_is_known_in_full(self, recorder: Recorder) -> None:
        assert recorder.start(**START) == 1
        record = recorder.record()
        assert record.state == "running"
        assert {key: getattr(record, key) for key in START} == START

    def test_what_the_latest_attempt_ran_on_is_kept_where_it_was_told(self, recorder: Recorder) -> None:
        recorder.start(**START)
        assert recorder.record().resources == {}
        recorder.start(**START, resources={"workers": 2, "cpus": 1, "gpus": 0})
        assert recorder.record().resources == {"workers": 2, "cpus": 1, "gpus": 0}

    def test_the_built_model_is_kept(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.built(**BUILT)
        record = recorder.record()
        assert record.built == {**BUILT, "input_size": [112, 112]}
        assert (record.cost["parameters"], record.cost["gflops"]) == (1234, 1.5)

    def test_every_epoch_is_kept_with_its_numbers(self, recorder: Recorder) -> None:
        recorder.start(**START)
        for epoch in (1, 2):
            tell_epoch(recorder, epoch, loss=1.0 / epoch, ap=10.0 * epoch)
        record = recorder.record()
        assert [record.epochs[epoch]["losses"]["loss_cls"] for epoch in (1, 2)] == [1.0, 0.5]
        assert [record.evals[epoch]["metrics"]["AP"] for epoch in (1, 2)] == [10.0, 20.0]

    def test_an_undefined_number_is_none_and_not_zero(self, recorder: Recorder) -> None:
        recorder.start(**START)
        tell_epoch(recorder, 1, loss=float("inf"), ap=float("nan"))
        record = recorder.record()
        assert record.evals[1]["metrics"]["AP"] is None
        assert record.epochs[1]["losses"]["loss_cls"] is None

    def test_an_epoch_trained_twice_counts_once_and_the_later_wins(self, recorder: Recorder) -> None:
        recorder.start(**START)
        tell_epoch(recorder, 1, ap=10.0)
        tell_epoch(recorder, 1, ap=11.0)
        assert list(recorder.record().evals) == [1]
        assert recorder.record().evals[1]["metrics"]["AP"] == 11.0

    def test_epochs_after_the_checkpoint_a_trial_resumed_from_are_not_its_own(self, recorder: Recorder) -> None:
        recorder.start(**START)
        for epoch in (1, 2, 3):
            tell_epoch(recorder, epoch)
        recorder.interrupted("Ctrl-C")
        assert recorder.start(**START, resumed_epoch=2) == 2
        assert list(recorder.record().epochs) == [1, 2]

    @pytest.mark.parametrize("end", ["failed", "interrupted"])
    def test_an_end_before_the_finish_has_a_reason_of_one_line_until_the_next_attempt(self, recorder: Recorder, end: str) -> None:
        recorder.start(**START)
        getattr(recorder, end)("loss is nan\n  at step 7")
        assert (recorder.record().state, recorder.record().reason) == (end, "loss is nan at step 7")
        recorder.start(**START)
        assert (recorder.record().state, recorder.record().reason, recorder.record().attempt) == ("running", None, 2)

    def test_a_rung_that_was_passed_is_kept_with_what_it_was_compared_with(self, recorder: Recorder) -> None:
        recorder.start(**START)
        tell_epoch(recorder, 1, ap=12.5)
        recorder.rung(1, **RUNG)
        record = recorder.record()
        assert record.state == "running" and record.stopped is None
        assert {key: record.rungs[1][key] for key in RUNG} == RUNG

    def test_a_trial_stopped_early_has_its_reason_and_evidence_and_no_final_numbers(self, recorder: Recorder) -> None:
        recorder.start(**START)
        tell_epoch(recorder, 1, ap=12.5)
        recorder.stopped(1, reason="too low\nby far", **RUNG)
        record = recorder.record()
        assert (record.state, record.reason, record.metrics) == ("stopped", "too low by far", None)
        assert record.stopped == {"epoch": 1, "reason": "too low by far", **RUNG}
        assert record.evals[1]["metrics"]["AP"] == 12.5

    def test_a_stop_is_final_for_its_own_study_and_only_while_that_stops_early(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.stopped(1, reason="too low", **RUNG)
        final = recorder.record().is_final
        assert final("quickstart", early_stopping=True)
        assert not final("quickstart", early_stopping=False) and not final("another study", early_stopping=True)

    def test_a_stopped_trial_that_goes_on_is_as_one_that_never_stopped(self, recorder: Recorder) -> None:
        recorder.start(**START)
        tell_epoch(recorder, 1)
        recorder.stopped(1, reason="too low", **RUNG)
        assert recorder.start(**START, resumed_epoch=1) == 2
        assert (recorder.record().state, recorder.record().stopped, recorder.record().reason) == ("running", None, None)
        tell_epoch(recorder, 2)
        recorder.done(**DONE)
        assert (recorder.record().state, list(recorder.record().epochs)) == ("done", [1, 2])

    def test_a_rung_after_the_checkpoint_a_trial_resumed_from_is_still_to_be_decided(self, recorder: Recorder) -> None:
        recorder.start(**START)
        for epoch in (1, 2):
            tell_epoch(recorder, epoch)
            recorder.rung(epoch, **RUNG)
        recorder.interrupted("Ctrl-C")
        recorder.start(**START, resumed_epoch=1)
        assert list(recorder.record().rungs) == [1]

    def test_a_failure_before_the_start_is_a_failure(self, recorder: Recorder) -> None:
        recorder.failed("no such image")
        assert recorder.record().state == "failed"

    def test_a_finished_trial_has_its_numbers_and_costs(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.built(**BUILT)
        recorder.done(**DONE)
        record = recorder.record()
        assert (record.state, record.metrics) == ("done", NUMBERS)
        assert record.cost == {
            "parameters": 1234,
            "gflops": 1.5,
            "train_seconds": 12.5,
            "eval_seconds": 1.5,
            "peak_memory_mb": 300.0,
            "epochs": 2,
        }

    def test_the_inference_time_is_kept_with_the_costs(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.done(**DONE, inference={"ms": 20.0, "p10_ms": 19.0, "p90_ms": 25.0, "repeats": 20})
        kept = {key: value for key, value in recorder.record().cost.items() if key.startswith("inference")}
        assert kept == {"inference_ms": 20.0, "inference_p10_ms": 19.0, "inference_p90_ms": 25.0, "inference_repeats": 20}

    def test_the_training_speed_is_the_median_over_the_epochs_without_the_first(self, recorder: Recorder) -> None:
        recorder.start(**START)
        for epoch, speed in enumerate((10.0, 50.0, 54.0), start=1):
            recorder.epoch(epoch, losses={"loss_cls": 1.0}, lr=0.01, seconds=2.0, images_per_second=speed, memory_mb=250.0)
            assert recorder.record().cost["train_images_per_second"] == {1: 10.0, 2: 50.0, 3: 52.0}[epoch]

    def test_done_is_final(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.done(**DONE)
        with pytest.raises(StoreError, match="final"):
            recorder.start(**START)
        recorder.failed("too late")
        assert (recorder.record().state, recorder.record().metrics) == ("done", NUMBERS)

    def test_a_code_change_between_two_attempts_is_remembered(self, recorder: Recorder) -> None:
        recorder.start(**START)
        recorder.start(**{**START, "provenance": {"code_version": "other"}})
        assert recorder.record().code_versions == ("c0de", "other")

    def test_what_was_told_cannot_be_changed_afterwards(self, recorder: Recorder) -> None:
        numbers = dict(NUMBERS)
        recorder.start(**START)
        recorder.eval(1, numbers)
        numbers["AP"] = 99.0
        assert recorder.record().evals[1]["metrics"]["AP"] == NUMBERS["AP"]
