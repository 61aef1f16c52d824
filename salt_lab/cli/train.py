"""``salt-lab train``: one model, from an mmdet-style config or from one cell of a study."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import STUDY_SUFFIXES, existing_file, open_store, overrides_argument, parse_overrides, read_study, store_option
from salt_lab.errors import SpecError

if TYPE_CHECKING:
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Cell, Study
    from salt_lab.spec.trial import Trial


@click.command("train", short_help="Train one model: a config, or one cell of a study.")
@click.argument("source", metavar="CONFIG|STUDY")
@overrides_argument
@click.option("--cell", metavar="N|NAME", help="STUDY only: which cell, by its number or name in salt-lab plan.")
@click.option("--seed", type=click.IntRange(min=0), help="STUDY only: which seed; default the study's first.")
@store_option
@click.option("--gpus", type=click.IntRange(min=0), default=0, metavar="N", help="GPUs to train on together; default one if there is one.")
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help="CONFIG only: where logs go.")
@click.option("--amp", is_flag=True, help="CONFIG only: mixed precision (float16, GPU); a STUDY says schedule.amp=true.")
@click.option(
    "--auto-scale-lr", "scale_lr", is_flag=True, help="CONFIG only: scale lr to the images a step; a STUDY says schedule.scale_lr=true."
)
def command(
    source: str,
    overrides: tuple[str, ...],
    cell: str | None,
    seed: int | None,
    store_root: Path | None,
    gpus: int,
    work_dir: Path | None,
    amp: bool,
    scale_lr: bool,
) -> int:
    """Train one model.

    \b
    salt-lab train experiments/configs/salt_net_r50_fpn_1x_coco.py --gpus 8
    salt-lab train experiments/quickstart.yaml --cell "host=atss salt=on"

    A CONFIG goes on from the last checkpoint of its --work-dir, which is work_dirs/NAME unless said.
    A cell of a study is recorded as salt-lab run would record it, and goes on where an earlier run of it stopped. Several GPUs share its
    batch, which N must divide; on a machine without, --gpus N is N processes. The default is what the study's resources say.
    """
    if Path(source).suffix in STUDY_SUFFIXES:
        if amp or scale_lr:
            raise click.UsageError("--amp and --auto-scale-lr are for a CONFIG; a STUDY says schedule.amp=true, schedule.scale_lr=true")
        if work_dir is not None:
            raise click.UsageError("--work-dir is for a CONFIG; a STUDY's records go to --store")
        study, store = read_study(source, overrides), open_store(store_root)
        return _train_recorded(study, choose_trial(study, cell, seed), store, gpus)
    if cell is not None or seed is not None or store_root is not None:
        raise click.UsageError(f"--cell, --seed and --store are for a STUDY (*.yaml), and {source} is none")
    config = existing_file.convert(source, None, click.get_current_context())
    _train_config(config, work_dir, gpus, parse_overrides(overrides), amp=amp, scale_lr=scale_lr)
    return 0


def _train_config(config: Path, work_dir: Path | None, gpus: int, overrides: dict[str, Any], **flags: bool) -> None:
    from salt_lab.train.single import train_config
    from salt_lab.train.together import is_first

    checkpoint = train_config(str(config), work_dir, gpus, overrides, **flags)
    if is_first():
        together = ["--gpus", str(gpus)] if gpus > 1 else []
        click.echo(f"checkpoint: {checkpoint}\nnext: {shlex.join(['salt-lab', 'test', str(config), str(checkpoint), *together])}")


def _train_recorded(study: Study, trial: Trial, store: Store, gpus: int) -> int:
    """Run the study with nothing but this trial in it, here and now."""
    from salt_lab.cli.outcome import show_failures
    from salt_lab.cli.run import choose_mlflow
    from salt_lab.cli.trials import planned_trials
    from salt_lab.schedule.executor import SerialExecutor
    from salt_lab.schedule.launch import run_study
    from salt_lab.spec.resources import check_shared

    resources = study.resources.over(gpus=gpus) if gpus else study.resources
    check_shared(trial.schedule.batch, resources.workers)
    alone = replace(only(study, trial), resources=resources)
    result = run_study(alone, store, SerialExecutor(resources=resources), mlflow_uri=choose_mlflow(store, None))
    trials = planned_trials(alone, store)
    show_failures(trials, store)
    for item in trials:
        if item.record.state == "done":
            ap = (item.record.metrics or {}).get("AP")
            click.echo(
                f"AP {'n/a' if ap is None else f'{ap:.1f}'}; config, log, detections and checkpoint in {store.trial_dir(item.trial_id)}"
            )
    return 0 if result.complete else 1


def only(study: Study, trial: Trial) -> Study:
    """The study with one of its trials in it and no other, to be trained to its end."""
    cell = next(cell for cell in study.cells if trial in cell.trials())
    return replace(study, cells=(replace(cell, seeds=(trial.seed,), trial=trial),), seeds=(trial.seed,), early_stop=None)


def choose_trial(study: Study, cell: str | None, seed: int | None) -> Trial:
    """The trial that ``--cell`` and ``--seed`` name.

    Args:
        cell: a cell's number (1..) or name; may be None where the study has one cell.
        seed: one of the study's seeds; None = the first.

    Raises:
        SpecError: no such cell or seed; the message names the nearest, or the range.
    """
    chosen = _choose_cell(study, cell)
    trials = {trial.seed: trial for trial in chosen.trials()}
    if seed is not None and seed not in trials:
        raise SpecError(f"{study.source}: --seed {seed} is none of the study's seeds: {', '.join(map(str, trials))}")
    return trials[seed] if seed is not None else next(iter(trials.values()))


def _choose_cell(study: Study, cell: str | None) -> Cell:
    cells = study.cells
    if cell is None:
        if len(cells) == 1:
            return cells[0]
        raise SpecError(
            f"{study.source}: has {len(cells)} cells: choose one with --cell N (1-{len(cells)}) or its name; salt-lab plan lists them"
        )
    if cell.isdigit():
        if 1 <= int(cell) <= len(cells):
            return cells[int(cell) - 1]
        raise SpecError(f"{study.source}: --cell {cell}: the study has cells 1 to {len(cells)}")
    return study.cell(cell)
