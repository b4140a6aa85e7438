"""Extra commands for people: `python -m nanogpt2 --help`."""

import atexit
import difflib
import gc
from importlib import import_module
from keyword import iskeyword

import click

from nanogpt2 import __version__

# The map: what a person wants to do, and the commands for it, each with its line in `--help`.
MAP = {
    "Choose a text": {
        "data": "what is in a text, what is wrong, which switch mends it",
        "tokenizer": "characters, bytes or pieces of words: which suits the text",
        "shards": "prepare a large text on several machines",
    },
    "Set up a run": {
        "plan": "what to train in the time there is, and what to expect of it",
        "preset": "a model of another size, or what suits fine-tuning",
        "import": "trained weights of Hugging Face's hub to start from",
        "runs": "runs that were cut off, to go on or be removed",
    },
    "Compare": {
        "report": "all runs on one page, live while they train",
        "seeds": "better, or lucky? one setting or two with several seeds",
        "sweep": "many settings side by side, and the best of them",
        "check": "is this branch worse than its base?",
    },
    "Write and read": {
        "generate": "text from a prompt, as it comes",
        "score": "how surprising a text is to the model",
    },
    "Share": {
        "serve": "the model over HTTP: a page, and OpenAI's completions",
        "export": "the model for other programs, or as one page to play with",
        "card": "a model card: data, figures, samples, how to make it again",
        "verify": "do model, text, parameters, code and record belong together?",
    },
    "This shell": {
        "completion": "the Tab key completes commands, options and files",
    },
}
# Each command, and the module that has it as `main`.
COMMANDS = {
    name: f"nanogpt2.commands.{name}{'_' * iskeyword(name)}"
    for commands in MAP.values()
    for name in commands
}
STAGES = ("validate", "corpus", "init", "prepare", "train", "evaluate", "sample")


class Commands(click.Group):
    """The commands of `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, as `--help` lists them."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called `cmd_name`, or None where there is none."""
        if cmd_name in COMMANDS:
            self.add_command(import_module(COMMANDS[cmd_name]).main, cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` begin with; a usage error names what is like it."""
        known = args[0] in COMMANDS or args[0].startswith("-")
        if not known and not ctx.resilient_parsing:  # as it is where a shell completes a line
            ctx.fail(f"No such command {args[0]!r}. {suggest(args[0])}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the map, and then the options."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the map; no command is imported for it."""
        longest = max(map(len, COMMANDS))
        for purpose, commands in MAP.items():
            with formatter.section(purpose):
                formatter.write_dl([(name.ljust(longest), line) for name, line in commands.items()])


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
    """`dvc repro` trains; `dvc exp run -S key=value` tries a change; and besides:"""


if __name__ == "__main__":
    atexit.register(gc.freeze)  # as stages do
    main(prog_name="python -m nanogpt2", complete_var="_NANOGPT2_COMPLETE")
