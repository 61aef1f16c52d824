"""``salt-lab export``: a study's records, to commit or to send; or a model as ONNX, to deploy."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from salt_lab.cli.shared import STUDY_SUFFIXES, existing_file, open_store, overrides_argument, read_study, store_option
from salt_lab.errors import StoreError


@click.command("export", short_help="Copy a study's records, or write a model as ONNX.")
@click.argument("source", metavar="STUDY|CONFIG")
@click.argument("target", metavar="FOLDER|CHECKPOINT")
@overrides_argument
@store_option
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="CONFIG only: the file to write, *.onnx."
)
@click.option("--nms", is_flag=True, help="CONFIG only: end with NMS; outputs dets (N, M, 5) and labels (N, M).")
def command(source: str, target: str, overrides: tuple[str, ...], store_root: Path | None, output: Path | None, nms: bool) -> None:
    """Copy the records of STUDY (*.yaml) into FOLDER, or write CHECKPOINT of an mmdet-style CONFIG as an ONNX file.

    \b
    salt-lab export experiments/quickstart.yaml results/quickstart
    salt-lab export config.py epoch_12.pth -o model.onnx

    STUDY: journals and launches, no weights, no absolute paths. FOLDER is then a results folder: salt-lab table STUDY --store FOLDER makes
    the same table from it on any machine.

    CONFIG: the graph takes 'image' (N, 3, H, W), float32, RGB, 0 to 255, of any size: it normalises and pads by itself. It gives 'boxes'
    (N, L, 4), x1 y1 x2 y2 in pixels of that image, and 'scores' (N, L, C) of all locations, before NMS; 'quality' (N, L) is the factor
    already in the scores, where the model has one. Classes, test settings and more are in the file's metadata. The file is kept only if
    onnxruntime agrees with PyTorch on three sizes; an existing file is never overwritten.
    """
    if Path(source).suffix in STUDY_SUFFIXES:
        if output is not None or nms:
            raise click.UsageError("-o and --nms are for a CONFIG; a STUDY's records go to FOLDER")
        folder = click.Path(file_okay=False, path_type=Path).convert(target, None, click.get_current_context())
        _export_records(source, folder, overrides, store_root)
        return
    if overrides or store_root is not None:
        raise click.UsageError(f"KEY=VALUE and --store are for a STUDY (*.yaml), and {source} is none")
    if output is None:
        raise click.UsageError(f"-o FILE is missing: salt-lab export {source} {target} -o model.onnx")
    config, checkpoint = (existing_file.convert(path, None, click.get_current_context()) for path in (source, target))
    _export_model(config, checkpoint, output, nms)


def _export_records(study: str, folder: Path, overrides: tuple[str, ...], store_root: Path | None) -> None:
    from salt_lab.cli.trials import planned_trials
    from salt_lab.record.export import export_records

    question, store = read_study(study, overrides), open_store(store_root)
    count = export_records(store, question.name, [item.trial_id for item in planned_trials(question, store)], folder)
    if not count:
        raise StoreError(f"{store.root}: has no record of study '{question.name}'; run it first, or name its folder with --store")
    again = shlex.join(["salt-lab", "table", study, *overrides, "--store", str(folder)])
    click.echo(f"{count} trials of {question.name} in {folder}; their table: {again}")


def _export_model(config: Path, checkpoint: Path, output: Path, nms: bool) -> None:
    from salt_lab.train.onnx_export.files import OPSET, export_config

    done = export_config(str(config), str(checkpoint), output, with_nms=nms)
    batch = "any number of images" if done.any_batch else "one image at a time (this host's own code fixes it)"
    click.echo(f"{done.path}: {done.path.stat().st_size / 2**20:.1f} MB, opset {OPSET}, {batch}, outputs {', '.join(done.outputs)}")
    click.echo(done.agreement.words())
