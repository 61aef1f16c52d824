"""A trial becomes a configuration: every toggle is in it, and nothing else moves."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from salt_lab.compose import compose
from salt_lab.compose.hosts import HOSTS, mmdet_config
from salt_lab.data import DatasetPaths
from salt_lab.errors import SpecError
from salt_lab.spec.parts import HOSTS as NAMES
from salt_lab.spec.parts import PLAIN_HOSTS, SALT_HOSTS
from salt_lab.spec.trial import Trial

DATA = DatasetPaths(Path("t.json"), Path("v.json"), Path("train"), Path("val"), ("cat", "dog"))


def trial(**changes):
    return Trial.model_validate({"host": "atss", "backbone": {"name": "resnet18", "base_channels": 16}, "channels": 64, **changes})


def changed(a, b):
    """Dotted keys in which two configurations differ."""

    def flat(section, prefix=""):
        if hasattr(section, "items"):
            return {k2: v for k, v1 in section.items() for k2, v in flat(v1, f"{prefix}{k}.").items()}
        return {prefix[:-1]: section}

    left, right = flat(a), flat(b)
    return {k for k in left.keys() | right.keys() if left.get(k) != right.get(k)}


def test_the_seed_moves_the_seeds_alone():
    assert changed(compose(trial(seed=0), DATA), compose(trial(seed=1), DATA)) == {"randomness.seed", "train_dataloader.sampler.seed"}


@pytest.mark.parametrize("host", SALT_HOSTS)
def test_the_operator_moves_the_head_alone(host):
    on = compose(trial(host=host, salt=True), DATA)
    moved = changed(compose(trial(host=host), DATA), on)
    assert {key.split(".salt.")[0] for key in moved} == {"model.bbox_head.type", "model.bbox_head"}
    assert {"num_points", "long_skip", "coarse_weight", "sdr_weight"} <= set(on.model.bbox_head.salt)


def test_every_host_that_a_trial_can_name_has_its_config():
    assert set(HOSTS) == set(NAMES)
    assert all(HOSTS[name].salt_head for name in SALT_HOSTS) and not any(HOSTS[name].salt_head for name in PLAIN_HOSTS)


@pytest.mark.parametrize("host", NAMES)
def test_off_with_the_hosts_weights_the_model_is_mmdets_to_the_letter(host):
    ours = compose(Trial.model_validate({"host": host, "backbone": {"init": "host"}})).model
    theirs = mmdet_config(HOSTS[host].config).model
    said = {"retinanet": {"anchor_generator"}, "gflv2": {"type"}, "salt_net": {"type", "stacked_convs"}}.get(host, set())
    assert {key for key in ours if ours[key] != theirs[key]} == ({"bbox_head"} if said else set())
    assert {key for key in ours.bbox_head if ours.bbox_head[key] != theirs.bbox_head[key]} == said
    assert ours == compose(Trial.model_validate({"host": host, "backbone": {"name": "host", "init": "host"}})).model


def test_retinanet_has_one_square_anchor_as_large_as_atss_has_in_both_arms():
    atss = compose(trial(host="atss")).model.bbox_head.anchor_generator
    for salt in (False, True):
        assert compose(trial(host="retinanet", salt=salt)).model.bbox_head.anchor_generator == atss
    assert compose(trial(host="retinanet_9_anchors")).model.bbox_head.anchor_generator.scales_per_octave == 3


def test_gfl_with_quality_is_gflv2_and_gflv2_without_it_is_gfl():
    for salt in (False, True):
        assert compose(trial(host="gfl", quality=True, salt=salt)).model == compose(trial(host="gflv2", salt=salt)).model
        assert compose(trial(host="gflv2", quality=False, salt=salt)).model == compose(trial(host="gfl", salt=salt)).model
    bare = compose(trial(host="salt_net", salt=False)).model
    assert bare == compose(trial(host="gflv2", head_convs=3)).model
    assert compose(trial(host="salt_net", salt=True, quality=False)).model == compose(trial(host="gfl", salt=True, head_convs=3)).model


@pytest.mark.parametrize("host", NAMES)
def test_width_and_depth_reach_every_part_of_a_host(host):
    model = compose(trial(host=host, channels=96, head_convs=2)).model
    necks = model.neck if isinstance(model.neck, list) else [model.neck]
    assert [neck.out_channels for neck in necks] == [96] * len(necks) and all(neck.in_channels == 96 for neck in necks[1:])
    head = model.bbox_head
    assert {head[key] for key in ("in_channels", "feat_channels", "point_feat_channels") if key in head} == {96} and head.stacked_convs == 2


def test_classes_come_from_the_data():
    config = compose(trial(), DATA)
    assert config.model.bbox_head.num_classes == 2
    assert config.train_dataloader.dataset.metainfo.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("backbone", "channels"), [("resnet18", [64, 128, 256, 512]), ("resnet50", [256, 512, 1024, 2048]), ("mobilenet_v2", [24, 32, 96, 320])]
)
def test_the_neck_expects_what_the_backbone_gives(backbone, channels):
    assert compose(trial(backbone=backbone)).model.neck.in_channels == channels


def test_without_weights_nothing_is_frozen_and_with_weights_mmdets_habit_holds():
    fresh = compose(trial(backbone="resnet18")).model.backbone
    assert (fresh.frozen_stages, fresh.norm_eval) == (-1, False)
    pretrained = compose(trial(backbone={"name": "resnet18", "init": "w.pth"})).model.backbone
    assert (pretrained.frozen_stages, pretrained.norm_eval) == (1, True)
    assert pretrained.init_cfg == dict(type="BackboneWeights", checkpoint="w.pth")


def test_fcos_keeps_the_caffe_pixels_only_with_the_weights_that_want_them():
    theirs = compose(trial(host="fcos", backbone={"name": "resnet50", "init": "host"})).model.data_preprocessor
    ours = compose(trial(host="fcos")).model.data_preprocessor
    assert theirs.std == [1.0, 1.0, 1.0] and theirs.bgr_to_rgb is False
    assert ours.std == [58.395, 57.12, 57.375] and ours.bgr_to_rgb is True


def test_a_step_schedule_drops_where_it_says_and_cosine_never():
    step = compose(trial(schedule=dict(epochs=24)), DATA).param_scheduler[-1]
    assert step["milestones"] == [16, 22]
    assert compose(trial(schedule=dict(epochs=24, decay="cosine")), DATA).param_scheduler[-1]["type"] == "CosineAnnealingLR"


def test_fcos_keeps_its_doubled_bias_rate():
    config = compose(trial(host="fcos", schedule="1x"), DATA)
    assert config.optim_wrapper.paramwise_cfg == dict(bias_lr_mult=2.0, bias_decay_mult=0.0)


def test_salt_net_has_the_released_models_three_convolutions():
    assert compose(trial(host="salt_net", salt=True)).model.bbox_head.stacked_convs == 3
    assert compose(trial(host="atss", salt=True)).model.bbox_head.stacked_convs == 4


@pytest.mark.parametrize(("host", "weight"), [("fcos", 0.5), ("atss", 1.0), ("gfl", 1.0), ("salt_net", 1.0)])
def test_the_coarse_weight_is_the_hosts_published_one_unless_said(host, weight):
    assert compose(trial(host=host, salt=True)).model.bbox_head.salt.coarse_weight == weight
    assert compose(trial(host=host, salt=dict(enabled=True, coarse_weight=0.25))).model.bbox_head.salt.coarse_weight == 0.25


def test_a_written_configuration_reads_back_the_same(tmp_path):
    config = compose(trial(salt=True), DATA, tmp_path)
    config.dump(tmp_path / "config.py")
    assert changed(Config.fromfile(tmp_path / "config.py", import_custom_modules=False), config) == set()


FASTER = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"


def by_config(name, **changes):
    return Trial.model_validate({"host": name, **changes})


def test_a_config_of_mmdet_is_a_host_with_its_own_network_width_and_depth():
    host = "mmdet::retinanet/retinanet_x101-32x4d_fpn_1x_coco.py"
    theirs = mmdet_config(host.removeprefix("mmdet::")).model
    ours = compose(by_config(host, backbone={"init": "host"})).model
    assert ours == theirs and ours.backbone.type == "ResNeXt"


def test_random_weights_leave_nothing_of_the_hosts_network_frozen():
    backbone = compose(by_config(FASTER)).model.backbone
    assert (backbone.init_cfg, backbone.frozen_stages, backbone.norm_eval) == (None, -1, False)


def test_every_head_learns_the_datas_classes_but_the_one_that_proposes():
    model = compose(by_config("mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"), DATA).model
    assert [head.num_classes for head in model.roi_head.bbox_head] == [2, 2, 2]
    assert "num_classes" not in model.rpn_head


def test_a_two_stage_host_takes_another_network_and_width():
    model = compose(by_config(FASTER, backbone="resnet18", channels=64)).model
    assert model.neck.in_channels == [64, 128, 256, 512] and model.neck.out_channels == 64
    assert (model.rpn_head.in_channels, model.rpn_head.feat_channels) == (64, 64)
    assert (model.roi_head.bbox_roi_extractor.out_channels, model.roi_head.bbox_head.in_channels) == (64, 64)
    assert model.roi_head.bbox_head.fc_out_channels == 1024


def test_a_neck_that_reads_three_levels_gets_the_last_three():
    yolox = compose(by_config("mmdet::yolox/yolox_s_8xb8-300e_coco.py", backbone="resnet18")).model
    assert (yolox.backbone.out_indices, yolox.neck.in_channels) == ((1, 2, 3), [128, 256, 512])
    mobile = compose(by_config("mmdet::yolox/yolox_s_8xb8-300e_coco.py", backbone="mobilenet_v2")).model
    assert (mobile.backbone.out_indices, mobile.neck.in_channels) == ((2, 4, 6), [32, 96, 320])


def test_the_hosts_hooks_stay_but_for_those_that_change_data_or_weights():
    assert {hook.type for hook in compose(by_config("mmdet::yolox/yolox_s_8xb8-300e_coco.py"), DATA).custom_hooks} == {"SyncNormHook"}
    checked = compose(by_config("mmdet::ssd/ssd300_coco.py", schedule={"ema": 0.1}), DATA).custom_hooks
    assert checked[0]["type"] == "NumClassCheckHook" and len(checked) > 1
    assert "batch_augments" not in compose(by_config("mmdet::yolox/yolox_s_8xb8-300e_coco.py"), DATA).model.data_preprocessor


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": "mmdet::tood/tood_r50_1x_coco.py"}, r"no such config .*Nearest: tood/tood_r50_fpn_1x_coco\.py"),
        ({"host": "mmdet::../../__init__.py"}, "no such config"),
        ({"host": "mmdet::_base_/models/retinanet_r50_fpn.py"}, "part of others"),
        ({"host": "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"}, "learns from masks"),
        ({"host": "mmdet::rpn/rpn_r50_fpn_1x_coco.py"}, "without classes"),
        ({"host": FASTER, "head_convs": 2}, r"head_convs = 2 with host = .*no stacked_convs"),
        ({"host": "mmdet::detr/detr_r50_8xb2-150e_coco.py", "channels": 64}, r"channels = 64 with host = .*Leave channels at null"),
        ({"host": "mmdet::ssd/ssd300_coco.py", "channels": 64}, r"channels = 64 with host = "),
        ({"host": "mmdet::ssd/ssd300_coco.py", "backbone": "resnet18"}, r"backbone\.name = 'resnet18' .*SSDVGG cannot be replaced"),
        (
            {"host": "mmdet::yolox/yolox_s_8xb8-300e_coco.py", "backbone": {"name": "resnet50", "init": "host"}},
            "weights are a CSPDarknet's",
        ),
        ({"host": "mmdet::yolox/yolox_s_8xb8-300e_coco.py", "backbone": {"frozen_stages": 1}}, r"backbone\.frozen_stages = 1 .*CSPDarknet"),
    ],
)
def test_what_has_no_place_in_a_host_is_refused_in_words(changes, said):
    with pytest.raises(SpecError, match=said):
        compose(Trial.model_validate(changes))


def test_paa_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, found=importlib.util.find_spec: None if name == "sklearn" else found(name))
    with pytest.raises(SpecError, match="pip install scikit-learn"):
        compose(trial(host="paa"))


def test_composing_a_model_loads_neither_torch_nor_mmdet():
    script = "import sys; from salt_lab.compose import compose; from salt_lab.spec.trial import Trial; compose(Trial(host='tood'))\n"
    script += "assert not {'torch', 'mmdet', 'mmcv'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
