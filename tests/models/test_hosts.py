"""Every SALT host passes the shipped contract."""

from pathlib import Path
from typing import ClassVar

import pytest
from mmdet.registry import MODELS

from salt_lab.compose import compose
from salt_lab.compose.hosts import HOSTS
from salt_lab.spec.parts import SALT_HOSTS
from salt_lab.testing.host_contract import TWO_OBJECTS, HostContract, batch, build, one, small
from salt_lab.testing.host_models import build_head, features


class TestATSS(HostContract):
    host = "atss"
    box_losses = ("loss_bbox", "loss_centerness")


class TestFCOS(HostContract):
    host = "fcos"
    box_losses = ("loss_bbox", "loss_centerness")


class TestPlainFCOS(HostContract):
    host = "fcos_plain"
    box_losses = ("loss_bbox", "loss_centerness")


class TestFoveaBox(HostContract):
    host = "fovea"


class TestGFL(HostContract):
    host = "gfl"
    box_losses = ("loss_bbox", "loss_dfl")


class TestGFLv2(HostContract):
    host = "gflv2"
    box_losses = ("loss_bbox", "loss_dfl")
    differs: ClassVar = {"type": "GFLv2Head"}
    class_teaches_boxes = True


class TestSALTNet(HostContract):
    host = "salt_net"
    box_losses = ("loss_bbox", "loss_dfl")
    differs: ClassVar = {"type": "GFLv2Head", "stacked_convs": 3}
    class_teaches_boxes = True


class TestRetinaNet(HostContract):
    host = "retinanet"
    differs: ClassVar = {"anchor_generator": {"octave_base_scale": 8, "scales_per_octave": 1, "ratios": [1.0]}}


class TestRepPoints(HostContract):
    host = "reppoints"
    box_losses = ("loss_pts_init", "loss_pts_refine")
    refined_loss = "loss_bbox_refine"
    class_teaches_boxes = True


class TestVFNet(HostContract):
    host = "vfnet"
    box_losses = ("loss_bbox", "loss_bbox_rf")
    refined_loss = "loss_bbox_refine"
    class_teaches_boxes = True


def test_every_host_with_the_operator_is_under_contract():
    under_contract = {contract.host for contract in HostContract.__subclasses__()}
    assert under_contract == set(SALT_HOSTS) == {name for name, host in HOSTS.items() if host.salt_head}


def test_the_page_on_adding_a_host_shows_the_file_that_it_made():
    root = Path(__file__).parents[2]
    example = (root / "docs/adding_a_host.md").read_text().split("```python\n")[1].split("```")[0]
    assert example == (root / "salt_lab/models/hosts/fovea.py").read_text()


def test_the_targets_that_the_host_computed_are_not_computed_again(monkeypatch):
    from mmdet.models.dense_heads import ATSSHead

    head, calls, compute = build_head(small("atss", enabled=True)), [], ATSSHead.get_targets
    monkeypatch.setattr(ATSSHead, "get_targets", lambda self, *a, **k: calls.append(1) or compute(self, *a, **k))
    head.loss(features(), batch(TWO_OBJECTS)[1])
    assert calls == [1]


def test_plain_fcos_measures_its_boxes_in_pixels_and_still_trains_the_coarse_ones():
    """The host without norm_on_bbox: targets and predictions are pixels, the coarse distances cells."""
    trial = small("fcos", enabled=True)
    normed, plain = build(trial), build(trial)
    plain.bbox_head.norm_on_bbox = False
    assert one(plain.loss(*batch(TWO_OBJECTS))["loss_coarse"]) > 0
    assert abs(one(plain.loss(*batch(TWO_OBJECTS))["loss_coarse"]) - one(normed.loss(*batch(TWO_OBJECTS))["loss_coarse"])) < 1e-4


def test_retinanet_with_nine_anchors_a_location_is_refused_and_told_what_to_do():
    head = compose(small("retinanet", enabled=True)).model.bbox_head
    head.anchor_generator.update(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"9 anchors: use octave_base_scale=8.*retinanet_9_anchors without SALT"):
        MODELS.build(head)


def test_retinanet_teaches_the_same_coarse_boxes_whether_it_regresses_deltas_or_boxes():
    """With ``reg_decoded_bbox`` the host's targets are boxes, else deltas of the anchor: the coarse box sees one and the same target."""
    deltas, boxes = build_head(small("retinanet", enabled=True)), build_head(small("retinanet", enabled=True))
    boxes.reg_decoded_bbox = True
    a, b = (one(head.loss(features(), batch(TWO_OBJECTS)[1])["loss_coarse"]) for head in (deltas, boxes))
    assert a > 0 and a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("option", [dict(use_grid_points=True), dict(center_init=False)])
def test_reppoints_that_start_from_a_grid_are_refused(option):
    head = compose(small("reppoints", enabled=True)).model.bbox_head
    head.update(option)
    with pytest.raises(ValueError, match="use_grid_points=False and center_init=True"):
        MODELS.build(head)


def test_foveabox_with_its_own_feature_alignment_is_refused():
    head = compose(small("fovea", enabled=True)).model.bbox_head
    head.with_deform = True
    with pytest.raises(ValueError, match="set with_deform=False"):
        MODELS.build(head)
