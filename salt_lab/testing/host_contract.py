"""What every SALT host must do. A new host subclasses :class:`HostContract`, says its name, and is done when it passes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from salt_lab.spec.trial import Trial

CLASSES = 3


def small(host: str, **salt: Any) -> Trial:
    """A trial whose model is small: ResNet-18 with 8 base channels, one convolution a tower, 64 channels.

    With 32 channels GroupNorm would have one value a group on a 1x1 level.
    """
    backbone = {"name": "resnet18", "base_channels": 8}
    return Trial.model_validate({"host": host, "salt": salt or False, "backbone": backbone, "channels": 64, "head_convs": 1})


def build(trial: Trial) -> Any:
    """The trial's model with seeded weights, in training mode."""
    from salt_lab.train.libraries import load_libraries

    load_libraries()
    from mmdet.registry import MODELS

    from salt_lab.compose import compose

    config = compose(trial)
    config.model.bbox_head.num_classes = CLASSES
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.train()
    return model


def batch(boxes_per_image: list[list[list[float]]], height: int = 64, width: int = 96, ignored: bool = False) -> tuple[Tensor, list[Any]]:
    """Images of noise and their ground truth; with ``ignored`` the boxes are ignore regions and nothing else is there."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for boxes in boxes_per_image:
        truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        none = torch.zeros(0, 4)
        meta = dict(img_shape=(height, width), pad_shape=(height, width), batch_input_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta | dict(ori_shape=(height, width)))
        labels = torch.arange(0 if ignored else len(truth)) % CLASSES
        sample.gt_instances = InstanceData(bboxes=none if ignored else truth, labels=labels)
        sample.ignored_instances = InstanceData(bboxes=truth if ignored else none)
        samples.append(sample)
    generator = torch.Generator().manual_seed(5)
    return torch.randn(len(samples), 3, height, width, generator=generator), samples


def total(losses: dict[str, Any]) -> Tensor:
    """Sum of all losses."""
    terms = [t for name, value in losses.items() if "loss" in name for t in (value if isinstance(value, list) else [value])]
    return torch.stack([t.float() for t in terms]).sum()


def one(value: Any) -> float:
    """A loss as a number, summed over levels where it is a list."""
    return float(sum(value) if isinstance(value, list) else value)


TWO_OBJECTS = [[[4.0, 4.0, 40.0, 36.0], [50.0, 10.0, 90.0, 60.0]], [[20.0, 20.0, 44.0, 52.0]]]


class HostContract:
    """Subclass as ``class TestATSS(HostContract): host = "atss"``."""

    host: ClassVar[str]
    plain: ClassVar[bool] = True  #: does the host exist without the operator?
    box_losses: ClassVar[tuple[str, ...]] = ("loss_bbox",)

    def test_off_is_exactly_mmdets_host(self) -> None:
        if not self.plain:
            pytest.skip("this host is its operator")
        from mmdet.registry import MODELS

        from salt_lab.compose import compose
        from salt_lab.compose.hosts import host, mmdet_config
        from salt_lab.train.libraries import load_libraries

        load_libraries()
        theirs = mmdet_config(host(self.host).config).model
        ours = compose(Trial.model_validate({"host": self.host, "backbone": {"init": "host"}})).model
        assert ours == theirs
        assert MODELS.build(ours).state_dict().keys() == MODELS.build(theirs).state_dict().keys()

    def test_on_changes_nothing_but_the_head(self) -> None:
        from salt_lab.compose import compose

        off = compose(small("gfl" if not self.plain else self.host)).model
        on = compose(small(self.host, enabled=True)).model
        assert {k for k in on if on[k] != off[k]} == {"bbox_head"}

    def test_losses_are_finite_and_gradient_reaches_every_parameter(self) -> None:
        model = build(small(self.host, enabled=True))
        losses = model.loss(*batch(TWO_OBJECTS))
        assert all(torch.isfinite(torch.tensor(one(v))) for v in losses.values())
        total(losses).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_without_ground_truth_box_losses_are_zero_and_the_class_loss_is_not(self) -> None:
        model = build(small(self.host, enabled=True))
        losses = model.loss(*batch([[], []]))
        for name in (*self.box_losses, "loss_coarse", "loss_sdr"):
            assert one(losses[name]) == 0.0, name
        assert 0 < one(losses["loss_cls"]) < float("inf")
        total(losses).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_boxes_that_are_all_ignored_train_nothing(self) -> None:
        losses = build(small(self.host, enabled=True)).loss(*batch(TWO_OBJECTS, ignored=True))
        assert all(one(losses[name]) == 0.0 for name in (*self.box_losses, "loss_coarse", "loss_sdr"))
        assert torch.isfinite(total(losses))

    def test_one_empty_image_beside_a_full_one_is_fine(self) -> None:
        losses = build(small(self.host, enabled=True)).loss(*batch([TWO_OBJECTS[0], []]))
        assert torch.isfinite(total(losses)) and one(losses["loss_coarse"]) > 0

    @pytest.mark.parametrize("size", [(65, 97), (33, 50)])
    def test_odd_image_sizes_work_in_training_and_inference(self, size: tuple[int, int]) -> None:
        model = build(small(self.host, enabled=True))
        images, samples = batch([[[2.0, 2.0, 30.0, 30.0]]], *size)
        assert torch.isfinite(total(model.loss(images, samples)))
        with torch.no_grad():
            found = model.eval().predict(images, samples)[0].pred_instances
        assert found.bboxes.shape[1] == 4

    def test_the_toggles_take_effect(self) -> None:
        head = build(small(self.host, enabled=True, points=16, sdr_weight=0.25, coarse_weight=0.75, long_skip=False)).bbox_head
        assert head.salt.reg_align.weight.shape[2] == head.salt.cls_align.weight.shape[2] == 16
        assert (head.sdr_weight, head.coarse_weight, head.salt.long_skip) == (0.25, 0.75, False)

    def test_the_added_losses_scale_with_their_weights(self) -> None:
        once = build(small(self.host, enabled=True, sdr_weight=1.0, coarse_weight=1.0)).loss(*batch(TWO_OBJECTS))
        twice = build(small(self.host, enabled=True, sdr_weight=2.0, coarse_weight=3.0)).loss(*batch(TWO_OBJECTS))
        assert one(twice["loss_sdr"]) == pytest.approx(2 * one(once["loss_sdr"]), rel=1e-5)
        assert one(twice["loss_coarse"]) == pytest.approx(3 * one(once["loss_coarse"]), rel=1e-5)

    def test_weights_survive_a_round_trip(self) -> None:
        model, other = build(small(self.host, enabled=True)), build(small(self.host, enabled=True))
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1.0)
        other.load_state_dict(model.state_dict(), strict=True)
        images, samples = batch(TWO_OBJECTS)
        assert float(total(model.loss(images, samples))) == pytest.approx(float(total(other.loss(images, samples))), rel=1e-5)

    def test_autocast_stays_finite(self) -> None:
        model = build(small(self.host, enabled=True))
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.loss(*batch(TWO_OBJECTS))
        total(losses).backward()
        assert torch.isfinite(total(losses))
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_a_few_steps_lower_the_loss_on_one_image(self) -> None:
        model = build(small(self.host, enabled=True))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        images, samples = batch(TWO_OBJECTS)
        values = []
        for _ in range(4):
            loss = total(model.loss(images, samples))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(float(loss))
        assert values[-1] < values[0]
