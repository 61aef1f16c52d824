"""``salt-lab calibrate``: measure what the trials of a study take in memory and time, some seconds for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, show_table, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.record.calibration import Calibration
    from salt_lab.record.store import Store
    from salt_lab.schedule.simulation import Place
    from salt_lab.spec.study import Cell, Study

#: Other work that had the core for more than this share of the time is worth a word.
MUCH_STOLEN = 0.1


@click.command("calibrate", short_help="Measure memory and time of a study's trials.")
@study_argument
@overrides_argument
@store_option
@click.option(
    "--at-once",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Copies at a time, as on a machine with N slots.",
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=8.0, show_default=True, help="Seconds of training that are timed.")
@click.option("--again", is_flag=True, help="Also what was measured before on this kind of machine; earlier measurements are kept.")
def command(study: str, overrides: tuple[str, ...], store_root: Path | None, at_once: int, seconds: float, again: bool) -> int:
    """Train each kind of trial of STUDY for some seconds on this machine and keep what it takes. Trains nothing to its end.

    \b
    salt-lab calibrate experiments/quickstart.yaml
    salt-lab plan experiments/quickstart.yaml --cost

    Memory decides how many trials share a device; times are the basis of plan --cost until there are records. Cells that differ in seed,
    learning rate or number of epochs alone are of one kind. A trial that runs out of memory here ends only its own process, and that is
    kept too. Exit codes: 0 all measured, 1 one could not be.
    """
    from salt_lab.cli.trials import planned_trials

    plan, store = read_study(study, overrides), open_store(store_root)
    planned_trials(plan, store)  # refuses missing data and weights
    store.check_writable()
    kinds = cells_by_kind(plan)
    found = [_measure(cells, plan, store, at_once=at_once, seconds=seconds, again=again) for cells in kinds]
    _show(plan, store, found)
    return 0 if all(one.ok for _, one in found) else 1


def cells_by_kind(study: Study) -> list[list[Cell]]:
    """The study's cells, those together that cost the same per step."""
    from salt_lab.data import fingerprint
    from salt_lab.record.calibration import cost_key, cost_parts

    kinds: dict[str, list[Cell]] = {}
    for cell in study.cells:
        parts = cost_parts(cell.trial, fingerprint(cell.trial.data), study.resources.workers)
        kinds.setdefault(cost_key(parts), []).append(cell)
    return list(kinds.values())


def _measure(cells: list[Cell], study: Study, store: Store, *, at_once: int, seconds: float, again: bool) -> tuple[list[Cell], Calibration]:
    from salt_lab.record.calibration import keep_calibration
    from salt_lab.schedule.cost_known import place_here

    place = place_here(study)
    before = None if again else _earlier(cells[0], store, place, at_once)
    if before is not None:
        click.echo(f"{cells[0].name}: measured before (--again measures it once more)", err=True)
        return cells, before
    from salt_lab.train.calibrate import calibrate

    click.echo(f"{cells[0].name}: measuring ...", err=True)
    device = None if place.gpus else "cpu"
    found = calibrate(cells[0].trial, store, workers=place.workers, threads=place.cpus, device=device, at_once=at_once, budget_s=seconds)
    keep_calibration(store, found)
    return cells, found


def _earlier(cell: Cell, store: Store, place: Place, at_once: int) -> Calibration | None:
    from salt_lab.data import fingerprint
    from salt_lab.record.calibration import calibration_key, calibrations, cost_parts

    key = calibration_key(cost_parts(cell.trial, fingerprint(cell.trial.data), place.workers), place.machine)
    same = [one for one in calibrations(store) if one.key == key and one.threads == place.cpus and one.at_once == at_once and one.ok]
    return same[-1] if same else None


def _show(study: Study, store: Store, found: list[tuple[list[Cell], Calibration]]) -> None:
    from salt_lab.record.commands import command_for

    header = ["cell", "memory GiB", "ms per step", "ms per evaluated image", "largest batch", "checkpoint MiB", "state"]
    show_table(header, [_row(cells, one) for cells, one in found])
    for note in notes([one for _, one in found]):
        click.echo(note)
    click.echo(f"next: {command_for('plan', study, store)} --cost")


def _row(cells: list[Cell], one: Calibration) -> list[Any]:
    name = cells[0].name + (f" (+{len(cells) - 1} alike)" if len(cells) > 1 else "")
    memory = None if one.memory_gb is None else f"{one.memory_gb:.2f}"
    if not one.ok:
        return [name, memory, None, None, None, None, one.ended]
    times = [f"{1000 * seconds:.0f}" if seconds is not None else None for seconds in (one.step_seconds, one.eval_image_seconds)]
    largest = "x".join(map(str, one.largest)) if one.largest else None
    return [name, memory, *times, largest, f"{one.checkpoint_mb:.0f}" if one.checkpoint_mb else None, "ok"]


def notes(found: list[Calibration]) -> list[str]:
    """What the numbers leave out, a sentence each."""
    said = []
    if any(one.details.get("stolen", 0) > MUCH_STOLEN for one in found):
        most = max(one.details.get("stolen", 0) for one in found)
        said.append(
            f"Other work had this machine's cores up to {most:.0%} of the time. That time is not counted, but shared caches and memory made the "
            "rest slower too: measure on a quiet machine for better times (--again). Memory is not affected."
        )
    if any(one.at_once == 1 for one in found):
        said.append("Measured alone: trials that run at the same time slow each other. --at-once N measures that.")
    return said
