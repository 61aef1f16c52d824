"""Writing a detector as an ONNX file, and believing the file only after onnxruntime has run it beside PyTorch.

The graph is recorded by the exporter that follows one run (``dynamo=False`` in torch's words). A small ATSS + SALT was recorded with both
under torch 2.13, once each: 1.3 s, and 92 s by the newer one, which reasons about symbolic heights and widths; at three other sizes both
were within 1e-4 px of PyTorch. Older versions of torch, which lack the argument, have this exporter alone (not tried here).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from salt_lab import __version__
from salt_lab.errors import SaltLabError, UserError
from salt_lab.train.onnx_export.check import Agreement, Session, check_sizes, compare, works_on_two
from salt_lab.train.onnx_export.deformable import plain_deformable
from salt_lab.train.onnx_export.graph import RawDetector
from salt_lab.train.onnx_export.heads import check_head
from salt_lab.train.onnx_export.selection import Selection

OPSET = 16  #: the first with GridSample, which point convolution reads with
FINAL = ("dets", "labels")


class Exported(NamedTuple):
    """A file that was written and checked."""

    path: Path
    outputs: tuple[str, ...]
    any_batch: bool  #: False: this host's own code fixes the batch to one picture
    agreement: Agreement  #: with PyTorch


def export_config(config: str, checkpoint: str, output: Path, with_nms: bool = False) -> Exported:
    """Export CHECKPOINT of an mmdet-style CONFIG.

    Args:
        config, checkpoint: as :class:`~salt_lab.train.infer.Inferencer` takes them.
        output: the file to write, ``*.onnx``; it must not exist.
        with_nms: end with detections instead of all boxes and scores.

    Raises:
        UserError: onnx is not installed, the file exists, or this model cannot be exported (says why).
        SaltLabError: onnxruntime and PyTorch disagree; no file is left.
    """
    _check_output(output)
    from salt_lab.train.infer import Inferencer

    look = Inferencer(config, checkpoint, device="cpu")
    check_head(look.model, config)
    scale = _test_scale(look.config)
    facts = dict(config=Path(config).name, checkpoint_sha256=hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest())
    return export_detector(look.model, output, look.classes, scale, with_nms, facts)


def export_detector(
    model: Any, output: Path, classes: Sequence[str], scale: tuple[int, int], with_nms: bool = False, facts: Mapping[str, str] | None = None
) -> Exported:
    """Export a detector that is in memory.

    Args:
        model: in eval mode, on the CPU.
        output: the file to write; it must not exist.
        classes: names, as many as the head has.
        scale: width and height to which the test pipeline resizes pictures; the sizes of the check are derived from it.
        with_nms: as :func:`export_config`.
        facts: more to write into the file's metadata.

    Raises:
        UserError, SaltLabError: as :func:`export_config`.
    """
    _check_output(output)
    check_head(model, output.name)
    if len(classes) != model.bbox_head.num_classes:
        raise UserError(
            f"test_dataloader.dataset.metainfo.classes: {len(classes)} names, but model.bbox_head.num_classes = {model.bbox_head.num_classes}"
        )
    raw = RawDetector(model).eval()
    test_cfg = model.bbox_head.test_cfg
    module = Selection(raw, test_cfg).eval() if with_nms else raw
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        path = Path(folder) / "model.onnx"
        names, any_batch = _record_best(module, path)
        agreement = compare(raw, Session(path), check_sizes(scale), test_cfg if with_nms else None)
        if not agreement.good:
            raise SaltLabError(f"{output}: not written: {agreement.words()}. Please report it with the config")
        kept = FINAL if with_nms else names
        _finish(path, kept, dict(describe(model, classes, scale), **agreement.facts(), **(facts or {})))
        _check_output(output)
        os.replace(path, output)
    return Exported(output, kept, any_batch, agreement)


def describe(model: Any, classes: Sequence[str], scale: tuple[int, int]) -> dict[str, str]:
    """The file's metadata: what a user has to know to feed it and to select from its outputs. Lists and settings are JSON."""
    priors, before, test_cfg = model.bbox_head.prior_generator, model.data_preprocessor, model.bbox_head.test_cfg
    return {
        "salt_lab_version": __version__,
        "detector": f"{type(model).__name__} with {type(model.bbox_head).__name__}",
        "classes": json.dumps(list(classes)),
        "channel_order": "RGB",
        "value_range": "0-255, normalised inside",
        "size_divisor": str(before.pad_size_divisor),
        "padding": "inside: any height and width; boxes are in pixels of the input and clipped to it",
        "test_scale": json.dumps(list(scale)),
        "strides": json.dumps([int(stride[0]) for stride in priors.strides]),
        "priors_per_location": json.dumps([int(count) for count in priors.num_base_priors]),
        "test_cfg": json.dumps(test_cfg.to_dict()),
    }


