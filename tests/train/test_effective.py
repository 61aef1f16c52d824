"""Toggles are compared with what was built, key by key."""

import pytest

from salt_lab.errors import TrialFailed
from salt_lab.spec.trial import Trial
from salt_lab.train.effective import check_effective
from salt_lab.train.session import expected_losses


def trial(**salt):
    return Trial.model_validate({"host": "atss", "salt": {"enabled": True, **salt}})


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
