"""``salt-lab plan``: what a study would train, before anything is started. Must start in under half a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salt_lab.cli.shared import open_store, overrides_argument, read_study, show_table, store_option, study_argument

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.record.store import Store
    from salt_lab.spec.study import Study


@click.command("plan", short_help="List a study's trials and what is already done.")
@study_argument
@overrides_argument
@store_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, one JSON object.")
@click.option("--cost", is_flag=True, help="Also GPU-hours (or core-hours), memory, disk and finish time, from records or calibrations.")
@click.option(
    "--slots", type=click.IntRange(min=1), metavar="N", help="With --cost: trials at a time; default as many as fit this machine."
)
def command(study: str, overrides: tuple[str, ...], store_root: Path | None, as_json: bool, cost: bool, slots: int | None) -> None:
    """List the trials of STUDY, those that are already done, and what is compared with what. Starts nothing.

    \b
    salt-lab plan experiments/quickstart.yaml
    salt-lab plan experiments/quickstart.yaml schedule.epochs=3 salt.points=16
    salt-lab plan experiments/quickstart.yaml --cost --slots 2
    """
    plan = read_study(study, overrides)
    store = open_store(store_root)
    trials, absent = _trials(plan, store, cost)
    if slots is not None and not cost:
        raise click.UsageError("--slots is for --cost")
    if cost:
        from salt_lab.cli.plan_cost import cost_as_dict, show_cost
    if as_json:
        more = {**({"cost": cost_as_dict(plan, trials, store, slots)} if cost else {}), **({"data_missing": absent} if absent else {})}
        click.echo(json.dumps(as_dict(plan, trials) | more, indent=2))
        return
    _show(plan, trials, store)
    if absent:
        click.echo(f"The data are not on this machine, so trials have no ids yet, and what is done is not known. {absent}", err=True)
    if cost:
        show_cost(plan, trials, store, slots)


def _trials(plan: Study, store: Store, cost: bool) -> tuple[list[Planned], str]:
    """The trials, and what is said of the data where none of it is on this machine: a plan can be read there, but not what it costs.

    Raises:
        DataError: a data set of which a part is here cannot be read.
    """
    from salt_lab.cli.trials import data_are_elsewhere, planned_trials, trials_without_data
    from salt_lab.errors import DataError

    try:
        return planned_trials(plan, store), ""
    except DataError as error:
        if cost or not data_are_elsewhere(plan):
            raise
        return trials_without_data(plan), str(error)


def as_dict(study: Study, trials: list[Planned]) -> dict[str, Any]:
    """The plan as plain data.

    Returns:
        ``study``, ``question``, ``source``, ``trials`` (list of ``trial_id`` (None where the data are not here), ``state``, ``other_code``
        (versions of training code in its record that are not the present one), ``cell``, ``seed``, ``label``, ``baseline``, ``AP``),
        ``early_stop`` (its rules or None) and ``to_train``, the number of trials that a run would train.
    """
    from salt_lab.cli.trials import unfinished

    names = {cell.key: cell.name for cell in study.cells}
    return {
        "study": study.name,
        "question": study.question,
        "source": str(study.source),
        "trials": [
            {
                "trial_id": item.trial_id or None,
                "state": item.record.state,
                "other_code": list(item.other_code),
                "cell": item.cell.name,
                "seed": item.trial.seed,
                "label": item.cell.label,
                "baseline": names[item.cell.baseline] if item.cell.baseline else None,
                "AP": (item.record.metrics or {}).get("AP"),
            }
            for item in trials
        ],
        "early_stop": study.early_stop.model_dump(mode="json") if study.early_stop else None,
        "to_train": len(unfinished(study, trials)),
    }


def _show(study: Study, trials: list[Planned], store: Store) -> None:
    from salt_lab.cli.trials import count_states, differing_keys, differing_values, show_code_notes, unfinished
    from salt_lab.record.commands import command_for

    click.echo(f"{study.name}: {study.question}" if study.question else study.name)
    keys = differing_keys(study)
    names = {cell.key: cell.name for cell in study.cells}
    compared = any(cell.baseline for cell in study.cells)
    numbers = {cell.key: i for i, cell in enumerate(study.cells, 1)}
    rows = [
        [numbers[item.cell.key], *differing_values(item, keys), item.trial_id or None, _state(item)]
        + ([names.get(item.cell.baseline or "", "(baseline)" if _is_baseline(study, item) else None)] if compared else [])
        for item in trials
    ]
    show_table(["cell", *keys, "trial", "state", *(["compared with"] if compared else [])], rows)
    counts = count_states(trials)
    to_train = len(unfinished(study, trials))
    if study.early_stop:
        click.echo(f"early stopping: {study.early_stop}")
    show_code_notes(trials)
    for note in study.notes:
        click.echo(note)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    click.echo(
        f"{len(trials)} trials ({states}): {to_train} to train." + ("" if to_train else f" See: {command_for('table', study, store)}")
    )


def _is_baseline(study: Study, item: Planned) -> bool:
    return any(cell.baseline == item.cell.key for cell in study.cells)


def _state(item: Planned) -> str:
    ap = (item.record.metrics or {}).get("AP")
    return f"{item.state}, AP {ap:.1f}" if item.record.state == "done" and ap is not None else item.state
