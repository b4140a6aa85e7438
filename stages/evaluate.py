"""Stage evaluate: measure a checkpoint on every held-out split."""

from pathlib import Path

import click

from stages.command import config_option, stage_command


@stage_command
@config_option
@click.option("--checkpoint", type=Path, default="checkpoints/best_model.pt", help="Model file.")
@click.option("--data", type=Path, default="data/prepared", help="Folder of the prepare stage.")
@click.option("--metrics", type=Path, default="metrics/eval.json", help="Figures to write.")
@click.option("--curve", type=Path, default="plots/position.csv", help="Losses to write.")
def main(config: str, checkpoint: Path, data: Path, metrics: Path, curve: Path) -> None:
    """Predict each token of the held-out splits once, and write the losses."""
    from nanogpt2.checkpoint import load_checkpoint
    from nanogpt2.config import get_config
    from nanogpt2.device import find_device
    from nanogpt2.evaluation import describe, evaluate_splits
    from nanogpt2.files import write_csv, write_json

    settings = get_config(config)
    loaded = load_checkpoint(checkpoint, device=find_device(settings.device))
    figures, positions = evaluate_splits(loaded, data, batch_size=settings.evaluate.batch_size)
    write_csv(curve, positions)
    write_json(metrics, figures)
    click.echo(describe(figures))


if __name__ == "__main__":
    main()
