"""A small study on disk, and trials that "train" in no time by writing what training writes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from salt_lab.record import FolderRecorder, Store
from salt_lab.spec.study import Study, load_study
from salt_lab.spec.trial import canonical
from salt_lab.testing.recorder_contract import BUILT, DONE, NUMBERS

PROVENANCE = {
    "git_commit": "1a2b3c4d",
    "git_dirty": True,
    "diff_sha256": "d1ff",
    "code_version": "c0de",
    "packages": {"torch": "2.13.0", "ray": None},
    "machine": {"cpu": "Test CPU", "cores": 2, "gpu": None},
    "python": "3.11.7",
}
STUDY = "name: {name}\nquestion: Does SALT help?\nbase: {{host: atss}}\naxes:\n  salt.enabled: [false, true]\nseeds: [0]\n"


@dataclass
class Lab:
    """A results folder with one study of two trials."""

    store: Store
    study: Study
    ids: tuple[str, ...]

    def launch(self) -> str:
        return self.store.new_launch(self.study, self.ids)

    def begin(
        self, i: int, launch_id: str, epochs: range, *, resumed_epoch: int = 0, ap: float = 10.0, study: str | None = None
    ) -> FolderRecorder:
        """Trial ``i`` starts and gets through ``epochs``, with AP ``ap * epoch``."""
        recorder = FolderRecorder(self.store, self.ids[i])
        recorder.start(
            trial=canonical(self.study.trials()[i]),
            study=study or self.study.name,
            launch_id=launch_id,
            data_fingerprint="marks-0123456789ab",
            provenance=PROVENANCE,
            resumed_epoch=resumed_epoch,
        )
        recorder.built(**BUILT)
        for epoch in epochs:
            recorder.epoch(epoch, losses={"loss_cls": 1.0 / epoch}, lr=0.01, seconds=2.0, images_per_second=50.0, memory_mb=250.0)
            recorder.eval(epoch, {**NUMBERS, "AP": ap * epoch, "APl": None})
        return recorder

    def finish(self, recorder: FolderRecorder, ap: float = 20.0) -> None:
        """The trial's last words and files."""
        folder = self.store.trial_dir(recorder.trial_id)
        (folder / "config.py").write_text("model = dict()\n")
        (folder / "train.log").write_text("epoch 1\nepoch 2\n")
        (folder / "detections.json.gz").write_bytes(gzip.compress(b"[]"))
        (folder / "uncommitted.patch").write_text("diff --git a/x b/x\n")
        recorder.done(**{**DONE, "metrics": {**NUMBERS, "AP": ap, "APl": None}})

    def train(self, i: int, launch_id: str, study: str | None = None) -> None:
        """Trial ``i`` from its start to its end, AP 20."""
        self.finish(self.begin(i, launch_id, range(1, 3), study=study))


def make_lab(folder: Path, name: str = "does_salt_help", more: str = "") -> Lab:
    """A study of this name beside its results folder ``runs``."""
    source = folder / f"{name}.yaml"
    source.write_text(STUDY.format(name=name) + more)
    return Lab(Store(folder / "runs"), load_study(source), ("a" * 12, "b" * 12))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


@pytest.fixture
def named_lab(tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """A lab whose study has the test's name: its experiment is its own in a shared MLflow store."""
    return make_lab(tmp_path, request.node.name.replace("[", "-").rstrip("]"))


@pytest.fixture
def compared_lab(tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """As ``named_lab``; trial b is compared with trial a."""
    more = "compare: {baseline: {salt.enabled: false}}\n"
    return make_lab(tmp_path, request.node.name.replace("[", "-").rstrip("]"), more)


@pytest.fixture
def other_study(tmp_path: Path) -> Callable[[Lab, str], Lab]:
    """A second study of the same trials in the same results folder."""

    def make(lab: Lab, name: str) -> Lab:
        return Lab(lab.store, make_lab(tmp_path, name).study, lab.ids)

    return make
