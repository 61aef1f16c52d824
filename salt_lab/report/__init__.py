"""Records -> numbers -> tables and figures. Compute first, then draw; everything here reads the records only."""

from salt_lab.report.check import check_study
from salt_lab.report.figures import gains, learning_curves, save_figures
from salt_lab.report.intervals import find_intervals
from salt_lab.report.published import beside
from salt_lab.report.results import StudyResults, load_results
from salt_lab.report.study import open_study, write_report
from salt_lab.report.style import house_style
from salt_lab.report.table import Pivot, Table, pivot_table, render, study_table

__all__ = [
    "Pivot",
    "StudyResults",
    "Table",
    "beside",
    "check_study",
    "find_intervals",
    "gains",
    "house_style",
    "learning_curves",
    "load_results",
    "open_study",
    "pivot_table",
    "render",
    "save_figures",
    "study_table",
    "write_report",
]
