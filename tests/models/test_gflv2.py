"""GFLv2: what the quality predictor adds to GFL, with and without SALT, and the deformable last tower convolution."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from salt_lab.models import GFLv2Head, SALTGFLHead, SALTGFLv2Head, SALTNetHead
from salt_lab.models.convert import convert_head
from salt_lab.models.gflv2 import QualityPredictor, logit_of_product, quality_statistics

GFLHead, QualityFocalLoss = MODELS.get("GFLHead"), MODELS.get("QualityFocalLoss")
SIZE = (64, 96)
SALT = dict(salt=dict(sdr_weight=1.0))
META = dict(img_shape=SIZE, pad_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1.0, 1.0), ori_shape=SIZE)
BOXES = torch.tensor([[4.0, 4.0, 40.0, 36.0], [50.0, 10.0, 90.0, 60.0]])
WITH_QUALITY = pytest.mark.parametrize(("kind", "more"), [(GFLv2Head, {}), (SALTGFLv2Head, SALT), (SALTNetHead, SALT)])
WITHOUT = pytest.mark.parametrize(
    ("kind", "without", "more"), [(GFLv2Head, GFLHead, {}), (SALTGFLv2Head, SALTGFLHead, SALT)], ids=["plain", "SALT"]
)


def make(kind, stacked_convs=1, **more):
    """A head of three levels and 64 channels, with mmdet's own initialisation."""
    torch.manual_seed(0)
    head = kind(
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=stacked_convs,
        anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32]),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        train_cfg=dict(assigner=dict(type="ATSSAssigner", topk=9), allowed_border=-1, pos_weight=-1),
        **more,
    )
    head.init_weights()
    return head.train()


