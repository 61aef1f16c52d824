"""A comparison host by its config's name goes the whole way of a trial, and a wrong name goes none of it."""

import io

import pytest
from rich.console import Console

from salt_lab.errors import SpecError
from salt_lab.record.store import Store
from salt_lab.schedule.executor import SerialExecutor
from salt_lab.schedule.launch import run_study
from salt_lab.spec.study import load_study

STUDY = """
question: who aligns better?
base:
  host: mmdet::tood/tood_r50_fpn_1x_coco.py
  backbone: {name: resnet18, base_channels: 8}
  channels: 64
  head_convs: 1
  data: {kind: marks, train_images: 4, val_images: 2, image_size: 64, classes: 2}
  schedule: {epochs: 1, batch: 2, image_size: [64, 64], optimizer: adamw, lr: 0.001, warmup_iters: 0}
"""


def run(tmp_path, *overrides):
    (tmp_path / "rivals.yaml").write_text(STUDY)
    store = Store(tmp_path / "runs")
    study = load_study(tmp_path / "rivals.yaml", overrides)
    return store, run_study(study, store, SerialExecutor(1), console=Console(file=io.StringIO()))


@pytest.mark.integration
def test_tood_by_its_configs_name_is_trained_measured_and_recorded_as_built(tmp_path):
    store, result = run(tmp_path)
    assert result.complete
    record = store.record(store.trial_ids()[0])
    assert record.trial["host"] == "mmdet::tood/tood_r50_fpn_1x_coco.py"
    built = record.built["effective"]
    assert (built["heads"], built["host"], built["backbone.name"], built["head_convs"]) == ("TOODHead", "tood", "resnet18", 1)
    assert {"loss_cls", "loss_bbox"} <= set(record.epochs[1]["losses"]) and "AP" in record.metrics


@pytest.mark.parametrize("override", ["host=mmdet::tood/tood_r50_1x.py", "host=mmdet::detr/detr_r50_8xb2-150e_coco.py"])
def test_a_host_that_is_not_there_or_lacks_a_toggle_is_refused_before_anything_starts(tmp_path, override):
    with pytest.raises(SpecError, match="host = 'mmdet::"):
        run(tmp_path, override)
    assert not list((tmp_path / "runs").glob("trials/*"))
