"""``salt-lab schema``: the JSON schema of study files, for editors."""

from __future__ import annotations

import click


@click.command("schema", short_help="Print the JSON schema of study files.")
def command() -> None:
    """Print the JSON schema of study files, for completion and checks in an editor.

    \b
    The same text is committed as experiments/study.schema.json; with the YAML language server, begin a study with
    # yaml-language-server: $schema=study.schema.json
    """
    from salt_lab.spec.schema import schema_text

    click.echo(schema_text(), nl=False)