def wild(head):
    """The same head with weights large enough that scores and distributions differ from place to place."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in head.named_parameters():
            if p.dim() > 1 and not name.startswith("salt."):
                p.normal_(std=2 / p[0].numel() ** 0.5, generator=generator)
    return head


def features():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, 64, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in (8, 16, 32))


def losses(head, boxes=BOXES):
    truth = [InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))] * 2
    return head.loss_by_feat(*head(features()), truth, [META] * 2)


def summed(value):
    return sum(value) if isinstance(value, list) else value


def number(value):
    return float(summed(value).detach())


# --- the predictor ---


def test_a_flat_distribution_has_four_equal_tops_and_a_sharp_one_has_one():
    flat, sharp = torch.zeros(1, 4 * 17, 2, 3), torch.full((1, 4, 17, 2, 3), -100.0)
    sharp[:, :, 5] = 100.0
    assert torch.allclose(quality_statistics(flat, 16), torch.tensor(1 / 17))
    one_side = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.25])
    assert torch.allclose(quality_statistics(sharp.flatten(1, 2), 16), one_side.repeat(4)[None, :, None, None].expand(1, 20, 2, 3))


def test_a_distribution_moved_by_a_bin_has_the_same_quality():
    logits = torch.randn(2, 4, 17, 3, 3)
    predictor = QualityPredictor(16)
    assert torch.allclose(predictor(logits.flatten(1, 2)), predictor(logits.roll(1, dims=2).flatten(1, 2)), atol=1e-6)


def test_each_side_has_statistics_of_its_own():
    logits = torch.randn(1, 4, 17, 1, 1)
    before, logits[:, 2] = quality_statistics(logits.flatten(1, 2), 16), logits[:, 2] * 3
    changed = (quality_statistics(logits.flatten(1, 2), 16) != before).flatten().nonzero().flatten().tolist()
    assert changed == [10, 11, 12, 13, 14]


def test_a_distribution_of_three_bins_is_refused_with_what_to_change():
    with pytest.raises(ValueError, match="reg_max = 2: .* at least 3"):
        QualityPredictor(2)


@pytest.mark.parametrize("a", [-200.0, -20.0, 0.0, 20.0, 200.0])
def test_the_logit_of_a_product_is_finite_with_a_finite_gradient(a):
    pair = torch.tensor([[a, -200.0], [a, 0.0], [a, 200.0]], requires_grad=True)
    logit = logit_of_product(pair[:, 0], pair[:, 1])
    logit.sum().backward()
    assert logit.isfinite().all() and pair.grad.isfinite().all()
    product = pair.detach().double().sigmoid().prod(dim=1)
    assert torch.allclose(logit.detach().double().sigmoid(), product, atol=1e-6)


def test_focal_loss_on_our_logits_is_the_one_on_activated_scores():
    a, b = torch.randn(40, 3), torch.randn(40, 1)
    target = (torch.randint(0, 4, (40,)), torch.rand(40))
    ours = QualityFocalLoss()(logit_of_product(a, b), target)
    assert float(ours) == pytest.approx(float(QualityFocalLoss(activated=True)(a.sigmoid() * b.sigmoid(), target)), rel=1e-5)


# --- the head ---


@WITH_QUALITY
def test_the_score_is_class_score_times_quality_and_the_boxes_know_nothing_of_it(kind, more):
    head = wild(make(kind, **more))
    x, seen = features(), []
    hook = head.gfl_cls.register_forward_hook(lambda module, args, out: seen.append(out.sigmoid()))
    cls_logits, side_logits, *_ = head(x)
    hook.remove()
    for logits, sides, class_score in zip(cls_logits, side_logits, seen, strict=True):
        prob = sides.unflatten(1, (4, 17)).softmax(2).sort(dim=2, descending=True).values[:, :, :4]
        statistics = torch.cat([prob, prob.mean(2, keepdim=True)], 2).flatten(1, 2)
        first, second = head.reg_conf[0], head.reg_conf[2]
        hidden = torch.einsum("oc,nchw->nohw", first.weight[..., 0, 0], statistics) + first.bias[:, None, None]
        quality = (torch.einsum("oc,nchw->nohw", second.weight[..., 0, 0], hidden.relu()) + second.bias[:, None, None]).sigmoid()
        assert quality.std() > 0.01, "a constant quality would prove nothing"
        assert torch.allclose(logits.sigmoid(), class_score * quality, atol=1e-6)
    with torch.no_grad():
        head.reg_conf[2].bias += 3
    assert all(torch.equal(a, b) for a, b in zip(side_logits, head(x)[1], strict=True))


@WITHOUT
def test_with_quality_one_everywhere_it_is_the_head_without_predictor(kind, without, more):
    head, plain = wild(make(kind, **more)), make(without, **more)
    added = plain.load_state_dict(head.state_dict(), strict=False)
    assert added.missing_keys == []
    assert added.unexpected_keys == ["reg_conf.0.weight", "reg_conf.0.bias", "reg_conf.2.weight", "reg_conf.2.bias"]
    with torch.no_grad():
        head.reg_conf[2].weight.zero_()
        head.reg_conf[2].bias.fill_(100.0)
    for ours, theirs in zip(head(features()), plain(features()), strict=True):
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(ours, theirs, strict=True))
    ours, theirs = losses(head), losses(plain)
    assert ours.keys() == theirs.keys()
    assert all(number(ours[k]) == pytest.approx(number(theirs[k]), rel=1e-4) for k in ours)


@WITHOUT
def test_only_with_a_predictor_does_the_class_loss_teach_the_box_distribution(kind, without, more):
    for head, taught in ((wild(make(kind, **more)), True), (wild(make(without, **more)), False)):
        summed(losses(head)["loss_cls"]).backward()
        assert (head.gfl_reg.weight.grad is not None and bool(head.gfl_reg.weight.grad.abs().sum() > 0)) is taught


@WITH_QUALITY
def test_without_objects_only_the_class_loss_is_left_and_gradient_still_reaches_everything(kind, more):
    head = make(kind, **more)
    found = {name: summed(value) for name, value in losses(head, torch.zeros(0, 4)).items()}
    assert {name for name, value in found.items() if value != 0} == {"loss_cls"}
    sum(found.values()).backward()
    assert found["loss_cls"].isfinite() and [n for n, p in head.named_parameters() if p.grad is None] == []


@WITH_QUALITY
def test_it_starts_as_mmdets_heads_do(kind, more):
    head = make(kind, **more)
    for conv in (head.reg_conf[0], head.reg_conf[2], head.cls_convs[0].conv, head.gfl_reg):
        assert float(conv.weight.detach().std()) == pytest.approx(0.01, rel=0.35) and (conv.bias is None or not conv.bias.any())
    score = torch.cat([logits.sigmoid().flatten() for logits in head(features())[0]])
    assert float(score.detach().median()) == pytest.approx(0.01 * 0.5, rel=0.1), "prior 0.01 times a quality of one half"


def test_tower_depth_and_predictor_width_are_arguments():
    assert len(make(SALTNetHead, stacked_convs=2, **SALT).cls_convs) == 2
    assert make(GFLv2Head, conf_channels=16).reg_conf[2].in_channels == 16
    defaults = dict(num_classes=3, in_channels=64, feat_channels=64)
    anchors = dict(anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8]))
    depths = {k: len(k(**defaults, **anchors, **m).reg_convs) for k, m in ((SALTNetHead, SALT), (SALTGFLv2Head, SALT), (GFLv2Head, {}))}
    assert depths == {SALTNetHead: 3, SALTGFLv2Head: 4, GFLv2Head: 4}


# --- DCNv2 as the last tower convolution ---


@WITH_QUALITY
def test_the_last_convolution_of_both_towers_becomes_deformable_and_no_other(kind, more):
    head = make(kind, stacked_convs=2, dcn_on_last_conv=True, **more)
    for tower in (head.cls_convs, head.reg_convs):
        assert [type(layer.conv).__name__ for layer in tower] == ["Conv2d", "ModulatedDeformConv2dPack"]
    found = losses(head)
    sum(summed(value) for value in found.values()).backward()
    assert all(summed(value).isfinite() for value in found.values())
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


def test_a_deformable_tower_starts_as_the_plain_one():
    """Offsets start at zero and the mask at one half, which GroupNorm takes out again."""
    deformable, plain = make(SALTNetHead, stacked_convs=2, dcn_on_last_conv=True, **SALT), make(SALTNetHead, stacked_convs=2, **SALT)
    new = {"cls_convs.1.conv.conv_offset.weight", "cls_convs.1.conv.conv_offset.bias"}
    new |= {name.replace("cls", "reg") for name in new}
    assert set(deformable.state_dict()) - set(plain.state_dict()) == new
    assert not any(deformable.state_dict()[name].any() for name in new)
    plain.load_state_dict({k: v for k, v in deformable.state_dict().items() if k not in new})
    for ours, theirs in zip(deformable(features()), plain(features()), strict=True):
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


def test_a_deformable_kernel_starts_as_small_as_the_others():
    kernel = make(GFLv2Head, dcn_on_last_conv=True).cls_convs[0].conv.weight.detach()
    assert float(kernel.std()) == pytest.approx(0.01, rel=0.1) and float(kernel.abs().max()) > 0.03, "normal, not uniform"


@WITH_QUALITY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_with_deformable_towers(kind, more, dtype):
    head = make(kind, dcn_on_last_conv=True, **more)
    with torch.autocast("cpu", dtype):
        found = losses(head)
    sum(summed(value) for value in found.values()).backward()
    assert all(summed(value).isfinite() for value in found.values())
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_a_deformable_tower_needs_a_tower():
    with pytest.raises(ValueError, match="stacked_convs = 0: .* at least one"):
        make(GFLv2Head, stacked_convs=0, dcn_on_last_conv=True)


# --- weights of the released models ---


def test_released_weights_with_deformable_towers_fit_by_name():
    """What the released heads call these layers (mmcv's ConvModule and DCNv2, and ``reg_conf``) passes the conversion unchanged."""
    names = [f"{tower}.2.{layer}" for tower in ("cls_convs", "reg_convs") for layer in ("conv.weight", "conv.conv_offset.weight")]
    names += ["cls_convs.2.conv.conv_offset.bias", "cls_convs.2.gn.weight", "reg_conf.0.weight", "reg_conf.2.bias", "scales.1.scale"]
    ours = make(SALTNetHead, stacked_convs=3, dcn_on_last_conv=True, **SALT).state_dict()
    released = {name: ours[name] + 1 for name in names}
    converted = convert_head(released)
    assert converted.keys() == released.keys() and all(converted[name] is released[name] for name in names)
