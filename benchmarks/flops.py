"""GFLOPs of every host at 1280 x 800 with and without SALT: the lab's counter beside mmengine's and beside what others published.

    python benchmarks/flops.py --output benchmarks/results/flops

Writes ``flops.json`` (numbers, versions, machine) and ``flops.md`` (the table). Models are ResNet-50 detectors of mmdet's configs, 80 classes,
untrained; nothing is downloaded. mmengine's counter really runs each model once (seconds and about 1 GB each on a CPU); ``--no-mmengine``
leaves its column empty.

``mmcv 1.x``: the published counts come from the counter that mmcv had until version 1 and ran as hooks of modules. Its rules are applied here
again, on top of the lab's count, so that a published number can be compared to the last digit: a convolution's bias is one operation per
output number, batch norm two per number (one without weights), ReLU one, pooling one per input number; deformable convolution and group norm
are not known to it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from salt_lab.spec.parts import PLAIN_HOSTS, SALT_HOSTS
from salt_lab.spec.trial import Trial
from salt_lab.train.cost import parameters, peak_memory_mb
from salt_lab.train.flops import gflops, multiply_adds
from salt_lab.train.libraries import load_libraries

HEIGHT, WIDTH = 800, 1280


class Published(NamedTuple):
    """A number that others printed, and where it stands; ``height`` and ``width`` in pixels."""

    gflops: float
    source: str
    height: int = HEIGHT
    width: int = WIDTH


PUBLISHED = {
    "retinanet_9_anchors": Published(239.32, "mmdetection, docs/en/user_guides/useful_tools.md, 'Model Complexity' (37.74 M parameters)"),
    "fcos_plain": Published(80.145, "mmdetection issue 1760, a maintainer's output of get_flops.py --shape 640", 640, 640),
    "atss": Published(205.0, "Swin Transformer, arXiv 2103.14030, table 2 (a): ATSS R-50, 32 M parameters, whole GFLOPs"),
}


#: A host whose backbone is then given deformable convolutions (v2) in its last three stages.
DEFORMABLE = {"atss": dict(dcn=dict(type="DCNv2", deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True))}
CAPTION = f"""# GFLOPs of the hosts at {WIDTH} x {HEIGHT}

Made by `python benchmarks/flops.py --output benchmarks/results/flops`; machine and versions are in `flops.json`. ResNet-50, 80 classes.

- **GFLOPs**: the lab's count, 10^9 multiply-adds of convolutions and matrix products, bilinear reading left out (`salt_lab/train/flops.py`).
- **mmengine**: the analyser of mmdet 3's `get_flops.py`. It adds normalisation and interpolation, and does not see deformable convolutions: with
  DCN in the backbone its count falls.
- **mmcv 1.x rules**: the count that published numbers were made with, which adds biases, batch norm, ReLU and pooling and sees neither deformable
  convolutions nor group norm. Where a number is published, it is met to the last digit printed; the lab's count is below it by just those terms.
- For GFL no published count was found that could be read; it differs from ATSS by the width of one predictor and the missing centerness.
- n/a: mmengine's analyser cannot trace the model (TOOD).

"""


def model_of(host: str, salt: bool, **backbone: Any) -> nn.Module:
    """The host's own ResNet-50 model, untrained; ``backbone`` overrides keys of that section."""
    from mmdet.registry import MODELS

    from salt_lab.compose import compose

    trial = Trial.model_validate({"host": host, "salt": salt, "backbone": {"name": "resnet50", "init": "host"}})
    section = compose(trial).model
    section.backbone.update(backbone, init_cfg=None)
    return MODELS.build(section).eval()


def mmengine_gflops(model: nn.Module, height: int, width: int) -> float | None:
    """The count of mmengine's own analyser, as mmdet 3's ``get_flops.py`` prints it; None where it fails."""
    from mmengine.analysis import FlopAnalyzer

    try:
        with torch.no_grad():
            count = FlopAnalyzer(model, torch.zeros(1, 3, height, width)).unsupported_ops_warnings(False)
            return float(count.uncalled_modules_warnings(False).tracer_warnings("none").total()) / 1e9
    except Exception as error:
        print(f"mmengine cannot count: {type(error).__name__}: {error}")
        return None


def mmcv1_gflops(model: nn.Module, height: int, width: int) -> float:
    """The count by the rules of mmcv 1.x (see above)."""
    extra: list[int] = []

    def count(module: nn.Module) -> int:
        hooks = [m.register_forward_hook(lambda m, inputs, out: extra.append(_elementwise(m, inputs[0], out))) for m in module.modules()]
        module(torch.zeros(1, 3, height, width))
        return len(hooks)

    return (multiply_adds(model, count) - _deformable(model, height, width) + sum(extra)) / 1e9


