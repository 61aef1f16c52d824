"""``salt-lab export``: a study's records, to commit or to send; or a model as ONNX, to deploy."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from salt_lab.cli.shared import STUDY_SUFFIXES, existing_file, open_store, overrides_argument, read_study, store_option


@click.command("export", short_help="Copy a study's records, or write a model as ONNX.")
@click.argument("source", metavar="STUDY|CONFIG")
@click.argument("target", metavar="FOLDER|CHECKPOINT", required=False)
@overrides_argument
@store_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="STUDY: FOLDER, named so. CONFIG: the file to write, *.onnx.",
)
@click.option("--detections", is_flag=True, help="STUDY only: also every trial's detections; intervals need them.")
@click.option(
    "--as-is", is_flag=True, help="STUDY only: keep absolute paths, and take configs, logs and patches along: all that MLflow has of it."
)
@click.option("--nms", is_flag=True, help="CONFIG only: end with NMS; outputs dets (N, M, 5) and labels (N, M).")
def command(
    source: str,
    target: str | None,
    overrides: tuple[str, ...],
    store_root: Path | None,
    output: Path | None,
    nms: bool,
    detections: bool,
    as_is: bool,
) -> None:
    """Copy the records of STUDY (*.yaml) into FOLDER, or write CHECKPOINT of an mmdet-style CONFIG as an ONNX file.

    \b
    salt-lab export experiments/quickstart.yaml results/quickstart
    salt-lab export config.py epoch_12.pth -o model.onnx

    STUDY: journals and launches, no weights, no absolute paths; Parquet of trials and metric points; manifest.json with the hash of every
    file. salt-lab import FOLDER takes it into another results folder and another MLflow; salt-lab table STUDY --store FOLDER makes the same
    table from it on any machine. Exported again, it grows; no record in it is replaced by another.

    CONFIG: the graph takes 'image' (N, 3, H, W), float32, RGB, 0 to 255, of any size: it normalises and pads by itself. It gives 'boxes'
    (N, L, 4), x1 y1 x2 y2 in pixels of that image, and 'scores' (N, L, C) of all locations, before NMS; 'quality' (N, L) is the factor
    already in the scores, where the model has one. Classes, test settings and more are in the file's metadata. The file is kept only if
    onnxruntime agrees with PyTorch on three sizes; an existing file is never overwritten.
    """
    if Path(source).suffix in STUDY_SUFFIXES:
        if nms:
            raise click.UsageError("--nms is for a CONFIG; a STUDY's records go to FOLDER")
        if output is not None and target is not None and "=" not in target:
            raise click.UsageError(f"two folders for {source}: {target} and -o {output}; name one")
        if output is not None:  # the first word after STUDY is then a KEY=VALUE
            target, overrides = str(output), (*((target,) if target else ()), *overrides)
        if target is None:
            raise click.UsageError(f"FOLDER is missing: salt-lab export {source} FOLDER")
        folder = click.Path(file_okay=False, path_type=Path).convert(target, None, click.get_current_context())
        _export_records(source, folder, overrides, store_root, detections, as_is)
        return
    if detections or as_is:
        raise click.UsageError(f"--detections and --as-is are for a STUDY (*.yaml), and {source} is none")
    if target is None:
        raise click.UsageError(f"CHECKPOINT is missing: salt-lab export {source} epoch_12.pth -o model.onnx")
    if overrides or store_root is not None:
        raise click.UsageError(f"KEY=VALUE and --store are for a STUDY (*.yaml), and {source} is none")
    if output is None:
        raise click.UsageError(f"-o FILE is missing: salt-lab export {source} {target} -o model.onnx")
    config, checkpoint = (existing_file.convert(path, None, click.get_current_context()) for path in (source, target))
    _export_model(config, checkpoint, output, nms)


def _export_records(study: str, folder: Path, overrides: tuple[str, ...], store_root: Path | None, detections: bool, as_is: bool) -> None:
    from salt_lab.cli.trials import planned_trials
    from salt_lab.record.archive import write_archive

    question, store = read_study(study, overrides), open_store(store_root)
    trial_ids = [item.trial_id for item in planned_trials(question, store)]
    counts = write_archive(store, question, trial_ids, folder, detections=detections, as_is=as_is)["counts"]
    again = shlex.join(["salt-lab", "table", study, *overrides, "--store", str(folder)])
    click.echo(f"{counts['trials']} trials of {question.name} in {folder} ({counts['points']} numbers); their table: {again}")


def _export_model(config: Path, checkpoint: Path, output: Path, nms: bool) -> None:
    from salt_lab.train.onnx_export.files import OPSET, export_config

    done = export_config(str(config), str(checkpoint), output, with_nms=nms)
    batch = "any number of images" if done.any_batch else "one image at a time (this host's own code fixes it)"
    click.echo(f"{done.path}: {done.path.stat().st_size / 2**20:.1f} MB, opset {OPSET}, {batch}, outputs {', '.join(done.outputs)}")
    click.echo(done.agreement.words())
