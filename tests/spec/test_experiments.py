"""The studies that the lab ships, and the price of reading one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from salt_lab.spec import load_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
HEAVY = ("torch", "torchvision", "ray", "mlflow", "mmengine", "mmdet", "mmcv", "pandas", "matplotlib", "cv2", "numpy")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALT_LAB_BCCD", "/data/bccd")
    monkeypatch.setenv("SALT_LAB_MOBILENET_V2", "/data/mobilenet_v2.pth")


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_asks_a_question_and_compares_all_its_cells_with_one(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert study.question.endswith(("?", ".")) and "?" in study.question
    keys = {cell.key for cell in study.cells}
    assert all(cell.baseline in keys for cell in study.cells if cell.baseline is not None)
    assert 0 < sum(cell.baseline is None for cell in study.cells) < len(study.cells)


@pytest.mark.parametrize("name", ["quickstart", "bccd"])
def test_both_arms_of_a_comparison_differ_in_the_operator_alone(name: str) -> None:
    study = load_study(EXPERIMENTS / f"{name}.yaml")
    for cell in study.cells:
        if cell.baseline:
            plain = study.cell(cell.baseline).trial
            assert plain.model_copy(update={"salt": cell.trial.salt}) == cell.trial
            assert (plain.salt.enabled, cell.trial.salt.enabled) == (False, True)


def test_the_quickstart_is_three_hosts_off_and_on() -> None:
    cells = load_study(EXPERIMENTS / "quickstart.yaml").cells
    assert {(cell.trial.host, cell.trial.salt.enabled) for cell in cells} == {
        (host, on) for host in ("fcos", "atss", "gfl") for on in (False, True)
    }


def test_bccd_takes_its_paths_from_the_environment() -> None:
    trial = load_study(EXPERIMENTS / "bccd.yaml").cells[0].trial
    assert trial.data.model_dump() == {
        "kind": "coco",
        "train": "/data/bccd/annotations/train.json",
        "val": "/data/bccd/annotations/val.json",
        "images": "/data/bccd/images",
        "val_images": None,
    }
    assert trial.backbone.init == "/data/mobilenet_v2.pth"


def test_the_readme_lists_every_study_with_its_number_of_trials() -> None:
    table = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    for path in EXPERIMENTS.glob("*.yaml"):
        row = next(line for line in table.splitlines() if f"[{path.name}]" in line)
        assert f"| {len(load_study(path).trials())} = " in row


def test_reading_a_study_imports_nothing_heavy() -> None:
    code = (
        "import sys; from salt_lab.spec.study import load_study; import salt_lab.spec\n"
        f"load_study({str(EXPERIMENTS / 'quickstart.yaml')!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=EXPERIMENTS.parent)
    assert done.stdout.strip() == "[]"
