"""``salt-lab``: the table of commands and the entry point. Nothing heavy is imported here."""

from __future__ import annotations

import click

from salt_lab import __version__
from salt_lab.cli.lazy import LazyGroup

#: Command name -> module that defines it as ``command``, in the order in which a newcomer meets them.
COMMANDS = {
    "plan": "salt_lab.cli.plan",
    "calibrate": "salt_lab.cli.calibrate",
    "run": "salt_lab.cli.run",
    "submit": "salt_lab.cli.submit",
    "status": "salt_lab.cli.status",
    "stop": "salt_lab.cli.stop",
    "table": "salt_lab.cli.table",
    "report": "salt_lab.cli.report",
    "check": "salt_lab.cli.check",
    "power": "salt_lab.cli.power",
    "why": "salt_lab.cli.why",
    "ui": "salt_lab.cli.ui",
    "sync": "salt_lab.cli.sync",
    "export": "salt_lab.cli.export",
    "import": "salt_lab.cli.import_study",
    "train": "salt_lab.cli.train",
    "test": "salt_lab.cli.test",
    "infer": "salt_lab.cli.infer",
    "look": "salt_lab.cli.look",
    "probe": "salt_lab.cli.probe",
    "convert": "salt_lab.cli.convert",
    "browse": "salt_lab.cli.browse",
    "data": "salt_lab.cli.data",
    "schema": "salt_lab.cli.schema",
    "doctor": "salt_lab.cli.doctor",
}


@click.group(cls=LazyGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="salt-lab")
def cli() -> None:
    """SALT lab: does this idea really help? Ablations for dense object detectors.

    \b
    salt-lab plan experiments/quickstart.yaml     what would be trained
    salt-lab run experiments/quickstart.yaml      train it, record it, print the table
    salt-lab doctor                               what works on this machine

    Exit codes: 0 all well; 1 some trials failed; 2 bad input, nothing was started; 130 interrupted; 70 a bug of the lab.
    """


def main() -> None:
    """Entry point of ``salt-lab`` and ``python -m salt_lab``."""
    cli(prog_name="salt-lab")
