"""``salt-lab probe``: the missing probes of a study's finished trials, from their last checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import open_records, overrides_argument, read_study, store_option
from salt_lab.errors import SaltLabError, StoreError

if TYPE_CHECKING:
    from salt_lab.cli.trials import Planned
    from salt_lab.evaluate.probe_data import Probe
    from salt_lab.record.store import Store


@click.command("probe", short_help="Make missing probes of finished trials.")
@click.argument("study", metavar="STUDY")
@overrides_argument
@store_option
@click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...; default: a GPU where there is one.")
def command(study: str, overrides: tuple[str, ...], store_root: Path | None, device: str | None) -> None:
    """Measure, for every finished trial of STUDY that has no probe, how its detector sees the locations that learn each object of the val images.

    A trial does this itself at its end (probe.npz in its folder: class score, IoU, points); this command is for trials of older versions, for
    damaged files, and for those whose measuring failed. It needs the trial's last checkpoint, and changes nothing else.
    """
    from salt_lab.cli.trials import planned_trials

    store = open_records(store_root)
    question = read_study(study, overrides)
    trials = {item.trial_id: item for item in planned_trials(question, store)}
    done = [item for item in trials.values() if item.record.state == "done"]
    made, lost = 0, 0
    for item in done:
        if _has_probe(store, item):
            continue
        started = time.perf_counter()
        try:
            probe = _make(store, item, device)
        except SaltLabError as error:
            lost += 1
            click.echo(f"{item.trial_id}: no probe: {error}")
        else:
            made += 1
            click.echo(f"{item.trial_id}: {_words(probe)} ({time.perf_counter() - started:.1f} s)")
    there = len(done) - made - lost
    click.echo(f"{len(trials)} trials, {len(done)} done: {there} had a probe, {made} made, {lost} cannot be made any more")


def _has_probe(store: Store, item: Planned) -> bool:
    """Is there one that can be read and says something?"""
    from salt_lab.evaluate.probe_data import PROBE, load_probe

    try:
        return not load_probe(store.trial_dir(item.trial_id) / PROBE).note
    except StoreError:
        return False


def _make(store: Store, item: Planned, device: str | None) -> Probe:
    from salt_lab.train.probe import check_checkpoint, probe_checkpoint

    check_checkpoint(store, item.trial_id, item.trial.schedule.epochs)
    with store.lock(item.trial_id):
        return probe_checkpoint(item.trial, store, item.trial_id, device)


def _words(probe: Probe) -> str:
    if probe.note:
        return f"nothing to measure: {probe.note}"
    kept = "" if probe.total == len(probe) else f", {len(probe)} of them kept"
    return f"{probe.total} positive locations{kept}"
