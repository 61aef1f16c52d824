"""Pictures. Each function takes computed data and an ``ax``, draws, and returns the numbers that it drew; the house style: :mod:`..style`."""

from salt_lab.report.pictures.clouds import score_iou_cloud
from salt_lab.report.pictures.cost import ap_against_cost
from salt_lab.report.pictures.curves import learning_curves
from salt_lab.report.pictures.disagreement import disagreements
from salt_lab.report.pictures.forest import forest
from salt_lab.report.pictures.gains import gains
from salt_lab.report.pictures.over_axis import over_axis
from salt_lab.report.pictures.pair import load_pair
from salt_lab.report.pictures.points import point_heat_map, point_heat_maps
from salt_lab.report.pictures.side_by_side import disagreement_sheet, draw_disagreement
from salt_lab.report.pictures.study import Picture, Pictures, jpeg, png, study_pictures

__all__ = [
    "Picture",
    "Pictures",
    "ap_against_cost",
    "disagreement_sheet",
    "disagreements",
    "draw_disagreement",
    "forest",
    "gains",
    "jpeg",
    "learning_curves",
    "load_pair",
    "over_axis",
    "png",
    "point_heat_map",
    "point_heat_maps",
    "score_iou_cloud",
    "study_pictures",
]
