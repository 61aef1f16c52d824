"""What every SALT host's seam must do, asked of the head alone: where the operator sits, what its boxes measure, where gradient goes.

Shape legend: P positive locations, R locations of all levels and images (ordered as in ``seam.flat_N4``), H x W cells.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from salt_lab.testing.host_models import batch, build, build_head, features, one, shrink, small, total

#: One object an image, so that each positive's target is known; large enough to be seen on several levels.
ONE_OBJECT = [[[10.0, 6.0, 74.0, 54.0]], [[20.0, 8.0, 84.0, 60.0]]]
#: Parts of the operator through which classification could pull on boxes, were the points not detached.
BOX_PARTS = ("coarse_hidden", "coarse_out", "factors_out", "scales", "reg_align")


def instances(boxes: list[list[list[float]]]) -> tuple[list[Any], list[dict[str, Any]], list[Any]]:
    """What ``loss_by_feat`` takes after the outputs: ground truth, image metas, ignored boxes."""
    _, samples = batch(boxes)
    return [s.gt_instances for s in samples], [s.metainfo for s in samples], [s.ignored_instances for s in samples]


def coarse_of(head: Any, boxes: list[list[list[float]]], shift: float = 0.0) -> list[Tensor]:
    """Per level ``(N, 4, H, W)``: the distances in cells from each of the host's own locations to its image's only box, ``shift`` cells off."""
    levels = []
    for level, feat in enumerate(features(len(boxes))):
        height, width = feat.shape[-2:]
        prior = head.prior_generator.single_level_grid_priors((height, width), level, device="cpu")[:, :4]
        point_HW2 = (prior if prior.shape[1] == 2 else (prior[:, :2] + prior[:, 2:]) / 2).reshape(height, width, 2)
        truth_N4 = torch.tensor(boxes)[:, 0]
        near, far = point_HW2 - truth_N4[:, None, None, :2], truth_N4[:, None, None, 2:] - point_HW2
        stride = head.prior_generator.strides[level][0]
        levels.append(torch.cat([near, far], dim=-1).permute(0, 3, 1, 2) / stride + shift)
    return levels


def positives_of(head: Any, boxes: list[list[list[float]]]) -> Any:
    """The head's positives on a pyramid of noise; the batch's targets are computed on the way."""
    kept: list[Any] = []
    ask = head.positives

    def keep(*args: Any) -> Any:
        kept.append(ask(*args))
        return kept[0]

    head.positives = keep
    head.loss_by_feat(*head(features(len(boxes))), *instances(boxes))
    del head.positives
    return kept[0]


class SeamContract:
    """The half of :class:`~salt_lab.testing.host_contract.HostContract` that needs no backbone."""

    host: ClassVar[str]
    #: the loss of the host whose weight per box is u_i
    refined_loss: ClassVar[str] = "loss_bbox"
    #: does the host itself let the class loss into its boxes (a predicted quality, class features read at predicted points)?
    class_teaches_boxes: ClassVar[bool] = False

    def test_with_an_operator_that_does_nothing_the_head_is_the_hosts_own(self) -> None:
        from salt_lab.models.operator import Aligned

        on, off = build_head(small(self.host, enabled=True), noise=0.05), build(small(self.host)).bbox_head
        missing, surplus = off.load_state_dict(on.state_dict(), strict=False)
        assert not missing and all(name.startswith("salt.") for name in surplus)
        on.salt.forward = lambda x, cls_feat, reg_feat, level: Aligned(cls_feat, reg_feat, x[:, :4], None, None)
        for training in (True, False):
            ours, theirs = (head.train(training)(features()) for head in (on, off))
            assert len(ours) == len(theirs) + training
            for mine, host in zip(ours[: len(theirs)], theirs, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(mine, host, strict=True))
            if training:  # and what the host detaches stays detached
                for maps in (ours[: len(theirs)], theirs):
                    torch.stack([m.sin().sum() for output in maps for m in output]).sum().backward()
        learnt = {name: p.grad for name, p in on.named_parameters()}
        assert all(torch.allclose(learnt[name], p.grad, rtol=1e-4, atol=1e-5) for name, p in off.named_parameters() if p.grad is not None)

    def test_coarse_boxes_are_one_a_cell_in_training_and_gone_in_inference(self) -> None:
        head = build_head(small(self.host, enabled=True))
        pyramid = features(1, 65, 97)
        coarse = head(pyramid)[-1]
        assert [c.shape for c in coarse] == [(1, 4, *x.shape[-2:]) for x in pyramid]
        assert all((c >= 0).all() and c.dtype == torch.float32 for c in coarse)
        with torch.no_grad():
            outputs = head.eval()(pyramid)
        assert outputs[0][0].shape[1] == head.cls_out_channels and len(outputs) < len(head.train()(pyramid))

    def test_coarse_boxes_on_the_ground_truth_cost_nothing_and_half_a_cell_off_they_do(self) -> None:
        head = build_head(small(self.host, enabled=True))
        *outputs, _ = head(features())
        on_it = head.loss_by_feat(*outputs, coarse_of(head, ONE_OBJECT), *instances(ONE_OBJECT))
        off_it = head.loss_by_feat(*outputs, coarse_of(head, ONE_OBJECT, shift=0.5), *instances(ONE_OBJECT))
        assert one(on_it["loss_coarse"]) == pytest.approx(0, abs=1e-5)
        assert one(off_it["loss_coarse"]) > 0.02

    @pytest.mark.parametrize("levels", [(3, 5, 6), (4, 6, 7)])
    def test_only_levels_on_which_the_operator_acts_have_coarse_boxes_to_teach(self, levels: tuple[int, ...]) -> None:
        head = build_head(small(self.host, enabled=True, levels=levels))
        acting = tuple(level - 3 for level in levels)
        assert tuple(head.salt.levels) == acting
        *outputs, coarse = head(features())
        assert all(bool(c.any()) == (level in acting) for level, c in enumerate(coarse))
        truth = coarse_of(head, ONE_OBJECT)
        mixed = [truth[level] if level in acting else coarse[level] for level in range(len(truth))]
        losses = head.loss_by_feat(*outputs, mixed, *instances(ONE_OBJECT))
        assert one(losses["loss_coarse"]) == pytest.approx(0, abs=1e-5)
        if acting[0] > 0:  # the objects are small enough for the finest level to have most positives
            everywhere = build_head(small(self.host, enabled=True))
            assert len(positives_of(head, ONE_OBJECT).weight_P) < len(positives_of(everywhere, ONE_OBJECT).weight_P)

    def test_refined_boxes_are_the_ones_that_the_host_would_predict(self) -> None:
        head = build_head(small(self.host, enabled=True), noise=0.05)
        refined_P4 = []
        for boxes in ONE_OBJECT:  # one image at a time: a positive's frame is where its target is the image's only box
            found = positives_of(head, [boxes])
            size_P = (found.target_P4[:, 2:] - found.target_P4[:, :2]).repeat(1, 2)
            truth_4 = torch.tensor(boxes[0])
            unit_P4 = (truth_4[2:] - truth_4[:2]).repeat(2) / size_P
            refined_P4.append((found.refined_P4.detach() - found.target_P4[:, :2].repeat(1, 2)) * unit_P4 + truth_4[:2].repeat(2))
            assert len(found.target_P4) > 0
            assert len(found.weight_P) == len(found.target_P4) and not found.weight_P.requires_grad and (found.weight_P >= 0).all()
        far = 10_000  # predictions are cut at the image's edge: place the edge far away
        from mmengine.config import ConfigDict

        meta = [dict(img_shape=(far, far), scale_factor=(1.0, 1.0), ori_shape=(far, far), pad_shape=(far, far))]
        cfg = ConfigDict(nms_pre=100_000, score_thr=-1.0, min_bbox_size=-1)
        with torch.no_grad():
            predicted = head.eval().predict_by_feat(*head(features(1)), batch_img_metas=meta, cfg=cfg, with_nms=False)[0].bboxes
        for refined in refined_P4:
            nearest_P = torch.cdist(refined.clamp(min=0), predicted.clamp(min=0), p=float("inf")).amin(dim=1)
            assert nearest_P.max() < 1e-2

    def test_added_losses_weigh_a_location_as_the_hosts_own_box_loss_does(self) -> None:
        head, weights = build_head(small(self.host, enabled=True), noise=0.05), list[Tensor]()

        def keep(_: Any, args: Any, keywords: Any) -> None:
            weights.append(keywords["weight"] if "weight" in keywords else args[2])

        getattr(head, self.refined_loss).register_forward_pre_hook(keep, with_kwargs=True)
        found = positives_of(head, ONE_OBJECT)
        # a host hands its loss one weight a box, or the same for a box's four numbers; where there is no box it is 0
        host_R = torch.cat([w if w.ndim == 1 else w[:, 0] for w in weights])
        assert torch.allclose(found.weight_P, host_R[host_R > 0], rtol=1e-5)

    def test_class_features_send_no_gradient_into_the_box_branch(self) -> None:
        head = build_head(small(self.host, enabled=True))
        kept = []
        handle = head.salt.register_forward_hook(lambda _, __, aligned: kept.append(aligned.cls_feat))
        outputs = head(features())
        handle.remove()
        torch.stack([feat.square().sum() for feat in kept]).sum().backward()
        self._box_branch_is_untouched(head)
        assert head.salt.cls_align.weight.grad.abs().sum() > 0 and head.salt.vectors_out.weight.grad.abs().sum() > 0
        assert outputs[-1][0].requires_grad

    def test_the_class_loss_teaches_the_points_of_its_own_branch_only(self) -> None:
        if self.class_teaches_boxes:
            pytest.skip("this host's own class loss reaches its boxes")
        head = build_head(small(self.host, enabled=True))
        losses = head.loss_by_feat(*head(features()), *instances(ONE_OBJECT))
        total({"loss_cls": losses["loss_cls"]}).backward()
        self._box_branch_is_untouched(head)
        assert head.salt.vectors_out.weight.grad.abs().sum() > 0

    def _box_branch_is_untouched(self, head: Any) -> None:
        names = ("reg_convs.", *(f"salt.{part}." for part in BOX_PARTS))
        parameters = {name: p for name, p in head.named_parameters() if name.startswith(names)}
        assert parameters and {n for n, p in parameters.items() if p.grad is not None and p.grad.any()} == set()

    def test_a_smaller_image_in_a_padded_batch_is_seen_as_if_it_were_alone(self) -> None:
        model = build(small(self.host, enabled=True)).eval()
        model.bbox_head.test_cfg.score_thr = 0.0
        images, samples = batch([[[10.0, 6.0, 74.0, 54.0]], [[8.0, 4.0, 56.0, 44.0]]])
        shrink(images, samples[1], at=1, height=48, width=64)
        with torch.no_grad():
            together = model.predict(images, samples, rescale=False)[1].pred_instances
            alone = model.predict(images[1:], samples[1:], rescale=False)[0].pred_instances
        assert len(together) > 0 and (together.bboxes[:, 2] <= 64).all() and (together.bboxes[:, 3] <= 48).all()
        assert torch.allclose(together.bboxes, alone.bboxes, atol=1e-3) and torch.allclose(together.scores, alone.scores, atol=1e-5)
        losses = model.train().loss(images, samples)
        assert torch.isfinite(total(losses)) and one(losses["loss_coarse"]) > 0
