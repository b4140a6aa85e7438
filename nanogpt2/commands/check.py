"""The command check: whether what lies here is worse than a base, for a job that must say so."""

from pathlib import Path

import click

from nanogpt2.base.screen.screen import done
from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, TEXT


@click.command()
@click.option(
    "--base", type=TEXT, default="origin/main", metavar="COMMIT", help="What to compare with."
)
@click.option(
    "--thresholds",
    type=TEXT,
    default="ci/thresholds.yaml",
    metavar="FILE",
    help="How much worse is allowed.",
)
@click.option("--summary", type=PATH, metavar="FILE", help="Also write it there, as Markdown.")
@click.option(
    "--measure-noise", is_flag=True, help="Write what `seeds` has run to ci/noise.json instead."
)
@shown
def main(base: str, thresholds: str, summary: Path | None, measure_noise: bool) -> None:
    """Say whether dvc.lock fits what lies here, and whether figures are worse than the base's.

    Nothing is trained or pulled: what is compared are the metrics in git. Exits with status 1 where
    the record does not fit, or a figure is worse by more than ci/thresholds.yaml allows. docs/ci.md
    says more.
    """
    from nanogpt2.base.system.files import write_text
    from nanogpt2.experiments.gate.check import check
    from nanogpt2.experiments.gate.noise import measure_noise as measure
    from nanogpt2.experiments.gate.show import as_lines, as_markdown
    from nanogpt2.experiments.gate.thresholds import read_thresholds

    if measure_noise:
        click.echo(measure(read_thresholds(thresholds).noise))
        return
    report = check(base, thresholds=thresholds)
    if summary is not None:
        write_text(summary, as_markdown(report))
    click.echo("\n".join(as_lines(report)))
    done(f"what lies here beside {base}", to=summary)
    if report.failed:
        raise SystemExit(1)
