"""Each part of the operator, switched off by itself, leaves exactly the next simpler model."""

import pytest
import torch

from salt_lab.models.losses import Positives, added_losses, sdr_loss_sum
from salt_lab.models.operator import SALT
from salt_lab.ops.points import kernel_order
from salt_lab.spec.trial import SALT_HOSTS
from salt_lab.testing.host_contract import build, small

C = 32


def operator(**parts):
    """An operator with lively weights; what two of them have in common is equal."""
    salt = SALT(C, num_levels=2, **parts).double().eval()
    for name, parameter in salt.named_parameters():
        if parameter.dim() > 1:
            seed = sum(map(ord, name))
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.1
    return salt


def features():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, C, 9, 11, dtype=torch.float64, generator=generator) for _ in range(3)]


def run(level=0, **parts):
    with torch.no_grad():
        return operator(**parts)(*features(), level)


def same(one, other):
    return torch.equal(one, other)


def test_r_points_alone_leave_the_class_feature_to_the_host():
    x, cls_feat, _ = features()
    alone, full = run(cls_at="cell", long_skip="none"), run()
    assert same(alone.cls_feat, cls_feat) and alone.c_points_NK2HW is None
    assert same(alone.reg_feat, full.reg_feat) and same(alone.r_points_NK2HW, full.r_points_NK2HW)
    assert same(run(cls_at="cell").cls_feat, cls_feat + x)


def test_c_points_alone_leave_the_box_feature_to_the_host():
    reg_feat = features()[2]
    alone, full = run(reg_at="cell"), run()
    assert same(alone.reg_feat, reg_feat)
    assert same(alone.cls_feat, full.cls_feat) and same(alone.c_points_NK2HW, full.c_points_NK2HW)


def test_class_features_at_r_points_are_c_points_whose_vectors_are_zero():
    still = operator()
    torch.nn.init.zeros_(still.vectors_out.weight)
    with torch.no_grad():
        moved_nowhere = still(*features(), 0)
    at_r_points = run(cls_at="r_points")
    assert same(at_r_points.c_points_NK2HW, at_r_points.r_points_NK2HW)
    assert same(at_r_points.cls_feat, moved_nowhere.cls_feat)


def test_nothing_gathered_leaves_both_features_and_still_predicts_the_coarse_box():
    _, cls_feat, reg_feat = features()
    bare = run(reg_at="cell", cls_at="cell", long_skip="none")
    assert same(bare.cls_feat, cls_feat) and same(bare.reg_feat, reg_feat)
    assert same(bare.coarse_N4HW, run().coarse_N4HW)


def test_a_part_that_is_off_has_no_parameters():
    def parts(**toggles):
        return {name.split(".")[0] for name, _ in SALT(C, **toggles).named_parameters()}

    everything = {
        "coarse_hidden", "coarse_out", "factors_out", "vectors_hidden", "vectors_out", "reg_align", "cls_align", "scales",
    }  # fmt: skip
    assert parts() == everything
    assert everything - parts(cls_at="cell") == {"vectors_hidden", "vectors_out", "cls_align"}
    assert everything - parts(cls_at="r_points") == {"vectors_hidden", "vectors_out"}
    assert everything - parts(reg_at="cell") == {"reg_align"}
    assert parts(reg_at="cell", cls_at="cell") == {"coarse_hidden", "coarse_out", "scales"}
    assert len(list(SALT(C, levels=[1, 2]).scales.parameters())) == 2


@pytest.mark.parametrize(("skip", "cls_adds", "reg_adds"), [("none", 0, 0), ("cls", 1, 0), ("reg", 0, 1), ("both", 1, 1)])
def test_a_long_skip_is_the_operator_without_it_on_features_that_hold_the_sum(skip, cls_adds, reg_adds):
    x, cls_feat, reg_feat = features()
    with torch.no_grad():
        by_hand = operator(long_skip="none")(x, cls_feat + cls_adds * x, reg_feat + reg_adds * x, 0)
    skipped = run(long_skip=skip)
    assert same(skipped.cls_feat, by_hand.cls_feat) and same(skipped.reg_feat, by_hand.reg_feat)


def test_on_a_level_where_it_does_not_act_the_features_pass_and_elsewhere_nothing_changes():
    _, cls_feat, reg_feat = features()
    idle, acting, full = run(level=1, levels=[0]), run(level=0, levels=[0]), run(level=0)
    assert same(idle.cls_feat, cls_feat) and same(idle.reg_feat, reg_feat) and idle.coarse_N4HW.sum() == 0
    assert all(same(a, b) for a, b in zip(acting, full, strict=True))


def test_a_level_that_the_host_does_not_have_is_refused():
    with pytest.raises(ValueError, match="the host has the levels 0 to 4"):
        SALT(C, levels=[5])


def test_without_the_stop_the_same_points_pull_on_the_regression_branch():
    pulls = {}
    for stop in (True, False):
        salt = operator(stop_gradient=stop)
        out = salt(*features(), 0)
        out.cls_feat.square().sum().backward()
        pulls[stop] = (out.cls_feat.detach(), salt.coarse_out.weight.grad)
    assert same(pulls[True][0], pulls[False][0])
    assert pulls[True][1] is None and pulls[False][1].abs().sum() > 0


@pytest.mark.parametrize("stop", [True, False])
def test_r_points_that_serve_both_tasks_obey_the_stop_too(stop):
    salt = operator(cls_at="r_points", stop_gradient=stop)
    salt(*features(), 0).cls_feat.square().sum().backward()
    assert (salt.coarse_out.weight.grad is None) == stop


