"""``salt-lab look``: a study's finished detectors on images that chose nothing, recorded like trials."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import open_records, overrides_argument, parse_overrides, read_study, store_option, study_argument
from salt_lab.errors import SaltLabError, UserError

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study

NOW, BEFORE, BUSY, LOST = "evaluated now", "evaluated before", "being looked at by another process", "cannot be evaluated"


@click.command("look", short_help="Evaluate a study's detectors on test images.")
@study_argument
@click.argument("annotations", metavar="ANNOTATIONS")
@overrides_argument
@store_option
@click.option("--images", metavar="FOLDER", help="Where the images of ANNOTATIONS are; default: where the study's val images are.")
def command(study: str, annotations: str, overrides: tuple[str, ...], store_root: Path | None, images: str | None) -> int:
    """Evaluate the last checkpoint of every finished trial of STUDY on the images of ANNOTATIONS (COCO's format), which nothing was chosen on.

    Each becomes a record in the folder 'looks' of the results folder: the same training, other val images. The commands that read records read
    it, with that folder and the val split as an override; salt-lab look prints the words. What was looked at is not looked at again, unless its
    trial was trained again.

    \b
    salt-lab look  experiments/real/bccd.yaml $SALT_LAB_BCCD/annotations/test.json
    salt-lab table experiments/real/bccd.yaml data.val=$SALT_LAB_BCCD/annotations/test.json --store runs/looks

    Exit code 1 where a finished trial could not be evaluated, as its checkpoint is gone.
    """
    from salt_lab.cli.trials import planned_trials
    from salt_lab.record.commands import command_for

    store = open_records(store_root)
    elsewhere = [_override("data.val", annotations), *([_override("data.val_images", images)] if images else [])]
    asked = _of_photos(study, overrides)
    trained, other = planned_trials(asked, store), read_study(study, (*overrides, *elsewhere))
    looked = planned_trials(other, store.looks)
    _refuse(study, annotations, asked, other, store)
    finished = {after.trial_id: (before, after) for before, after in zip(trained, looked, strict=True) if before.record.state == "done"}
    if not finished:
        raise UserError(
            f"{study}: none of its {len(trained)} trials is finished in {store.root}. Train them first: {command_for('run', asked, store)}"
        )
    found = _look_at_all(store, other, list(finished.values()))
    unfinished = len({item.trial_id for item in looked}) - len(finished)
    click.echo(
        f"{', '.join(f'{count} {what}' for what, count in found.items() if count)}{f', {unfinished} not finished' if unfinished else ''}"
    )
    click.echo(
        "next: "
        + shlex.join(
            ["salt-lab", "table", study, *overrides, *elsewhere, "--store", str((store_root or store.root) / store.looks.root.name)]
        )
    )
    return 1 if found[LOST] else 0


def _override(key: str, path: str) -> str:
    """An override is read as YAML; a path is taken as it is."""
    plain = f"{key}={path}"
    return plain if parse_overrides([plain])[key] == path else f"{key}={json.dumps(path)}"


def _of_photos(study: str, overrides: tuple[str, ...]) -> Study:
    """The study, whose trials must all have data in COCO's format, and one val split."""
    from salt_lab.spec.trial import CocoData

    question = read_study(study, overrides)
    if not all(isinstance(cell.trial.data, CocoData) for cell in question.cells):
        raise UserError(f"{study}: its images are drawn, and nothing was chosen on them: there is no test split to look at")
    if any(key.startswith("data.val") for cell in question.cells for key in cell.label):
        raise UserError(
            f"{study}: its cells differ in their val images, so they cannot be compared on others. Look at one: data.val=FILE as a base"
        )
    return question


def _refuse(study: str, annotations: str, asked: Study, other: Study, store: Store) -> None:
    """Images that the study has seen are no test."""
    from salt_lab.data import fingerprint, prepare
    from salt_lab.data.coco import shared_images
    from salt_lab.data.fingerprint import image_names
    from salt_lab.data.paths import coco_files
    from salt_lab.record.commands import command_for
    from salt_lab.spec.trial import CocoData

    for before, after in dict.fromkeys((a.trial.data, b.trial.data) for a, b in zip(asked.cells, other.cells, strict=True)):
        assert isinstance(before, CocoData) and isinstance(after, CocoData)
        if fingerprint(before) == fingerprint(after):
            raise UserError(
                f"{annotations}: the study was evaluated on these images already; its table: {command_for('table', asked, store)}"
            )
        known, paths = coco_files(before), prepare(after, store.data_dir)
        shown = image_names(paths.val_json)
        for what, names, folder in (
            ("trained on", known.train_json, known.train_images),
            ("evaluated on while it trained", known.val_json, known.val_images),
        ):
            if both := shared_images(shown, paths.val_images, image_names(names), folder):
                raise UserError(
                    f"{annotations}: {len(both)} of its {len(shown)} images were {what}, such as '{both[0]}': their AP is no test. "
                    "Name images that the study has not seen"
                )


def _look_at_all(store: Store, question: Study, pairs: list[tuple[Planned, Planned]]) -> dict[str, int]:
    """Each pair of finished trial and look once. Returns how many ended how."""
    from salt_lab.train.look import is_look_at

    due = [(before, after) for before, after in pairs if not is_look_at(after.record, before.record)]
    found = {NOW: 0, BEFORE: len(pairs) - len(due), BUSY: 0, LOST: 0}
    if not due:
        return found
    store.looks.check_writable()
    launch_id = store.looks.new_launch(question, [after.trial_id for _, after in due], [after.trial for _, after in due])
    started = time.perf_counter()
    for number, (before, after) in enumerate(due, 1):
        click.echo(f"{before.trial_id} ({before.cell.name} seed={before.trial.seed}): ", nl=False)
        found[_look_at(store, question, before, after, launch_id)] += 1
        left = (time.perf_counter() - started) / number * (len(due) - number)
        click.echo(f" ({number} of {len(due)}, about {left:.0f} s left)" if number < len(due) else "")
    store.looks.end_launch(question.name, launch_id)
    return found


def _look_at(store: Store, question: Study, before: Planned, after: Planned, launch_id: str) -> str:
    from salt_lab.record.store import TrialBusy
    from salt_lab.train.look import look

    try:
        record = look(before.record, after.trial, store, store.looks, study=question.name, launch_id=launch_id)
    except TrialBusy:
        click.echo("another process is looking at it", nl=False)
        return BUSY
    except SaltLabError as error:
        click.echo(f"not evaluated: {error}", nl=False)
        return LOST
    ap = (record.metrics or {}).get("AP")
    click.echo(f"AP {'-' if ap is None else f'{ap:.1f}'}, recorded as {record.trial_id}", nl=False)
    return NOW