def _elementwise(module: nn.Module, x: Any, out: Any) -> int:
    """What mmcv 1.x counted of a module beside multiply-adds."""
    if isinstance(module, nn.Conv2d):
        return out.numel() if module.bias is not None else 0
    if isinstance(module, nn.BatchNorm2d):
        return x.numel() * (2 if module.affine else 1)
    if isinstance(module, nn.ReLU):
        return out.numel()
    return x.numel() if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)) else 0


def _deformable(model: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of deformable and point convolutions alone: of everything that no ordinary convolution or linear layer makes."""
    ordinary: list[int] = []

    def count(module: nn.Module) -> None:
        for layer in module.modules():
            if type(layer) in (nn.Conv2d, nn.Linear):
                layer.register_forward_hook(lambda m, inputs, out: ordinary.append(out.numel() * m.weight[0].numel()))
        module(torch.zeros(1, 3, height, width))

    return multiply_adds(model, count) - sum(ordinary)


def row(host: str, salt: bool, with_mmengine: bool, **backbone: Any) -> dict[str, Any]:
    """All counts of one model."""
    model = model_of(host, salt, **backbone)
    started = time.perf_counter()
    ours = gflops(model, HEIGHT, WIDTH)
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {"host": host, "salt": salt, "parameters": parameters(model), "gflops": ours, "seconds": round(seconds, 2)}
    found["gflops_deformable_and_points"] = _deformable(model, HEIGHT, WIDTH) / 1e9
    found["gflops_mmengine"] = mmengine_gflops(model, HEIGHT, WIDTH) if with_mmengine else None
    if backbone:
        found["host"] = f"{host}, DCNv2 in c3-c5"
    if not salt and not backbone and (published := PUBLISHED.get(host)):
        size = (published.height, published.width)
        same = {"gflops": gflops(model, *size), "gflops_by_mmcv_1_rules": mmcv1_gflops(model, *size)}
        found["published"] = {"gflops": published.gflops, "input": list(size), "source": published.source, "at_that_size": same}
    elif not salt:
        found["gflops_by_mmcv_1_rules"] = mmcv1_gflops(model, HEIGHT, WIDTH)
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    from salt_lab.report.table import markdown as table

    head = [
        "host",
        "SALT",
        "params (M)",
        "GFLOPs",
        "of it deformable, points",
        "mmengine",
        "mmcv 1.x rules",
        "published",
        "ours / published",
    ]
    return table(head, [_texts(each) for each in rows], 2)


def _texts(found: dict[str, Any]) -> list[str]:
    published, size, by_rules = found.get("published"), "", found.get("gflops_by_mmcv_1_rules")
    ratio = said = ""
    if published:
        by_rules, ours = published["at_that_size"]["gflops_by_mmcv_1_rules"], published["at_that_size"]["gflops"]
        size = "" if published["input"] == [HEIGHT, WIDTH] else f" at {published['input'][1]} x {published['input'][0]}"
        said, ratio = f"{published['gflops']:g}{size}", f"{100 * ours / published['gflops']:.2f} %"
    texts = [_number(found[key]) for key in ("gflops", "gflops_deformable_and_points", "gflops_mmengine")]
    numbers = [f"{found['parameters'] / 1e6:.2f}", *texts, _number(by_rules, 3) + size if by_rules else ""]
    return [found["host"], "on" if found["salt"] else "off", *numbers, said, ratio]


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="GFLOPs of every host at 1280 x 800, with and without SALT.")
    parser.add_argument("--output", type=Path, required=True, help="folder for flops.json and flops.md")
    parser.add_argument("--no-mmengine", action="store_true", help="leave mmengine's counter out: nothing is really run then")
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    load_libraries()
    rows = []
    plain = [(host, False, {}) for host in PLAIN_HOSTS]
    deformable = [(host, False, backbone) for host, backbone in DEFORMABLE.items()]
    for host, salt, backbone in [*((host, salt, {}) for host in SALT_HOSTS for salt in (False, True)), *plain, *deformable]:
        rows.append(row(host, salt, not wanted.no_mmengine, **backbone))
        print(json.dumps(rows[-1]), flush=True)
    save(rows, wanted.output)


def save(rows: list[dict[str, Any]], folder: Path) -> None:
    """The JSON with what made it, and the table."""
    from salt_lab.record.provenance import provenance

    content = {"command": "python benchmarks/flops.py", "input": [HEIGHT, WIDTH], "provenance": provenance(), "rows": rows}
    content["peak_memory_mb"] = round(peak_memory_mb())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flops.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "flops.md").write_text(CAPTION + markdown(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
