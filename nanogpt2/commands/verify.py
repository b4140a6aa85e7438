"""The command verify: whether what lies here belongs together."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH


@click.command()
@click.argument("path", type=PATH, required=False, metavar="[CHECKPOINT|FOLDER]")
@click.option("--replay", is_flag=True, help="Also run the recorded commands again, and compare.")
@click.option("--sign", type=PATH, metavar="KEY", help="If all fits, sign it: private key, PEM.")
@click.option("--key", type=PATH, metavar="KEY", help="Check its signature: public key, PEM.")
@shown
def main(path: Path | None, replay: bool, sign: Path | None, key: Path | None) -> None:
    """Say, without network, whether the files here belong together, one line for each.

    Looks at dvc.lock, dvc.yaml, params.yaml, code, prepared data, checkpoints, figures and samples;
    or at one model file in the place of the checkpoints; or at a folder that has a list of its
    files: an export, prepared data. Exits with status 1 where something differs or is not here.
    """
    from nanogpt2.base.screen.screen import done
    from nanogpt2.experiments.proof.verify import all_fit, sign_whole, summarise, verify

    findings = verify(path, replayed=replay, key=key)
    click.echo("\n".join(map(str, findings)))
    click.echo(summarise(findings))
    done(f"{len(findings)} things")
    if sign is not None:
        click.echo(f"signed: {sign_whole(path, sign, findings)}")
    if not all_fit(findings):
        raise SystemExit(1)
