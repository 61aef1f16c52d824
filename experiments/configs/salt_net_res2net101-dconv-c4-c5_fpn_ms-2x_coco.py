# SALT-Net, Res2Net-101 v1d 26w4s, deformable c4-c5, recipe of the ms-2x config: row salt_R2_101_dcnv2_2_FPN_2x, 50.7 AP on val2017.
#   salt-lab train experiments/configs/salt_net_res2net101-dconv-c4-c5_fpn_ms-2x_coco.py --gpus 8
# The row's name says dcnv2; the released config sets deformable convolution v1 (type='DCN') in the backbone, and so does this one.
_base_ = "./salt_net_r50_fpn_ms-2x_coco.py"

model = dict(
    backbone=dict(
        type="Res2Net",
        depth=101,
        scales=4,
        base_width=26,
        dcn=dict(type="DCN", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://res2net101_v1d_26w_4s"),
    )
)