def test_four_points_are_nine_whose_inside_points_weigh_nothing():
    nine, four = operator(num_points=9), operator(num_points=4)
    sides = [kernel_order(9)[i] for i in range(4)]
    with torch.no_grad():
        four.factors_out.weight.copy_(nine.factors_out.weight[:4])
        for layer in ("reg_align", "cls_align"):
            weight = getattr(nine, layer).weight
            getattr(four, layer).weight.copy_(weight[:, :, sides])
            weight[:, :, [k for k in range(9) if k not in sides]] = 0
        vectors = nine.vectors_out.weight.unflatten(0, (9, 2))[sides].flatten(0, 1)
        four.vectors_out.weight.copy_(vectors)
        one, other = nine(*features(), 0), four(*features(), 0)
    torch.testing.assert_close(one.reg_feat, other.reg_feat)
    torch.testing.assert_close(one.cls_feat, other.cls_feat)


@pytest.mark.parametrize("host", SALT_HOSTS)
def test_a_head_whose_operator_gathers_nothing_answers_exactly_as_its_host(host):
    plain = build(small(host)).eval().bbox_head
    bare = build(small(host, enabled=True, reg_at="cell", cls_at="cell", long_skip="none")).eval().bbox_head
    own = {name: value for name, value in bare.state_dict().items() if not name.startswith("salt.")}
    assert own.keys() == plain.state_dict().keys()
    bare.load_state_dict(plain.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(2)
    pyramid = tuple(torch.randn(1, 64, max(8 >> i, 1), max(12 >> i, 1), generator=generator) for i in range(5))
    with torch.no_grad():
        for theirs, ours in zip(plain(pyramid), bare(pyramid), strict=True):
            assert all(same(a, b) for a, b in zip(theirs, ours, strict=True))


@pytest.mark.parametrize("host", SALT_HOSTS)
def test_a_coarse_box_on_a_level_without_the_operator_is_not_taught(host):
    """The operator acts on the coarsest level only, where these small objects have no positives."""
    from salt_lab.testing.host_contract import TWO_OBJECTS, batch, one, total

    model = build(small(host, enabled=True, levels=[7]))
    losses = model.loss(*batch(TWO_OBJECTS))
    assert one(losses["loss_coarse"]) == one(losses["loss_sdr"]) == 0
    total(losses).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("host", SALT_HOSTS)
def test_sdr_is_silent_until_its_epoch_and_the_same_as_ever_from_then_on(host, monkeypatch):
    from mmengine.logging import MessageHub

    from salt_lab.testing.host_contract import TWO_OBJECTS, batch, one, total

    always, *others = (build(small(host, enabled=True, **salt)) for salt in ({}, {"sdr_from_epoch": 3}, {"sdr_weight": 0}))
    for model in others:
        model.load_state_dict(always.state_dict())
    late, never = others
    told: dict = {}
    monkeypatch.setattr(MessageHub, "get_info", lambda self, key, default=None: told.get(key, default))

    def sdr(model, epoch):
        told["epoch"] = epoch - 1  # as mmengine counts
        losses = model.loss(*batch(TWO_OBJECTS))
        model.zero_grad()
        total(losses).backward()
        return one(losses.get("loss_sdr", 0.0)), torch.cat(
            [p.grad.flatten() for p in model.bbox_head.salt.parameters() if p.grad is not None]
        )

    silent, without = sdr(late, 2), sdr(never, 2)
    assert silent[0] == 0 and torch.equal(silent[1], without[1])
    begun, ever = sdr(late, 3), sdr(always, 3)
    assert begun[0] == ever[0] > 0 and torch.equal(begun[1], ever[1])


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float32)


def lesson(cell=1.0):
    """Two locations: in the first the refined box is better than the coarse one, in the second it is worse."""
    target = boxes([0, 0, 10, 10], [0, 0, 10, 10])
    coarse, refined = boxes([0, 0, 6, 10], [0, 0, 9, 10]), boxes([0, 0, 8, 10], [0, 0, 5, 10])
    return Positives(coarse.requires_grad_(), refined, target, torch.tensor([1.0, 2.0]), cell)


def test_gated_sdr_listens_only_to_a_refined_box_that_is_better():
    p = lesson()
    sdr_loss_sum(p, "giou", gate=True).backward()
    assert p.coarse_P4.grad[0].abs().sum() > 0 and p.coarse_P4.grad[1].abs().sum() == 0
    first = Positives(*(t[:1] for t in p[:4]), 1.0)
    assert sdr_loss_sum(p, "giou", gate=True).item() == pytest.approx(sdr_loss_sum(first, "giou", gate=False).item())


def test_smooth_l1_sdr_is_measured_in_cells_and_averaged_over_the_sides():
    # off by 2 and 4 pixels on one of four sides; with cells of 4 pixels that is 0.5 and 1 cell: 0.5 * 0.25 and 1 - 0.5
    assert sdr_loss_sum(lesson(cell=4.0), "smooth_l1", gate=False).item() == pytest.approx(1 * 0.125 / 4 + 2 * 0.5 / 4)


@pytest.mark.parametrize("kind", ["giou", "smooth_l1"])
@pytest.mark.parametrize("gate", [False, True])
def test_every_variant_sends_gradient_to_the_coarse_box_alone(kind, gate):
    p = lesson()
    refined = p.refined_P4.clone().requires_grad_()
    added_losses(p._replace(refined_P4=refined), 0, 1, 1e-6, kind, gate)["loss_sdr"].backward()
    assert refined.grad is None and p.coarse_P4.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["giou", "smooth_l1"])
def test_no_positives_make_every_variant_zero_with_a_gradient_path(kind):
    maps = torch.rand(3, 4, requires_grad=True)
    none = Positives(maps[:0], maps[:0].detach(), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 1))
    loss = added_losses(none, 0, 1, 1.0, kind, True)["loss_sdr"]
    loss.backward()
    assert loss.item() == 0 and maps.grad.abs().sum() == 0
