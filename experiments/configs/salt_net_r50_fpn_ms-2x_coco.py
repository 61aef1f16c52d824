# SALT-Net, ResNet-50, 24 epochs, short side drawn from 480 to 960: row salt_R_50_FPN_2x, 45.8 AP on val2017 in the released table.
#   salt-lab train experiments/configs/salt_net_r50_fpn_ms-2x_coco.py --gpus 8
_base_ = "./salt_net_r50_fpn_1x_coco.py"

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=[(1333, 480), (1333, 960)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
