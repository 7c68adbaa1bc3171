"""`gpu-setup completion SHELL`: the script that completes commands and options in a shell."""

from __future__ import annotations

import click

from gpu_setup.terminal import echo

EPILOG = """\b
Examples:
  gpu-setup completion bash > ~/.local/share/bash-completion/completions/gpu-setup
  gpu-setup completion zsh  > ~/.zfunc/_gpu-setup
  gpu-setup completion fish > ~/.config/fish/completions/gpu-setup.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for your shell.

    The same as starting gpu-setup with _GPU_SETUP_COMPLETE=bash_source. The script calls `gpu-setup` by that name,
    so it must be on PATH (pipx and uv put it there; for a checkout, link it: ln -s $PWD/gpu-setup ~/.local/bin/).
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    echo(kind(ctx.find_root().command, {}, "gpu-setup", "_GPU_SETUP_COMPLETE").source())
