"""The mmdet-style configs of the six published SALT-Net models against the published table, and a training step of each."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from mmengine.config import Config

from salt_lab.testing.host_contract import batch, total
from salt_lab.train.infer import strip_init
from salt_lab.train.libraries import load_libraries

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
ONE_X, TWO_X = (12, [8, 11]), (24, [16, 22])  # epochs, drops of the learning rate
X101, R2_101 = ("ResNeXt", "open-mmlab://resnext101_32x4d"), ("Res2Net", "open-mmlab://res2net101_v1d_26w_4s")


class Row(NamedTuple):
    """One row of the published table (the README of XavierYoungY/SALT-Net) and the released config that belongs to it."""

    name: str
    ap: float  #: val2017
    ap_test_dev: float | None
    schedule: tuple
    backbone: tuple = ("ResNet", "torchvision://resnet50")
    deformable: tuple = ()  #: stages, 2 to 5
    richer: bool = False  #: GroupNorm in the FPN and DCNv2 as the towers' last convolution

    @property
    def multi_scale(self):
        return self.schedule == TWO_X


TABLE = {
    "salt_net_r50_fpn_1x_coco": Row("salt_R_50_FPN_1x", 42.5, None, ONE_X),
    "salt_net_r50_fpn_ms-2x_coco": Row("salt_R_50_FPN_2x", 45.8, 46.0, TWO_X),
    "salt_net_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco": Row("salt_X_101_dcnv2_2_FPN_2x", 49.5, 49.8, TWO_X, X101, (4, 5)),
    "salt_net_x101-32x4d-dconv-c3-c5_fpn-gn_head-mdconv_ms-2x_coco": Row(
        "salt_X_101_dcnv2_FPN_2x", 49.7, 50.2, TWO_X, X101, (3, 4, 5), richer=True
    ),
    "salt_net_res2net101-dconv-c4-c5_fpn_ms-2x_coco": Row("salt_R2_101_dcnv2_2_FPN_2x", 50.7, 51.1, TWO_X, R2_101, (4, 5)),
    "salt_net_res2net101-dconv-c3-c5_fpn-gn_head-mdconv_ms-2x_coco": Row(
        "salt_R2_101_dcnv2_FPN_2x", 51.1, 51.4, TWO_X, R2_101, (3, 4, 5), richer=True
    ),
}
each = pytest.mark.parametrize(("name", "row"), TABLE.items(), ids=[row.name for row in TABLE.values()])


@cache
def config(name):
    load_libraries()
    return Config.fromfile(CONFIGS / f"{name}.py")


def build(name):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    return MODELS.build(strip_init(config(name).model)).train()


def test_every_published_model_has_a_config_and_every_config_is_of_a_published_model():
    assert {path.stem for path in CONFIGS.glob("*.py")} == set(TABLE)


@each
def test_it_trains_on_train2017_and_evaluates_on_val2017(name, row):
    settings = config(name)
    train, val = settings.train_dataloader.dataset, settings.val_dataloader.dataset
    assert (train.ann_file, train.data_prefix.img) == ("annotations/instances_train2017.json", "train2017/")
    assert (val.ann_file, val.data_prefix.img) == ("annotations/instances_val2017.json", "val2017/")


@each
def test_the_schedule_is_the_published_one(name, row):
    settings = config(name)
    warm_up, drops = settings.param_scheduler
    assert (settings.train_cfg.max_epochs, drops.milestones) == row.schedule
    assert (drops.type, drops.by_epoch, drops.gamma, drops.end) == ("MultiStepLR", True, 0.1, row.schedule[0])
    assert (warm_up.type, warm_up.by_epoch, warm_up.end, warm_up.start_factor) == ("LinearLR", False, 500, 0.001)
    optimiser = settings.optim_wrapper.optimizer
    assert (optimiser.type, optimiser.lr, optimiser.momentum, optimiser.weight_decay) == ("SGD", 0.01, 0.9, 1e-4)


@each
def test_a_step_has_two_images_on_each_of_eight_gpus(name, row):
    settings = config(name)
    assert settings.train_dataloader.batch_size * 8 == settings.auto_scale_lr.base_batch_size == 16
    assert settings.auto_scale_lr.enable is False


@each
def test_images_are_scaled_as_published(name, row):
    settings = config(name)
    kinds = ["LoadImageFromFile", "LoadAnnotations", "RandomResize" if row.multi_scale else "Resize", "RandomFlip", "PackDetInputs"]
    train, test = settings.train_dataloader.dataset.pipeline, settings.test_dataloader.dataset.pipeline
    assert [step.type for step in train] == kinds
    assert train[2].scale == ([(1333, 480), (1333, 960)] if row.multi_scale else (1333, 800))
    assert train[2].keep_ratio and train[3].prob == 0.5
    assert next(step for step in test if step.type == "Resize") == dict(type="Resize", scale=(1333, 800), keep_ratio=True)


@each
def test_the_backbone_starts_from_mmdets_own_weights_and_is_frozen_as_there(name, row):
    backbone = config(name).model.backbone
    assert (backbone.type, backbone.init_cfg.checkpoint) == row.backbone
    assert (backbone.frozen_stages, backbone.norm_eval, backbone.norm_cfg.type, backbone.style) == (1, True, "BN", "pytorch")


@each
def test_the_loss_and_the_test_time_settings_are_the_published_ones(name, row):
    model = config(name).model
    head, test = model.bbox_head, model.test_cfg
    assert (head.loss_cls.type, head.loss_cls.beta, head.loss_cls.loss_weight) == ("QualityFocalLoss", 2.0, 1.0)
    assert (head.loss_bbox.type, head.loss_bbox.loss_weight, head.loss_dfl.loss_weight, head.reg_max) == ("GIoULoss", 2.0, 0.25, 16)
    assert (head.salt.coarse_weight, head.salt.sdr_weight) == (1.0, 0.0), "the released code has no SDR term"
    assert (model.train_cfg.assigner.type, model.train_cfg.assigner.topk) == ("ATSSAssigner", 9)
    assert (test.nms_pre, test.score_thr, test.nms.iou_threshold, test.max_per_img) == (1000, 0.05, 0.6, 100)


def kinds_of_convolutions(backbone):
    """Per stage c2 to c5, the kinds of its blocks' 3x3 convolutions (Res2Net has several a block)."""
    stages = (getattr(backbone, layer) for layer in backbone.res_layers)
    return [{type(conv).__name__ for block in stage for conv in getattr(block, "convs", None) or [block.conv2]} for stage in stages]


