"""Who is stopped at a rung. A trial decides for itself, after its evaluation there, from the journals of its study's other trials.

The rule (asynchronous successive halving, Li et al., MLSys 2020, in the form that stops): of the n trials that have an AP at this rung, this
one included, ``places = ceil(keep * n)`` go on; this one is stopped if that many others have a higher AP. Nobody is asked and nobody
waits, so it works with every executor and on every machine that sees the results folder; equal journals give equal decisions.

What differs from Ray Tune's ASHAScheduler, which is also of the kind that stops and promotes nobody: (ours)

- Ray compares with a percentile of the others alone, from the second trial on. Here a trial counts itself, places are rounded up, and fewer
  than ``min_peers`` others stop nobody: the best of those compared is never stopped.
- Ray takes any report past a rung as that rung's. Here a rung is one epoch that every trial evaluates, and an AP is compared with APs of the
  same epoch, of the same data set, in schedules of the same length, and where the study asks for it within a group (``group: host``).
- Ray's rungs live in the driver's memory, in the order in which reports arrive, with one state for one experiment. Here the journals are
  the rungs: they outlive the driver, later launches compete with earlier ones, and each decision is kept with the APs that it was made from.
- A stopped trial keeps its checkpoint and goes on when the study is run without early stopping. The paper's other form, which pauses trials
  and promotes them later, would need somebody who watches all of them.
- A baseline of the study's comparison is compared with but never stopped: without it all that stand against it lose their delta.

What no form of it can know: a trial that learns late looks bad at an early rung.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salt_lab.record.recorder import Recorder
from salt_lab.record.store import Record, Store
from salt_lab.spec.early_stop import EarlyStop
from salt_lab.spec.trial import flatten

if TYPE_CHECKING:
    from salt_lab.spec.study import Study


@dataclass(frozen=True)
class Verdict:
    """What came out of one comparison, and what it was made from.

    Attributes:
        epoch: the rung.
        ap: the trial's AP there, percent.
        peers: the other trials' APs there, trial id -> percent.
        places: how many of all of them go on.
        threshold: the AP that was needed, the lowest of the ``places`` best; None where there were too few others to ask for any.
        stop: is the trial stopped?
    """

    epoch: int
    ap: float
    peers: Mapping[str, float]
    places: int
    threshold: float | None
    stop: bool

    @property
    def reason(self) -> str:
        """Why, in a line: ``early stopping at epoch 3: AP 12.3, needed 15.0 to be among the best 2 of 6``."""
        total = len(self.peers) + 1
        return f"early stopping at epoch {self.epoch}: AP {self.ap:.1f}, needed {self.threshold:.1f} to be among the best {self.places} of {total}"


def judge(epoch: int, ap: float, peers: Mapping[str, float], rules: EarlyStop, *, protected: bool = False) -> Verdict:
    """Compare one trial with the others at a rung. Pure.

    Args:
        epoch: the rung.
        ap: the trial's AP, percent.
        peers: the others' APs, trial id -> percent.
        rules: the study's.
        protected: never stop it, whatever comes out (a baseline).
    """
    total = len(peers) + 1
    places = max(1, math.ceil(rules.keep * total - 1e-9))
    enough = len(peers) >= rules.min_peers
    threshold = sorted((ap, *peers.values()), reverse=True)[places - 1] if enough else None
    stop = threshold is not None and ap < threshold and not protected
    return Verdict(epoch, ap, dict(sorted(peers.items())), places if enough else total, threshold, stop)


@dataclass(frozen=True)
class Rungs:
    """The rungs of one trial: what to do after each of its evaluations.

    Args:
        store: where the other trials' journals are.
        recorder: the trial's own.
        rules: the study's.
        others: ids of the launch's other trials.
        protected: is it a baseline?
    """

    store: Store
    recorder: Recorder
    rules: EarlyStop
    others: tuple[str, ...]
    protected: bool = False

    @classmethod
    def of(cls, store: Store, recorder: Recorder) -> Rungs | None:
        """The rungs of the launch that started the recorder's attempt; None where it stops nobody early."""
        record = recorder.record()
        launch = _launch(store, record.study, record.launch_id)
        if launch is None or not launch.get("early_stop"):
            return None
        content = dict(launch["early_stop"])
        baselines = content.pop("baselines", [])
        others = tuple(trial["trial_id"] for trial in launch["trials"] if trial["trial_id"] != record.trial_id)
        return cls(store, recorder, EarlyStop.model_validate(content), others, record.trial_id in baselines)

    def after_evaluation(self, epoch: int) -> bool:
        """Decide after the evaluation of ``epoch``, where that is a rung, and write it down. Is the trial to stop here?

        A trial without an AP (nothing to find in its data) is not compared and goes on.
        """
        record = self.recorder.record()
        ap = _ap_at(record, epoch)
        if epoch not in self.rules.rungs or ap is None:
            return False
        verdict = judge(epoch, ap, self._peers(record, epoch), self.rules, protected=self.protected)
        kept: dict[str, Any] = {"ap": verdict.ap, "places": verdict.places, "peers": verdict.peers}
        if verdict.stop and verdict.threshold is not None:
            self.recorder.stopped(epoch, reason=verdict.reason, threshold=verdict.threshold, **kept)
        else:
            self.recorder.rung(epoch, threshold=verdict.threshold, **kept)
        return verdict.stop

    def on_resuming(self, epoch: int) -> bool:
        """Decide about the rung at which an attempt resumes, where the one before died between its evaluation and its decision."""
        return epoch not in self.recorder.record().rungs and self.after_evaluation(epoch)

    def _peers(self, record: Record, epoch: int) -> dict[str, float]:
        mine = _class_of(record, self.rules.group)
        records = (self.store.record(trial_id) for trial_id in self.others)
        found = {other.trial_id: _ap_at(other, epoch) for other in records if other.evals and _class_of(other, self.rules.group) == mine}
        return {trial_id: ap for trial_id, ap in found.items() if ap is not None}


