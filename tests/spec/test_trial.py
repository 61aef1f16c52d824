"""A trial is valid from birth, and its id depends on exactly what can change its result."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from salt_lab.spec.trial import (
    BACKBONES,
    COARSE_WEIGHTS,
    HEAD_CONVS,
    HOSTS,
    PLAIN_HOSTS,
    SALT_HOSTS,
    CocoData,
    EmbeddedData,
    Schedule,
    Trial,
    canonical,
    flatten,
    trial_id,
    unflatten,
)

MARKS = "marks-0123456789ab"


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Trial(**fields)
    return caught.value.errors()[0]["msg"]


def make(**fields: Any) -> Trial:
    return Trial.model_validate(fields)


def test_every_salt_host_has_a_coarse_weight_and_a_tower_height() -> None:
    assert set(SALT_HOSTS) == set(COARSE_WEIGHTS) == set(HEAD_CONVS)
    assert set(HOSTS) == set(SALT_HOSTS) | set(PLAIN_HOSTS)


def test_shorthands_are_the_long_forms() -> None:
    short = make(salt=True, backbone="resnet18", data="marks", schedule="2x")
    assert short == make(salt={"enabled": True}, backbone={"name": "resnet18"}, data={"kind": "marks"}, schedule={"epochs": 24})


@pytest.mark.parametrize(("name", "epochs", "drops"), [("1x", 12, (8, 11)), ("2x", 24, (16, 22))])
def test_presets_are_the_published_schedules(name: str, epochs: int, drops: tuple[int, ...]) -> None:
    schedule = make(schedule=name).schedule
    assert (schedule.epochs, schedule.drops) == (epochs, drops)
    assert (schedule.optimizer, schedule.lr, schedule.batch, schedule.image_size) == ("sgd", 0.01, 16, (1333, 800))


@pytest.mark.parametrize("epochs", range(1, 40))
def test_the_rate_drops_inside_the_schedule_however_short_it_is(epochs: int) -> None:
    drops = Schedule(epochs=epochs).drops
    assert all(1 <= drop < epochs for drop in drops)
    assert list(drops) == sorted(set(drops))


def test_cosine_decay_has_no_drops() -> None:
    assert Schedule(decay="cosine").drops == ()


def test_a_data_mapping_with_files_is_coco() -> None:
    data = make(data={"train": "a.json", "val": "b.json", "images": "c"}).data
    assert isinstance(data, CocoData)
    assert isinstance(make(data={"classes": 2}).data, EmbeddedData)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "atts"}, "no host named 'atts'. Did you mean 'atss'?"),
        ({"backbone": "resnet81"}, "Did you mean 'resnet18'?"),
        ({"schedule": "3x"}, "no schedule named '3x'"),
        ({"salt": {"points": 3}}, "at least 4 points (one per side)"),
        ({"salt": {"sdr_weight": True}}, "must be a number"),
        ({"channels": 48}, "multiple of 32"),
        ({"schedule": {"epochs": 8, "milestones": [5, 8]}}, "before the last epoch"),
        ({"schedule": {"milestones": [11, 8]}}, "increasing"),
        ({"schedule": {"milestones": [8, 8]}}, "increasing"),
        ({"schedule": {"milestones": [0, 8]}}, "from 1 on"),
        ({"schedule": {"image_size": [800, 1333]}}, "longest side"),
        ({"host": "atts"}, "or any config of mmdet: mmdet::"),
        ({"host": "mmdet::tood"}, "followed by a config's path"),
        ({"host": "tood", "salt": True}, "no SALT form; hosts with SALT: atss, fcos"),
        ({"host": "mmdet::tood/tood_r50_fpn_1x_coco.py", "salt": True}, "no SALT form"),
        ({"host": "atss", "quality": True}, "no quality predictor to switch"),
        ({"host": "vfnet", "schedule": {"amp": True}}, "cannot learn in mixed precision"),
        ({"salt": {"levels": []}}, "name at least one level"),
        ({"salt": {"levels": [4, 3]}}, "in order"),
        ({"salt": {"levels": [2]}}, "greater than or equal to 3"),
        ({"salt": {"cls_at": "centre"}}, "'c_points', 'r_points' or 'cell'"),
        ({"schedule": {"ema": 1.0}}, "less than 1"),
        ({"schedule": {"memory_format": "nhwc"}}, "'contiguous' or 'channels_last'"),
        ({"salt": {"enabled": True, "reg_at": "cell", "sdr_weight": 0, "coarse_weight": 0}}, "nothing would teach the coarse box"),
        ({"backbone": {"name": "resnet18", "frozen_stages": 5}}, "stages up to 4"),
        ({"backbone": {"name": "mobilenet_v2", "base_channels": 16}}, "one width"),
        ({"backbone": {"base_channels": 16, "init": "host"}}, "base_channels 64 only"),
    ],
)
def test_an_impossible_trial_is_refused_with_the_way_out(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(**fields)


@pytest.mark.parametrize("field", ["sdr_weight", "coarse_weight"])
def test_weights_are_not_negative(field: str) -> None:
    assert "greater than or equal to 0" in refusal(salt={field: -0.1})
    assert make(salt={field: 0})


def test_salt_net_has_three_convolutions_a_tower_and_a_quality_predictor_with_and_without_the_operator() -> None:
    for salt in (True, False):
        trial = make(host="salt_net", salt=salt)
        assert trial.convs == 3 and trial.has_quality


def test_a_config_of_mmdet_keeps_its_own_network_unless_another_is_named() -> None:
    config = "mmdet::gfl/gfl_x101-32x4d_fpn_ms-2x_coco.py"
    assert make(host=config).backbone.name == make(host=config, backbone={"init": "host"}).backbone.name == "host"
    assert make(host=config, backbone="resnet18").backbone.name == "resnet18"
    assert make(host="atss").backbone.name == "resnet50"


def test_the_coarse_box_may_learn_from_one_source_alone() -> None:
    """Through R-points, through C-points that let gradient pass, from its own loss, or from SDR."""
    silent = {"enabled": True, "sdr_weight": 0, "coarse_weight": 0, "reg_at": "cell"}
    for teacher in ({"reg_at": "r_points"}, {"stop_gradient": False}, {"coarse_weight": 1}, {"sdr_weight": 1}):
        assert make(salt={**silent, **teacher})


@pytest.mark.parametrize(("said", "stored"), [(True, "cls"), (False, "none"), ("both", "both")])
def test_a_long_skip_may_be_written_as_true_or_false(said: Any, stored: str) -> None:
    assert make(salt={"long_skip": said}).salt.long_skip == stored


def test_a_trial_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Trial().seed = 1  # type: ignore[misc]


def test_an_sdr_that_would_never_begin_is_refused() -> None:
    late = {"enabled": True, "sdr_weight": 1, "sdr_from_epoch": 13}
    with pytest.raises(ValidationError, match="12 epochs, so SDR would never begin"):
        make(salt=late)
    assert make(salt={**late, "sdr_weight": 0}) and make(salt={**late, "enabled": False})


TOGGLES = [
    {"points": 5}, {"sdr_weight": 1.0}, {"coarse_weight": 2.0}, {"long_skip": False}, {"long_skip": "reg"}, {"reg_at": "cell"},
    {"cls_at": "cell"}, {"cls_at": "r_points"}, {"stop_gradient": False}, {"sdr_weight": 0.5, "sdr_kind": "smooth_l1"},
    {"sdr_weight": 0.5, "sdr_gate": True},
    {"sdr_weight": 0.5, "sdr_from_epoch": 2}, {"levels": [3]},
]  # fmt: skip


@pytest.mark.parametrize("toggle", TOGGLES)
def test_toggles_matter_to_the_id_only_where_the_operator_is_on(toggle: dict[str, Any]) -> None:
    off, on = {"enabled": False, **toggle}, {"enabled": True, **toggle}
    alike = {"enabled": True, **({"sdr_weight": 0.5} if len(toggle) > 1 else {})}
    assert trial_id(make(salt=off), MARKS) == trial_id(make(salt=False), MARKS)
    assert trial_id(make(salt=on), MARKS) != trial_id(make(salt=alike), MARKS)


@pytest.mark.parametrize(
    ("said", "left_out"),
    [
        ({"host": "fcos", "salt": {"enabled": True, "coarse_weight": 0.5}}, {"host": "fcos", "salt": True}),
        ({"host": "gfl", "salt": {"enabled": True, "coarse_weight": 1}}, {"host": "gfl", "salt": True}),
        ({"head_convs": 4}, {}),
        ({"channels": 256}, {}),
        ({"schedule": {"milestones": [8, 11]}}, {}),
        ({"schedule": {"decay": "cosine", "milestones": [3]}}, {"schedule": {"decay": "cosine"}}),
        ({"schedule": {"lr": "1e-2"}}, {"schedule": {"lr": 0.01}}),
        ({"host": "gflv2", "quality": True}, {"host": "gflv2"}),
        ({"salt": {"enabled": True, "levels": [3, 4, 5, 6, 7]}}, {"salt": True}),
        ({"salt": {"enabled": True, "sdr_weight": 0, "sdr_kind": "smooth_l1"}}, {"salt": {"enabled": True, "sdr_weight": 0}}),
        ({"salt": {"enabled": True, "cls_at": "cell", "stop_gradient": False}}, {"salt": {"enabled": True, "cls_at": "cell"}}),
    ],
)
def test_saying_what_is_so_anyway_keeps_the_id(said: dict[str, Any], left_out: dict[str, Any]) -> None:
    assert trial_id(make(**said), MARKS) == trial_id(make(**left_out), MARKS)


@pytest.mark.parametrize(
    "change",
    [
        {"host": "gfl"},
        {"salt": True},
        {"backbone": "resnet18"},
        {"backbone": {"base_channels": 16}},
        {"channels": 64},
        {"head_convs": 2},
        {"schedule": {"lr": 0.02}},
        {"schedule": {"milestones": []}},
        {"seed": 1},
        {"weights": "atss.pth"},
        {"schedule": {"ema": 0.0002}},
        {"schedule": {"scale_lr": True}},
        {"schedule": {"memory_format": "channels_last"}},
        {"host": "gfl", "quality": True},
    ],
)
def test_what_can_change_the_result_changes_the_id(change: dict[str, Any]) -> None:
    assert trial_id(make(**change), MARKS) != trial_id(Trial(), MARKS)


def test_the_id_is_pinned_so_that_old_records_keep_their_trials() -> None:
    """Where this fails, every record made before loses its trial: change it knowingly, and say so in the changelog."""
    assert trial_id(Trial(), MARKS) == "dc9e8d3810f4"
    assert (
        trial_id(make(host="fcos", salt={"enabled": True, "sdr_weight": 1.0}, backbone="resnet18", schedule="2x", seed=3), MARKS)
        == "60cb463359ec"
    )


def test_the_id_follows_the_content_of_data_and_weights_and_not_their_place(tmp_path: Any) -> None:
    def ident(weights: str, folder: str = "/one", fingerprint: str = "coco-1") -> str:
        data = {"train": f"{folder}/t.json", "val": f"{folder}/v.json", "images": folder}
        return trial_id(make(data=data, backbone={"init": weights}), fingerprint)

    first, copy, other = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
    first.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"others!")
    assert ident(str(first)) == ident(str(copy), folder="/two")
    assert ident(str(first)) != ident(str(other))
    assert ident(str(first)) != ident(str(first), fingerprint="coco-2")
    first.write_bytes(b"new weights in the same place")
    assert ident(str(first)) != ident(str(copy))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("decay", ["step", "cosine"])
def test_the_canonical_form_is_a_trial_with_the_same_canonical_form(host: str, backbone: str, decay: str) -> None:
    plain = canonical(make(host=host, salt=host in SALT_HOSTS, backbone=backbone, schedule={"decay": decay}))
    assert canonical(Trial.model_validate(plain)) == plain


def test_canonical_says_every_default_in_full() -> None:
    plain = canonical(make(host="fcos", salt=True, data={"train": "t", "val": "v", "images": "i"}))
    assert plain["salt"]["coarse_weight"] == 0.5
    assert plain["schedule"]["milestones"] == [8, 11]
    assert plain["head_convs"] == 4
    assert plain["data"]["val_images"] == "i"
    assert canonical(Trial())["salt"] == {"enabled": False}


def test_flatten_and_unflatten_are_inverse() -> None:
    plain = canonical(make(salt=True))
    assert flatten(plain)["salt.points"] == 9
    assert unflatten(flatten(plain)) == plain


@pytest.mark.parametrize("flat", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_a_key_cannot_be_a_value_and_a_mapping(flat: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="both a value and a mapping"):
        unflatten(flat)
