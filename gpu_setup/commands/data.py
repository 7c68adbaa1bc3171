"""`gpu-setup data`: from what people have to Alpaca data worth training on."""

from __future__ import annotations

import click

from gpu_setup.commands.data_check import check_command
from gpu_setup.commands.data_clean import clean_command
from gpu_setup.commands.data_import import import_command
from gpu_setup.commands.data_split import split_command

EPILOG = """\b
Examples:
  gpu-setup data import Sent.mbox --out mine.json       mail, chats and tables become rows
  gpu-setup data check mine.json                        what is wrong with them, worst first
  gpu-setup data clean mine.json                        a cleaned copy, after showing what would change
  gpu-setup data split mine-clean.json                  rows to train on, and held-out ones
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Import, check, clean and split training data. Never changes the file that it reads.

    The format is Alpaca JSON: a list of {"instruction", "input", "output"}.
    """


for subcommand in (check_command, clean_command, import_command, split_command):
    command.add_command(subcommand)
