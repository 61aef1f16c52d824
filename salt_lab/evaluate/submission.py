"""Result files for COCO's evaluation server, which holds the ground truth of test-dev.

The server takes a zip file with one JSON result list in it. Both are called ``detections_SET_NAME_results`` (cocodataset.org, "Upload"), where SET
is the image set (``test-dev2017``) and NAME the model's.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from salt_lab.errors import UserError

_SERVERS_NAME = re.compile(r"detections_[^_]+_.+_results\.json")


def submission_name(annotations: Path, model: str) -> str:
    """The name that the server wants for the results of ``model`` on the images of an annotation file.

    >>> submission_name(Path("annotations/image_info_test-dev2017.json"), "salt_net")
    'detections_test-dev2017_salt_net_results.json'
    """
    image_set = annotations.stem.removeprefix("image_info_").removeprefix("instances_").replace("_", "-")
    return f"detections_{image_set}_{model}_results.json"


def check_submission_name(path: Path, example: str) -> None:
    """Refuse a name that the server would refuse.

    Raises:
        UserError: names ``example``.
    """
    if not _SERVERS_NAME.fullmatch(path.name):
        raise UserError(f"--out {path}: COCO's server takes detections_SET_NAME_results.json only: name it {path.with_name(example)}")


def zip_submission(results: Path) -> Path:
    """Pack a result list as the server takes it: beside it, same name, ``.zip``; a reader never sees half a file."""
    packed = results.with_suffix(".zip")
    partial = packed.with_name(packed.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(results, results.name)
    os.replace(partial, packed)
    return packed
