"""Extra commands for people: `python -m nanogpt2 --help`."""

import atexit
import difflib
import gc
from importlib import import_module

import click

from nanogpt2 import __version__

# Each command, and the module that has it as `main`.
COMMANDS = {
    "card": "nanogpt2.commands.card",
    "check": "nanogpt2.commands.check",
    "data": "nanogpt2.commands.data",
    "export": "nanogpt2.commands.export",
    "generate": "nanogpt2.commands.generate",
    "import": "nanogpt2.commands.import_",
    "plan": "nanogpt2.commands.plan",
    "preset": "nanogpt2.commands.preset",
    "report": "nanogpt2.commands.report",
    "runs": "nanogpt2.commands.runs",
    "score": "nanogpt2.commands.score",
    "seeds": "nanogpt2.commands.seeds",
    "serve": "nanogpt2.commands.serve",
    "shards": "nanogpt2.commands.shards",
    "sweep": "nanogpt2.commands.sweep",
    "tokenizer": "nanogpt2.commands.tokenizer",
    "verify": "nanogpt2.commands.verify",
}
STAGES = ("validate", "corpus", "init", "prepare", "train", "evaluate", "sample")


class Commands(click.Group):
    """The commands of `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, as `--help` lists them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called `cmd_name`, or None where there is none."""
        if cmd_name in COMMANDS:
            self.add_command(import_module(COMMANDS[cmd_name]).main, cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` begin with; a usage error names what is like it."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. {suggest(args[0])}")
        return super().resolve_command(ctx, args)


def suggest(name: str) -> str:
    """Return what may be meant by the command `name`, in a sentence."""
    name = name.lower()
    if name in STAGES:
        return f"That is a stage: dvc repro {name}, or python -m stages.{name}"
    begun = [known for known in COMMANDS if known.startswith(name) or name.startswith(known)]
    near = begun or difflib.get_close_matches(name, COMMANDS, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(COMMANDS))}."


@click.group(
    cls=Commands, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, message="nanogpt2 %(version)s")
def main() -> None:
    """What nanoGPT2 offers beside its pipeline (`dvc repro`)."""


if __name__ == "__main__":
    atexit.register(gc.freeze)  # as stages do
    main(prog_name="python -m nanogpt2")
