"""The knobs of sampling as options: one given, else params.yaml's value, else the schema's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nanogpt2.commands.shared.values import number

if TYPE_CHECKING:
    from nanogpt2.config.groups import SampleConfig

PARAMS = Path("params.yaml")


class Knob(click.Option):
    """An option that is None where it is not given; help shows what counts then."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option, and its help with the value that it has without it."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [default: {describe_default(str(self.name))}]")


KNOBS: dict[str, tuple[Any, str]] = {
    "max_new_tokens": (int, "Tokens after the prompt."),
    "temperature": (float, "Below 1 safer, above 1 wilder, 0 greedy."),
    "top_k": (int, "Draw among the k most likely tokens; 0 among all."),
    "top_p": (float, "Draw among the most likely that make up p."),
    "min_p": (float, "Draw among those p times as likely as the first."),
    "repetition_penalty": (float, "Above 1: avoid what stands there."),
    "stop": (str, "A text before which to end; can be repeated."),
    "window": (str, "Past block_size: exact, or half, which is quicker."),
    "seed": (int, "Of the first sample; the next have the next seeds."),
}


def knob_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` an option for each knob."""
    for name, (kind, text) in reversed(KNOBS.items()):
        flag, many = f"--{name.replace('_', '-')}", name == "stop"
        type_ = number() if kind is float else kind  # its range is the schema's, as in a file
        option = click.option(
            flag, name, cls=Knob, type=type_, help=text, multiple=many, show_default=False
        )
        command = option(command)
    return command


def read_knobs(given: Mapping[str, Any], params: Path) -> tuple["SampleConfig", bool]:
    """Return the knobs, checked, and whether the prompt's file is one that `params` names.

    Those of `given` that are None or empty have the values of the group `sample` in `params`, if
    that file is there, and else the schema's. ConfigError where one is wrong; other keys of the
    file do not matter here.
    """
    from nanogpt2.config.config import make_config

    own = read_group(params)
    make_config({"sample": own}, name=str(params))
    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    if "stop" in chosen:
        chosen["stop"] = list(chosen["stop"])
    return make_config({"sample": {**own, **chosen}}, name="generate").sample, "prompt_file" in own


def read_group(params: Path) -> Any:
    """Return the group `sample` of a parameter file, nothing where there is no such file."""
    from nanogpt2.config import yaml12

    if params == PARAMS and not params.exists():
        return {}
    return yaml12.read(params).get("sample", {})


def describe_default(name: str) -> str:
    """Return what a knob is without its option, and whence it comes where not from the schema."""
    from nanogpt2.base.system.errors import ConfigError
    from nanogpt2.config.schema import load_schema
    from nanogpt2.config.yaml12 import show

    try:
        own = read_group(PARAMS)
    except ConfigError:  # help is for people with a broken file too
        own = {}
    if isinstance(own, Mapping) and name in own:
        return f"{show(own[name])}, of {PARAMS}"
    return show(load_schema()["properties"]["sample"]["properties"][name]["default"])