@each
def test_the_built_network_is_the_rows_and_takes_a_training_step(name, row):
    model = build(name)
    backbone, neck, head = model.backbone, model.neck, model.bbox_head
    assert (type(backbone).__name__, backbone.depth) == (row.backbone[0], 101 if row.deformable else 50)
    stages = [("DeformConv2dPack" if stage in row.deformable else "Conv2d") for stage in (2, 3, 4, 5)]
    assert kinds_of_convolutions(backbone) == [{kind} for kind in stages]
    norms = {type(module.norm).__name__ if module.with_norm else None for module in (*neck.lateral_convs, *neck.fpn_convs)}
    assert norms == ({"GroupNorm"} if row.richer else {None}) and (len(neck.fpn_convs), neck.add_extra_convs) == (5, "on_output")
    plain = ["Conv2d"] * 3
    tower = [*plain[:2], "ModulatedDeformConv2dPack"] if row.richer else plain
    assert [[type(layer.conv).__name__ for layer in convs] for convs in (head.cls_convs, head.reg_convs)] == [tower, tower]
    assert (head.salt.num_points, head.salt.long_skip, head.sdr_weight, head.num_classes) == (9, "cls", 0, 80)
    loss = total(model.loss(*batch([[[4.0, 4.0, 40.0, 36.0], [50.0, 10.0, 90.0, 60.0]]])))
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_big_backbones_have_the_published_width():
    resnext = build("salt_net_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco").backbone.layer2[1]
    res2net = build("salt_net_res2net101-dconv-c4-c5_fpn_ms-2x_coco").backbone
    assert (resnext.conv2.groups, resnext.conv2.out_channels) == (32, 32 * 4 * 2)
    assert (res2net.layer1[0].scales, res2net.layer1[0].convs[0].out_channels) == (4, 26)
    assert res2net.deep_stem and res2net.avg_down, "v1d"


# --- metafile.yml ---


@pytest.fixture(scope="module")
def metafile():
    return yaml.safe_load((CONFIGS / "metafile.yml").read_text())


def test_every_config_has_one_entry_in_the_metafile(metafile):
    assert [model["Name"] for model in metafile["Models"]] == list(TABLE)
    assert [model["Config"] for model in metafile["Models"]] == [f"experiments/configs/{name}.py" for name in TABLE]
    (collection,) = metafile["Collections"]
    assert {model["In Collection"] for model in metafile["Models"]} == {collection["Name"]}


@each
def test_the_metafile_quotes_the_published_table_with_its_source(metafile, name, row):
    (model,) = (model for model in metafile["Models"] if model["Name"] == name)
    published = {entry["Dataset"]: entry["Metrics"]["box AP"] for entry in model["Published"]}
    expected = {"COCO val2017": row.ap} | ({"COCO test-dev2017": row.ap_test_dev} if row.ap_test_dev else {})
    assert published == expected
    assert {(e["Row"], e["Source"]) for e in model["Published"]} == {(row.name, "https://github.com/XavierYoungY/SALT-Net#models")}
    assert (model["Metadata"]["Epochs"], model["Metadata"]["Batch Size"]) == (row.schedule[0], 16)


def test_a_result_of_ours_names_the_record_that_it_comes_from(metafile):
    assert [model["Name"] for model in metafile["Models"] for result in model["Results"] if not result.get("Record")] == []
