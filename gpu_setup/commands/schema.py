"""`gpu-setup schema [NAME]`: what the documents of --json promise."""

from __future__ import annotations

import click

from gpu_setup.schema import DOCUMENTS, read_schema
from gpu_setup.terminal import echo
from machine.errors import BadUsage

EPILOG = """\b
Examples:
  gpu-setup schema                       the names of all documents
  gpu-setup schema doctor                the JSON Schema of `gpu-setup doctor --json`
  gpu-setup schema doctor > doctor.schema.json
"""


@click.command(epilog=EPILOG)
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Print the JSON Schema of a document, or list the documents."""
    if name is None:
        echo("\n".join(sorted(DOCUMENTS)))
    elif name not in DOCUMENTS:
        raise BadUsage(
            "schema.unknown",
            f"There is no document '{name}'.",
            f"The documents are: {', '.join(sorted(DOCUMENTS))}.",
            "Name one of them, for example: gpu-setup schema doctor",
        )
    else:
        echo(read_schema(name), nl=False)
