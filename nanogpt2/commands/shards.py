"""The command shards: data prepared by several machines that share a folder, step by step."""

from pathlib import Path
from typing import Any

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, TEXT

STEPS = ("scan", "settle", "encode", "merge")


@click.command()
@click.argument("step", type=click.Choice(STEPS))
@click.option("--shard", default="1/1", show_default=True, help="Which share, of scan or encode.")
@click.option("--work", type=PATH, required=True, help="Folder that all machines see.")
@click.option(
    "--config", type=TEXT, default="params.yaml", show_default=True, help="What to prepare, how."
)
@click.option("--out", type=PATH, default="data/prepared", show_default=True, help="Of merge.")
@click.option("--workers", type=click.IntRange(1), help="Processes here; default: the cores.")
@shown
def main(step: str, shard: str, work: Path, config: str, out: Path, workers: int | None) -> None:
    """Do one step of a preparation: scan 1/n to n/n, settle, encode 1/n to n/n, merge.

    The shards of a step run anywhere, in any order and at the same time; each step begins when the
    one before is done. What merge writes are the bytes that the stage prepare writes on one
    machine. A step that was cut off is given again.
    """
    from nanogpt2.base.system.workers import keep_alone

    keep_alone()
    from nanogpt2.base.screen.screen import done
    from nanogpt2.text.prepare.describe import describe
    from nanogpt2.text.shards.shared import Shard, shared_preparation

    share = Shard.parse(shard)
    preparation, block_size = shared_preparation(config, work, workers=workers)
    steps: dict[str, Any] = {
        "scan": lambda: preparation.scan(share),
        "settle": preparation.settle,
        "encode": lambda: preparation.encode(share),
        "merge": lambda: describe(preparation.merge(out, block_size=block_size)),
    }
    told = steps[step]()
    if told:
        click.echo(told)
    done(f"{step} {shard}", to=out if told else work)
