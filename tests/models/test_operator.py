"""The operator: what it must not change under shifts and mirrors, and where gradients may flow."""

import pytest
import torch

from salt_lab.models.operator import SALT

C = 32


def operator(**kwargs):
    torch.manual_seed(0)
    salt = SALT(C, num_levels=1, **kwargs).double().eval()
    for parameter in salt.parameters():  # lively weights, so that points move several cells
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return salt


def features(height=14, width=16):
    torch.manual_seed(1)
    return [torch.randn(2, C, height, width, dtype=torch.float64) for _ in range(3)]


def still_norm(salt):
    """GroupNorm looks at the whole map; with it out of the way the operator is local, and shifts can be seen exactly."""
    for module in salt.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    return salt


def test_shifting_the_input_by_one_cell_shifts_the_output():
    salt = still_norm(operator())
    with torch.no_grad():
        salt.coarse_out.weight.mul_(0.02)  # boxes of a few cells
        salt.vectors_out.weight.mul_(0.02)
        x = [f * 0 for f in features(40, 40)]
        for feature, content in zip(x, features(8, 8), strict=True):
            feature[..., 16:24, 16:24] = content
        moved = [f.roll((0, 1), (-2, -1)) for f in x]
        there, here = salt(*moved, 0), salt(*x, 0)
    for shifted, original in zip(there, here, strict=True):
        torch.testing.assert_close(shifted[..., 12:28, 13:29], original[..., 12:28, 12:28])


def test_mirroring_the_input_and_the_weights_mirrors_the_coarse_box_and_its_features():
    salt = operator()
    mirrored = operator()
    with torch.no_grad():
        for parameter in mirrored.parameters():
            if parameter.dim() == 4:
                parameter.copy_(parameter.flip(-1))
        swap = [2, 1, 0, 3]
        mirrored.coarse_out.weight.copy_(mirrored.coarse_out.weight[swap])
        mirrored.coarse_out.bias.copy_(mirrored.coarse_out.bias[swap])
        _mirror_factors(mirrored.factors_out)
        columns = [0, 1, 2, 5, 4, 3, 6, 7, 8]
        mirrored.reg_align.weight.copy_(mirrored.reg_align.weight[:, :, columns])
        mirrored.cls_align.weight.copy_(mirrored.cls_align.weight[:, :, columns])
        per_point = mirrored.vectors_out.weight.unflatten(0, (9, 2))[columns].flatten(0, 1)
        mirrored.vectors_out.weight.copy_(per_point)
        x = features()
        there, here = mirrored(*[f.flip(-1) for f in x], 0), salt(*x, 0)
    torch.testing.assert_close(there.coarse_N4HW, here.coarse_N4HW[:, swap].flip(-1))
    torch.testing.assert_close(there.r_points_NK2HW[:, columns, 1], -here.r_points_NK2HW[:, :, 1].flip(-1))
    torch.testing.assert_close(there.reg_feat, here.reg_feat.flip(-1))
    torch.testing.assert_close(there.cls_feat, here.cls_feat.flip(-1))


def _mirror_factors(conv):
    """Left and right change places; a factor along x counts from the other end, sigmoid(-z) = 1 - sigmoid(z)."""
    order = [2, 1, 0, 3, *range(4, 14)]
    sign = torch.ones(14, dtype=torch.float64)
    sign[[1, 3, 5, 7, 9, 11, 13]] = -1
    weight, bias = conv.weight[order].clone(), conv.bias[order].clone()
    # the inside points 0, 2, 4, 6, 8 keep their places among themselves: only their x counts the other way
    conv.weight.copy_(weight * sign[:, None, None, None])
    conv.bias.copy_(bias * sign)


def test_classification_sends_no_gradient_into_the_regression_branch():
    salt = operator()
    x, cls_feat, reg_feat = (f.requires_grad_() for f in features())
    salt(x, cls_feat, reg_feat, 0).cls_feat.sum().backward()
    assert reg_feat.grad is None
    regression = [
        *salt.coarse_hidden.parameters(),
        *salt.coarse_out.parameters(),
        *salt.factors_out.parameters(),
        *salt.scales.parameters(),
    ]
    assert all(p.grad is None for p in regression)


def test_regression_reaches_the_coarse_box_through_the_points():
    salt = operator()
    x, cls_feat, reg_feat = features()
    salt(x, cls_feat, reg_feat, 0).reg_feat.square().sum().backward()
    for part in (salt.coarse_out, salt.factors_out, salt.coarse_hidden):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters() if p.dim() > 1)


def test_the_long_skip_is_a_toggle_of_its_own():
    x, cls_feat, reg_feat = features()
    with_skip, without = operator(long_skip="cls"), operator(long_skip="none")
    torch.testing.assert_close(with_skip(x, cls_feat, reg_feat, 0).cls_feat, without(x, cls_feat + x, reg_feat, 0).cls_feat)
    assert not torch.allclose(with_skip(x, cls_feat, reg_feat, 0).cls_feat, without(x, cls_feat, reg_feat, 0).cls_feat)
    torch.testing.assert_close(with_skip(x, cls_feat, reg_feat, 0).reg_feat, without(x, cls_feat, reg_feat, 0).reg_feat)


@pytest.mark.parametrize("K", [4, 5, 9, 13, 16, 25])
def test_any_number_of_points_from_four_up_works(K):
    aligned = operator(num_points=K)(*features(5, 7), 0)
    assert aligned.reg_feat.shape == aligned.cls_feat.shape == (2, C, 5, 7)
    assert aligned.r_points_NK2HW.shape == (2, K, 2, 5, 7)


def test_coarse_distances_are_never_negative():
    assert operator()(*features(), 0).coarse_N4HW.min() >= 0


def test_points_stay_in_float32_under_autocast():
    salt = operator().float()
    with torch.autocast("cpu", torch.bfloat16):
        aligned = salt(*[f.float() for f in features()], 0)
    assert aligned.r_points_NK2HW.dtype == aligned.coarse_N4HW.dtype == aligned.c_points_NK2HW.dtype == torch.float32
    assert all(t.isfinite().all() for t in aligned)


def test_the_whole_operators_gradient_agrees_with_finite_differences():
    salt = still_norm(operator(num_points=5))
    torch.manual_seed(3)
    x = [torch.randn(1, C, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(1, C, 3, 3, dtype=torch.float64)

    def energy(*inputs):
        aligned = salt(*inputs, 0)
        return ((aligned.reg_feat + aligned.coarse_N4HW.sum(1, keepdim=True)) * weight).sum() / 10

    assert torch.autograd.gradcheck(energy, x, atol=1e-4, fast_mode=True)


def test_channels_that_groupnorm_cannot_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        SALT(48)
