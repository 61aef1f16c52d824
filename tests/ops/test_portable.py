"""The stand-in for mmcv's compiled extension: there when needed, out of the way when not, honest about what it lacks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from salt_lab.errors import MissingOpError
from salt_lab.ops import portable
from salt_lab.ops.portable import install

needs_portable = pytest.mark.skipif(not install(), reason="compiled mmcv ops are installed: the portable ones are not in use")
REPO = Path(__file__).parents[2]


def run_python(code: str, *paths: Path) -> str:
    """What a fresh interpreter prints; ``paths`` come before everything else on its module path."""
    path = os.pathsep.join(map(str, (*paths, REPO)))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def fake_mmcv(folder: Path, extension: str | None) -> Path:
    """A package ``mmcv`` that stands for a compiled (or broken, or pure) build."""
    (folder / "mmcv").mkdir()
    (folder / "mmcv" / "__init__.py").write_text("")
    if extension is not None:
        (folder / "mmcv" / "_ext.py").write_text(extension)
    return folder


def test_a_compiled_extension_is_left_alone(tmp_path: Path) -> None:
    fake_mmcv(tmp_path, "origin = 'compiled'")
    code = "import sys; from salt_lab.ops.portable import install; a = install(); b = 'mmcv._ext' in sys.modules\n"
    code += "import mmcv._ext; print(a, b, mmcv._ext.origin, install())"
    assert run_python(code, tmp_path) == "False False compiled False"


def test_without_one_the_portable_module_answers_to_every_import_form(tmp_path: Path) -> None:
    fake_mmcv(tmp_path, None)
    code = "from salt_lab.ops.portable import install; assert install() and install()\n"
    code += "import importlib, importlib.util; one = importlib.import_module('mmcv._ext'); from mmcv import _ext\n"
    code += "print(one is _ext, importlib.util.find_spec('mmcv._ext').name, one.nms.__module__)"
    assert run_python(code, tmp_path) == "True mmcv._ext salt_lab.ops.nms"


@needs_portable
def test_after_a_failed_import_of_mmcv_ops_installing_still_helps() -> None:
    code = "from salt_lab.ops.portable import install\ntry:\n    import mmcv.ops\nexcept ModuleNotFoundError as e:\n    print(e.name)\n"
    assert run_python(code + "install(); import mmcv.ops; print(mmcv.ops.nms.__name__)").split() == ["mmcv._ext", "nms"]


def test_without_mmcv_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, portable.NAME, None)
    monkeypatch.delitem(sys.modules, portable.NAME)
    monkeypatch.setattr(portable.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingOpError, match="pip install onedl-mmcv"):
        install()


@needs_portable
def test_mmengine_takes_it_for_the_full_mmcv() -> None:
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert importlib.util.find_spec(portable.NAME) is not None and mmcv_full_available()


@needs_portable
def test_a_missing_op_imports_and_raises_only_when_called_naming_itself_and_the_remedy() -> None:
    from mmcv.ops import RoIPool

    layer = RoIPool(output_size=2)
    with pytest.raises(MissingOpError) as caught:
        layer(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]))
    message = str(caught.value)
    assert "'roi_pool_forward'" in message and "pip install" in message and "--no-build-isolation" in message
    assert "\n" not in message and str(REPO) not in message


@needs_portable
@pytest.mark.parametrize("name", ["__path__", "__wrapped__", "_private"])
def test_names_that_are_no_op_are_plain_attribute_errors(name: str) -> None:
    assert not hasattr(sys.modules[portable.NAME], name)


@needs_portable
def test_mmcvs_environment_report_works() -> None:
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert "portable" in get_compiler_version() and get_compiling_cuda_version() == "not available"


@needs_portable
@pytest.mark.parametrize(
    "config",
    [
        "atss/atss_r50_fpn_1x_coco.py",
        "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        "gfl/gfl_r50_fpn_1x_coco.py",
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        "vfnet/vfnet_r50_fpn_1x_coco.py",
        "tood/tood_r50_fpn_1x_coco.py",
    ],
)
def test_mmdets_hosts_build_learn_and_detect(config: str) -> None:
    """Loss, backward and prediction on one blank image, with a thin backbone and head so that it takes a second."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config
    from mmengine.logging import MessageHub
    from mmengine.structures import InstanceData

    register_all_modules(init_default_scope=False)
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD changes its assigner with the epoch
    model_config = get_config(f"mmdet::{config}").model
    model_config.pop("data_preprocessor")
    model_config.backbone = {"type": "ResNet", "depth": 18, "base_channels": 8}
    model_config.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    model_config.bbox_head.update(in_channels=32, feat_channels=32, num_classes=3)
    model = MODELS.build(model_config)
    sizes = dict.fromkeys(("img_shape", "ori_shape", "batch_input_shape", "pad_shape"), (160, 160))
    sample = DetDataSample(metainfo=sizes | {"scale_factor": (1, 1)})
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]))
    losses = model.loss(torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)), [sample])
    total = torch.stack([torch.as_tensor(sum(v) if isinstance(v, list) else v) for k, v in losses.items() if "loss" in k]).sum()
    total.backward()
    assert total.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        found = model.predict(torch.rand(1, 3, 160, 160), [sample])[0].pred_instances
    assert found.bboxes.shape[1] == 4 and len(found) <= 100
