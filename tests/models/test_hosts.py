"""Every SALT host passes the shipped contract."""

from salt_lab.testing.host_contract import TWO_OBJECTS, HostContract, batch, build, one, small


class TestATSS(HostContract):
    host = "atss"
    box_losses = ("loss_bbox", "loss_centerness")


class TestFCOS(HostContract):
    host = "fcos"
    box_losses = ("loss_bbox", "loss_centerness")


class TestGFL(HostContract):
    host = "gfl"
    box_losses = ("loss_bbox", "loss_dfl")


class TestSALTNet(HostContract):
    host = "salt_net"
    plain = False
    box_losses = ("loss_bbox", "loss_dfl")


def test_the_targets_that_the_host_computed_are_not_computed_again():
    head = build(small("atss", enabled=True)).bbox_head
    calls = []
    compute = type(head).__mro__[2].get_targets
    head_class = type(head).__mro__[2]
    head_class.get_targets = lambda self, *a, **k: calls.append(1) or compute(self, *a, **k)
    try:
        import torch

        head.loss(tuple(torch.randn(2, 64, 8 // 2**i or 1, 12 // 2**i or 1) for i in range(5)), batch(TWO_OBJECTS)[1])
    finally:
        head_class.get_targets = compute
    assert calls == [1]


def test_plain_fcos_measures_its_boxes_in_pixels_and_still_trains_the_coarse_ones():
    """The host without norm_on_bbox: targets and predictions are pixels, the coarse distances cells."""
    trial = small("fcos", enabled=True)
    normed, plain = build(trial), build(trial)
    plain.bbox_head.norm_on_bbox = False
    assert one(plain.loss(*batch(TWO_OBJECTS))["loss_coarse"]) > 0
    assert abs(one(plain.loss(*batch(TWO_OBJECTS))["loss_coarse"]) - one(normed.loss(*batch(TWO_OBJECTS))["loss_coarse"])) < 1e-4
