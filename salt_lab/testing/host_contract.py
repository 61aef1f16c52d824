"""What every SALT host must do. A new host subclasses :class:`HostContract`, says its name, and is done when it passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from salt_lab.spec.trial import Trial
from salt_lab.testing.host_models import CLASSES, TWO_OBJECTS, batch, build, build_head, features, one, small, total
from salt_lab.testing.seam_contract import SeamContract

__all__ = ["CLASSES", "TWO_OBJECTS", "HostContract", "batch", "build", "one", "small", "total"]


def merge(config: Any, changes: Mapping[str, Any]) -> None:
    """Change a config in place, key by key, section by section."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            merge(config[key], value)
        else:
            config[key] = value


class HostContract(SeamContract):
    """Subclass as ``class TestATSS(HostContract): host = "atss"``.

    A host says about itself only what cannot be asked: the names of its box losses, in what its plain head differs from mmdet's config, and
    which of its own ways the tests must allow for.
    """

    box_losses: ClassVar[tuple[str, ...]] = ("loss_bbox",)
    #: in what the host's plain head differs from mmdet's config, as said in the docs
    differs: ClassVar[Mapping[str, Any]] = {}

    def test_off_is_exactly_mmdets_host(self) -> None:
        from salt_lab.compose import compose
        from salt_lab.compose.hosts import host, mmdet_config

        theirs = mmdet_config(host(self.host).config).model
        merge(theirs.bbox_head, self.differs)
        assert compose(Trial.model_validate({"host": self.host, "backbone": {"init": "host"}})).model == theirs

    def test_on_changes_nothing_but_the_head(self) -> None:
        from salt_lab.compose import compose

        off, on = compose(small(self.host)).model, compose(small(self.host, enabled=True)).model
        assert {k for k in on if on[k] != off[k]} == {"bbox_head"}
        assert {k for k in on.bbox_head if on.bbox_head[k] != off.bbox_head.get(k)} == {"type", "salt"}

    def test_a_record_of_the_built_model_names_this_host(self) -> None:
        from salt_lab.train.effective import host_name

        assert host_name(build(small(self.host, enabled=True))) == self.host

    def test_losses_are_finite_and_gradient_reaches_every_parameter(self) -> None:
        model = build(small(self.host, enabled=True))
        losses = model.loss(*batch(TWO_OBJECTS))
        assert {*self.box_losses, "loss_cls", "loss_coarse", "loss_sdr"} <= set(losses)
        assert all(torch.isfinite(torch.tensor(one(v))) for v in losses.values())
        total(losses).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_without_ground_truth_box_losses_are_zero_and_the_class_loss_is_not(self) -> None:
        head = build_head(small(self.host, enabled=True))
        losses = head.loss(features(), batch([[], []])[1])
        for name in (*self.box_losses, "loss_coarse", "loss_sdr"):
            assert one(losses[name]) == 0.0, name
        assert 0 < one(losses["loss_cls"]) < float("inf")
        total(losses).backward()
        # distributed training hangs where a worker without objects leaves out a parameter
        assert [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_boxes_that_are_all_ignored_train_nothing(self) -> None:
        losses = build_head(small(self.host, enabled=True)).loss(features(), batch(TWO_OBJECTS, ignored=True)[1])
        assert all(one(losses[name]) == 0.0 for name in (*self.box_losses, "loss_coarse", "loss_sdr"))
        assert torch.isfinite(total(losses))

    def test_one_empty_image_beside_a_full_one_is_fine(self) -> None:
        losses = build_head(small(self.host, enabled=True)).loss(features(), batch([TWO_OBJECTS[0], []])[1])
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
        head = build_head(small(self.host, enabled=True, points=16, sdr_weight=0.25, coarse_weight=0.75, long_skip=False))
        assert head.salt.reg_align.weight.shape[2] == head.salt.cls_align.weight.shape[2] == 16
        assert (head.sdr_weight, head.coarse_weight, head.salt.long_skip) == (0.25, 0.75, "none")

    def test_the_added_losses_scale_with_their_weights(self) -> None:
        once, twice = (
            build_head(small(self.host, enabled=True, sdr_weight=sdr, coarse_weight=coarse)).loss(features(), batch(TWO_OBJECTS)[1])
            for sdr, coarse in ((1.0, 1.0), (2.0, 3.0))
        )
        assert one(twice["loss_sdr"]) == pytest.approx(2 * one(once["loss_sdr"]), rel=1e-5)
        assert one(twice["loss_coarse"]) == pytest.approx(3 * one(once["loss_coarse"]), rel=1e-5)

    def test_weights_survive_a_round_trip(self) -> None:
        head, other = build_head(small(self.host, enabled=True)), build_head(small(self.host, enabled=True), noise=1.0)
        other.load_state_dict(head.state_dict(), strict=True)
        before, after = (one(total(h.loss(features(), batch(TWO_OBJECTS)[1]))) for h in (head, other))
        assert after == pytest.approx(before, rel=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_stays_finite(self, dtype: torch.dtype) -> None:
        head = build_head(small(self.host, enabled=True))
        with torch.autocast("cpu", dtype):
            losses = head.loss(features(), batch(TWO_OBJECTS)[1])
        total(losses).backward()
        assert torch.isfinite(total(losses))
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)

    def test_two_steps_lower_the_loss_on_one_image(self) -> None:
        model = build(small(self.host, enabled=True))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        images, samples = batch(TWO_OBJECTS[:1])
        values = []
        for _ in range(3):
            loss = total(model.loss(images, samples))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(one(loss))
        assert values[-1] < values[0]
