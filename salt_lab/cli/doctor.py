"""``salt-lab doctor``: what works on this machine, what is missing and what it would take."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salt_lab.cli.shared import mlflow_option, store_option

if TYPE_CHECKING:
    from salt_lab.cli.checks import Finding


@click.command("doctor", short_help="Say what works on this machine and what is missing.")
@store_option
@mlflow_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, one JSON object.")
def command(store_root: Path | None, mlflow_uri: str | None, as_json: bool) -> int:
    """Show versions, devices, the backend of each op and the results folder; what is missing and what it would take.

    Exit code 0 where everything required is there, else 1.
    """
    from salt_lab.cli import checks
    from salt_lab.record.store import default_store_root

    root = store_root if store_root is not None else default_store_root()
    findings = [*checks.package_findings(), *checks.device_findings(), *checks.op_findings(), *checks.store_findings(root, mlflow_uri)]
    broken = [finding for finding in findings if finding.required and not finding.ok]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _show(findings, broken)
    return 1 if broken else 0


def _show(findings: list[Finding], broken: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    group = None
    for finding in findings:
        if finding.group != group:
            group = finding.group
            click.echo(click.style(group, bold=True))
        mark, colour = ("ok", "green") if finding.ok else ("MISSING", "red") if finding.required else ("-", "yellow")
        click.echo(f"  {click.style(mark.ljust(7), fg=colour)} {finding.name.ljust(width)}  {finding.value}")
        if finding.remedy:
            click.echo(f"          {' ' * width}  -> {finding.remedy}")
    missing = ", ".join(finding.name for finding in broken)
    click.echo(f"required but missing: {missing}" if broken else "everything required is there")
