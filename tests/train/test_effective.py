"""Toggles are compared with what was built, key by key."""

import pytest

from salt_lab.errors import TrialFailed
from salt_lab.spec.parts import HOSTS, SALT_HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.testing.host_contract import build, small
from salt_lab.train.effective import built, check_effective, host_name
from salt_lab.train.session import expected_losses


def trial(**salt):
    return Trial.model_validate({"host": "atss", "salt": {"enabled": True, "sdr_weight": 1.0, **salt}})


def test_a_model_with_another_number_of_points_is_not_what_was_asked():
    with pytest.raises(TrialFailed, match=r"salt\.points is 9, asked 16"):
        check_effective(trial(points=16), {"salt.points": 9, "host": "atss"})


def test_every_difference_is_named():
    with pytest.raises(TrialFailed, match=r"host is 'gfl', asked 'atss'; salt\.sdr_weight is 0\.0, asked 1\.0"):
        check_effective(trial(), {"host": "gfl", "salt.sdr_weight": 0.0})


def test_a_model_that_is_what_was_asked_passes():
    check_effective(trial(points=4), {"salt.points": 4, "salt.enabled": True, "channels": 256})


def test_the_added_losses_are_those_whose_weight_is_not_zero():
    assert expected_losses(trial()) == {"loss_coarse", "loss_sdr"}
    assert expected_losses(trial(sdr_weight=0)) == {"loss_coarse"}
    assert expected_losses(trial(coarse_weight=0, sdr_weight=0)) == frozenset()
    assert expected_losses(Trial(host="atss")) == frozenset()


@pytest.mark.parametrize("host", HOSTS)
def test_a_built_model_says_which_host_it_is(host):
    """salt_net without the operator is GFLv2 with 3 convolutions a tower: that is what it says."""
    assert host_name(build(small(host))) == ("gflv2" if host == "salt_net" else host)


@pytest.mark.parametrize("host", SALT_HOSTS)
def test_what_is_built_is_what_was_asked_with_and_without_the_operator(host):
    for salt in (
        {},
        {
            "enabled": True,
            "points": 13,
            "levels": [3, 5],
            "long_skip": "reg",
            "sdr_kind": "smooth_l1",
            "sdr_gate": True,
            "sdr_from_epoch": 2,
        },
    ):
        asked = small(host, **salt)
        found = built(build(asked))
        check_effective(asked, found)
        assert found["salt.enabled"] is bool(salt) and (found["channels"], found["head_convs"]) == (64, 1)
    assert found["salt.levels"] == [3, 5] and found["salt.points"] == 13


@pytest.mark.parametrize(
    ("reg_at", "cls_at", "points"),
    [("r_points", "c_points", 5), ("r_points", "r_points", 5), ("r_points", "cell", 5), ("cell", "c_points", 5), ("cell", "cell", None)],
)
def test_where_features_are_gathered_is_read_from_the_layers_that_are_there(reg_at, cls_at, points):
    asked = small("atss", enabled=True, points=5, reg_at=reg_at, cls_at=cls_at)
    found = built(build(asked))
    check_effective(asked, found)
    assert (found["salt.reg_at"], found["salt.cls_at"], found.get("salt.points")) == (reg_at, cls_at, points)


@pytest.mark.parametrize(
    ("toggle", "other"),
    [("stop_gradient", False), ("sdr_gate", True), ("sdr_from_epoch", 2), ("cls_at", "r_points"), ("long_skip", "both"), ("levels", [3])],
)
def test_a_toggle_that_nobody_asked_for_is_noticed(toggle, other):
    found = built(build(small("atss", enabled=True, **{toggle: other})))
    with pytest.raises(TrialFailed, match=rf"salt\.{toggle} is "):
        check_effective(small("atss", enabled=True), found)


def test_the_quality_predictor_is_looked_for_in_the_head():
    plain, with_quality = small("gfl"), small("gfl").model_copy(update={"quality": True})
    check_effective(with_quality, built(build(with_quality)))
    with pytest.raises(TrialFailed, match="quality is True, asked False"):
        check_effective(plain, built(build(with_quality)))


def test_a_config_of_mmdet_is_checked_by_its_heads_and_its_network():
    config = "mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco.py"
    asked = Trial.model_validate({"host": config, "channels": 64, "head_convs": 1})
    found = built(build(asked))
    assert (found["heads"], found["backbone.name"], found["channels"]) == ("FoveaHead", "resnet50", 64)
    check_effective(asked, found)
    with pytest.raises(TrialFailed, match="heads is 'FoveaHead', asked 'TOODHead'"):
        check_effective(Trial.model_validate({"host": "mmdet::tood/tood_r50_fpn_1x_coco.py"}), found)


def test_the_learning_rate_in_force_is_the_scaled_one():
    asked = Trial.model_validate({"host": "atss", "schedule": {"lr": 0.01, "batch": 4, "scale_lr": True}})
    check_effective(asked, {"schedule.lr": 0.0025, "schedule.ema": None, "schedule.memory_format": "contiguous"})
    with pytest.raises(TrialFailed, match=r"schedule\.lr is 0\.01, asked 0\.0025"):
        check_effective(asked, {"schedule.lr": 0.01})
    with pytest.raises(TrialFailed, match=r"schedule\.ema is 0\.1, asked None"):
        check_effective(asked, {"schedule.ema": 0.1})
