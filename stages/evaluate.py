"""Stage evaluate: measure a checkpoint on every held-out split, and what its samples copy."""

from pathlib import Path

import click

from stages.shared.command import checkpoints_option, config_option, done, stage_command


@stage_command
@config_option
@checkpoints_option
@click.option("--data", type=Path, default="data/prepared", help="Folder of the prepare stage.")
@click.option("--metrics", type=Path, default="metrics/eval.json", help="Figures to write.")
@click.option("--copies", type=Path, default="metrics/copies.txt", help="Copied text to write.")
@click.option("--curve", type=Path, default="plots/position.csv", help="Losses to write.")
@click.option("--tokens", type=Path, default="plots/tokens.csv", help="Costly tokens to write.")
def main(config: str, checkpoints: tuple[Path, ...], data: Path, **outputs: Path) -> None:
    """Predict each token of the held-out splits once, and look samples up in the training text."""
    from nanogpt2.base.system import files
    from nanogpt2.config.config import get_config
    from nanogpt2.decode.ensemble.checkpoints import load_checkpoints
    from nanogpt2.device.device import find_device
    from nanogpt2.evaluate import evaluate as evaluation
    from nanogpt2.evaluate import memorisation

    settings = get_config(config)
    knobs = settings.evaluate
    place, tokenizer = find_device(settings.device), data / "tokenizer.json"
    loaded = load_checkpoints(checkpoints, device=place, tokenizer=tokenizer)
    result = evaluation.evaluate_splits(
        loaded,
        data,
        batch_size=knobs.batch_size,
        stride=knobs.stride,
        max_tokens=knobs.max_tokens,
    )
    copied, stretches = memorisation.check_memorisation(loaded, data, knobs)
    files.write_csv(outputs["curve"], result.positions)
    files.write_csv(outputs["tokens"], result.tokens)
    files.write_text(outputs["copies"], stretches)
    files.write_json(outputs["metrics"], {**result.figures, "memorisation": copied})
    click.echo(evaluation.describe(result.figures))
    click.echo(memorisation.describe(copied))
    n_tokens = evaluation.count_tokens(result.figures)
    done(f"of {' and '.join(result.figures)}", n_tokens, "tokens", to=outputs["metrics"])


if __name__ == "__main__":
    main()
