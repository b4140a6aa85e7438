"""Extra commands for people: `python -m nanogpt2 --help`."""

from importlib import import_module

import click

# Each command, and the module that has it as `main`.
COMMANDS = {
    "generate": "nanogpt2.commands.generate",
    "preset": "nanogpt2.commands.preset",
    "runs": "nanogpt2.commands.runs",
    "score": "nanogpt2.commands.score",
    "seeds": "nanogpt2.commands.seeds",
}


class Commands(click.Group):
    """The commands of `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, as `--help` lists them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called `cmd_name`, or None where there is none."""
        # all of them where there is none, so that click can say which name is the nearest
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            self.add_command(import_module(COMMANDS[name]).main, name)
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"show_default": True})
def main() -> None:
    """What nanoGPT2 offers beside its pipeline (`dvc repro`)."""


if __name__ == "__main__":
    main(prog_name="python -m nanogpt2")
