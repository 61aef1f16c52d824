"""Comparison hosts: each builds small, learns from one image, survives images without objects, and finds boxes, with the portable ops."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub

from salt_lab.compose import compose
from salt_lab.spec.parts import PLAIN_HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.testing.host_contract import CLASSES, TWO_OBJECTS, batch, build, small, total
from salt_lab.train.effective import host_name

SMALL = {"name": "resnet18", "base_channels": 8}


@pytest.fixture(autouse=True)
def a_training_run():
    """TOOD asks mmengine's message hub, where a runner's hook writes it, for the epoch."""
    hub = MessageHub.get_instance("test_rivals")
    hub.update_info("epoch", 0)
    return hub


@pytest.mark.parametrize("host", PLAIN_HOSTS)
def test_two_steps_lower_the_loss_on_one_image_and_boxes_come_out(host):
    model = build(small(host))
    assert host_name(model) == host
    learns_and_finds(model)


@pytest.mark.parametrize(
    ("config", "toggles"),
    [
        ("foveabox/fovea_r50_fpn_4xb4-1x_coco.py", {"channels": 64, "head_convs": 1}),
        ("yolof/yolof_r50-c5_8xb8-1x_coco.py", {"channels": 64}),
        ("yolox/yolox_tiny_8xb8-300e_coco.py", {"channels": 32, "head_convs": 1}),
    ],
)
def test_a_host_by_its_configs_name_learns_too(config, toggles):
    learns_and_finds(build(Trial.model_validate({"host": f"mmdet::{config}", "backbone": SMALL, **toggles})))


def learns_and_finds(model):
    """Two steps on one image lower the loss; then boxes of known classes."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, samples = batch([TWO_OBJECTS[0]])
    values = []
    for _ in range(3):
        loss = total(model.loss(images, samples))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] < float("inf")
    with torch.no_grad():
        found = model.eval().predict(images, samples)[0].pred_instances
    assert found.bboxes.shape[1] == 4 and found.bboxes.isfinite().all() and set(found.labels.tolist()) <= set(range(CLASSES))


@pytest.mark.parametrize("host", PLAIN_HOSTS)
def test_images_without_objects_teach_the_background_alone(host):
    model = build(small(host))
    for truth in ([[], []], [TWO_OBJECTS[0], []]):
        loss = total(model.loss(*batch(truth)))
        loss.backward()
        assert 0 < float(loss.detach()) < float("inf")
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_tood_assigns_by_alignment_after_its_first_epochs(a_training_run):
    """Its first 4 epochs use ATSS's assignment; the epoch comes from the runner."""
    model = build(small("tood"))
    torch.manual_seed(0)
    early = float(total(model.loss(*batch(TWO_OBJECTS))).detach())
    a_training_run.update_info("epoch", 4)
    assert float(total(model.loss(*batch(TWO_OBJECTS))).detach()) != pytest.approx(early, rel=1e-3)


def test_a_two_stage_host_learns_with_the_portable_roi_align():
    config = compose(Trial.model_validate({"host": "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "backbone": SMALL, "channels": 32}))
    config.model.roi_head.bbox_head.update(num_classes=CLASSES, fc_out_channels=32)
    torch.manual_seed(0)
    learns_and_finds(MODELS.build(config.model).train())