def launch_rules(study: Study, trial_ids: Sequence[str]) -> dict[str, Any] | None:
    """What a launch of ``study`` writes down for its trials to read: the rules, and the ids of the trials that are never stopped.

    Args:
        study: the study.
        trial_ids: of all its trials, in its order.
    """
    if study.early_stop is None:
        return None
    wanted = {cell.baseline for cell in study.cells}
    cells = [cell.key for cell in study.cells for _ in cell.seeds]
    baselines = [trial_id for key, trial_id in zip(cells, trial_ids, strict=True) if key in wanted]
    return {**study.early_stop.model_dump(mode="json"), "baselines": baselines}


def nothing_left(store: Store, trial_id: str, study: str, launch_id: str) -> bool:
    """Has this launch nothing to train of the trial: is it done, or stopped by the same study's early stopping where the launch stops too?"""
    record = store.record(trial_id)
    if record.state != "stopped":
        return record.state == "done"
    launch = _launch(store, study, launch_id)
    return record.is_final(study, early_stopping=bool(launch and launch.get("early_stop")))


def _launch(store: Store, study: str | None, launch_id: str | None) -> dict[str, Any] | None:
    return store.launch(study, launch_id) if study and launch_id else None


def _ap_at(record: Record, epoch: int) -> float | None:
    value = record.evals.get(epoch, {}).get("metrics", {}).get("AP")
    return None if value is None else float(value)


def _class_of(record: Record, keys: Sequence[str]) -> tuple[Any, ...]:
    """Trials compete where this is the same: the data that AP is measured on, the length of the schedule, and what the study asks for."""
    flat = flatten(record.trial)
    return (record.data_fingerprint, flat.get("schedule.epochs"), *(flat.get(key) for key in keys))
