"""`gpu-setup data`: import, check, clean and split training data."""

from __future__ import annotations

import click

from gpu_setup.commands.data_check import check_command
from gpu_setup.commands.data_clean import clean_command
from gpu_setup.commands.data_import import import_command
from gpu_setup.commands.data_split import split_command

EPILOG = """\b
Examples:
  gpu-setup data import Sent.mbox --out mine.json       mail, chats and tables become rows
  gpu-setup data check mine.json                        what is wrong with the rows, worst first
  gpu-setup data clean mine.json                        a cleaned copy; shows first what would change
  gpu-setup data split mine-clean.json                  training rows, and held-out rows
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Import, check, clean and split training data. Never changes the file that it reads.

    The format is Alpaca JSON: a list of {"instruction", "input", "output"}.
    """


for subcommand in (check_command, clean_command, import_command, split_command):
    command.add_command(subcommand)