def _check_output(output: Path) -> None:
    """Before any work: the file is not there and the packages are."""
    if output.suffix.lower() != ".onnx":
        raise UserError(f"-o {output}: give a file name ending in .onnx")
    if output.exists():
        raise UserError(f"-o {output}: exists and is not overwritten; give another name or delete it")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)}: not installed, and export needs it: pip install 'salt-lab[onnx]'")


def _test_scale(config: Any) -> tuple[int, int]:
    """Width and height of the test pipeline's resize; 1333 x 800 where it names none."""
    for step in config.test_dataloader.dataset.pipeline:
        scale = step.get("scale")
        if isinstance(scale, (tuple, list)) and len(scale) == 2 and all(isinstance(side, int) for side in scale):
            return int(scale[0]), int(scale[1])
    return 1333, 800


def _record_best(module: RawDetector | Selection, path: Path) -> tuple[tuple[str, ...], bool]:
    """Record for any number of pictures; where the host's code fixes that number (TOOD's does), for one."""
    names = _record(module, path, any_batch=True)
    any_batch = works_on_two(Session(path), module)
    if not any_batch:
        names = _record(module, path, any_batch=False)
    return names, any_batch


def _record(module: RawDetector | Selection, path: Path, any_batch: bool) -> tuple[str, ...]:
    """Follow one run of the module and write its graph.

    Raises:
        UserError: an operator has no ONNX form; names it.
    """
    raw = module.raw if isinstance(module, Selection) else module
    strides = [int(stride[0]) for stride in raw.model.bbox_head.prior_generator.strides]
    side = 3 * max(strides)  # every level at least 3 cells: mmcv's deformable convolution takes another way on maps below its kernel
    example = torch.rand(1, 3, side, side + raw.divisor, generator=torch.Generator().manual_seed(0)) * 255
    batch = {0: "N"} if any_batch else {}
    with _quiet(), torch.no_grad(), plain_deformable(raw.model), _expm1():
        names = _names(raw, example) + (FINAL if isinstance(module, Selection) else ())
        axes = {name: batch | ({} if name in FINAL else {1: "L"}) for name in names}
        old_way: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
        try:
            torch.onnx.export(
                module,
                (example,),
                str(path),
                opset_version=OPSET,
                input_names=["image"],
                output_names=list(names),
                dynamic_axes={"image": batch | {2: "H", 3: "W"}} | axes,
                **old_way,
            )
        except torch.onnx.errors.UnsupportedOperatorError as error:
            raise UserError(f"this model cannot be exported: {str(error).splitlines()[0]}") from error
    _check_operators(path, type(raw.model.bbox_head).__name__)
    return names


def _names(raw: RawDetector, example: torch.Tensor) -> tuple[str, ...]:
    return ("boxes", "scores", "quality")[: len(raw(example))]


def _check_operators(path: Path, head: str) -> None:
    """An autograd function of mmcv that is not replaced records itself under its own name, which no runtime knows."""
    import onnx

    unknown = sorted({f"{node.domain}::{node.op_type}" for node in onnx.load(str(path)).graph.node if node.domain not in ("", "ai.onnx")})
    if unknown:
        raise UserError(f"this model cannot be exported: {head} or its backbone uses {', '.join(unknown)}, which ONNX does not have")


def _finish(path: Path, outputs: Sequence[str], facts: Mapping[str, str]) -> None:
    """Leave only the wanted outputs, write the metadata, and let onnx check the file's form."""
    import onnx

    graph = onnx.load(str(path))
    for output in [output for output in graph.graph.output if output.name not in outputs]:
        graph.graph.output.remove(output)
    graph.producer_name, graph.producer_version = "salt-lab", __version__
    onnx.helper.set_model_props(graph, dict(facts))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of itself and of every shape that is read, and prints whole graphs before it raises."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


@contextlib.contextmanager
def _expm1() -> Iterator[None]:
    """ONNX has no ``expm1`` (GFLv2's logit of a product needs it): ``tanh(x / 2) * (exp(x) + 1)`` is the same and as exact near 0 **(ours)**."""

    def expm1(g: Any, x: Any) -> Any:
        half, one = (g.op("Constant", value_t=torch.tensor(value)) for value in (0.5, 1.0))
        return g.op("Mul", g.op("Tanh", g.op("Mul", x, half)), g.op("Add", g.op("Exp", x), one))

    torch.onnx.register_custom_op_symbolic("aten::expm1", expm1, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::expm1", OPSET)
