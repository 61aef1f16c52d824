# SALT-Net, Res2Net-101 v1d 26w4s, deformable c3-c5, GroupNorm in the FPN, DCNv2 as the last convolution of both towers, recipe of the
# ms-2x config: row salt_R2_101_dcnv2_FPN_2x, 51.1 AP on val2017, 51.4 on test-dev: the best published single-scale model.
#   salt-lab train experiments/configs/salt_net_res2net101-dconv-c3-c5_fpn-gn_head-mdconv_ms-2x_coco.py --gpus 8
# The row's name says dcnv2; in the released config that is so in the towers only, the backbone has v1 (type='DCN'), as here.
_base_ = "./salt_net_res2net101-dconv-c4-c5_fpn_ms-2x_coco.py"

model = dict(
    backbone=dict(stage_with_dcn=(False, True, True, True)),
    neck=dict(norm_cfg=dict(type="GN", num_groups=32, requires_grad=True)),
    bbox_head=dict(dcn_on_last_conv=True),
)
