"""A config written as text is the config that is read from it."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from salt_lab.compose import compose
from salt_lab.data import prepare
from salt_lab.spec.parts import HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.train.config_text import WIDTH, ReadableConfig, text_of

SMALL = {"kind": "marks", "train_images": 2, "val_images": 2}


def read_back(text: str) -> dict:
    return Config.fromstring(text, ".py").to_dict()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return prepare(Trial(data=SMALL).data, tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("host", [*HOSTS, "mmdet::tood/tood_r50_fpn_1x_coco.py", "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"])
def test_the_config_of_every_host_reads_back_as_it_was(host, paths, tmp_path):
    config = compose(Trial(host=host, data=SMALL), paths, tmp_path)
    text = ReadableConfig.of(config).pretty_text
    assert read_back(text) == config.to_dict()


def test_a_file_dumped_from_it_can_be_loaded_and_holds_later_changes(paths, tmp_path):
    config = compose(Trial(host="fcos", data=SMALL), paths, tmp_path)
    readable = ReadableConfig.of(config)
    config.model.bbox_head.num_classes = 77
    readable.dump(tmp_path / "config.py")
    assert Config.fromfile(tmp_path / "config.py").model.bbox_head.num_classes == 77


@pytest.mark.parametrize(
    "value",
    [
        "it's \"quoted\"\nand broken", "", None, True, -1, 1e-05, float("inf"), (), (8,), [], {}, {"a": {}}, [(1,), [()]],
        {"backbone.layer": {"lr_mult": 0.1}, "plain": 1}, {1: "one", "2": "two"}, {"lambda": 1}, [{"type": "A", "of": [{"type": "B" * WIDTH}]}],
    ],
    ids=repr,
)  # fmt: skip
def test_values_that_configs_hold_read_back_as_they_were(value):
    settings = {"one": value, "many": [value] * 30, "deep": {"in": {"deeper": [value] * 30}}}
    assert read_back(text_of(settings)) == settings


def test_lines_are_no_longer_than_they_must_be():
    text = text_of({"model": {"neck": {"in_channels": list(range(200)), "name": "FPN"}, "small": {"a": [1, 2]}}})
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "    small=dict(a=[1, 2]),\n" in text
