"""Stage sample: let a checkpoint write."""

from pathlib import Path

import click

from stages.shared.command import checkpoints_option, config_option, done, stage_command


@stage_command
@config_option
@checkpoints_option
@click.option(
    "--tokenizer",
    type=Path,
    default="data/prepared/tokenizer.json",
    help="Read where the model file holds no tokenizer.",
)
@click.option("--out", type=Path, default="samples", help="Folder to write.")
def main(config: str, checkpoints: tuple[Path, ...], tokenizer: Path, out: Path) -> None:
    """Draw samples, print the first and write each to a file."""
    from nanogpt2.base.system.errors import DataError
    from nanogpt2.base.system.words import counted
    from nanogpt2.config.config import get_config
    from nanogpt2.decode.ensemble.checkpoints import load_checkpoints, tokenizer_of
    from nanogpt2.device.device import find_device
    from nanogpt2.sample.sample import read_prompt, sample_texts, write_samples

    settings = get_config(config)
    place = find_device(settings.device)
    loaded = load_checkpoints(checkpoints, device=place, tokenizer=tokenizer)
    prompt = read_prompt(settings.sample)
    texts = sample_texts(loaded.model, tokenizer_of(loaded, tokenizer), prompt, settings.sample)
    if read_prompt(settings.sample) != prompt:  # DVC would take the new one for what was read
        changed = settings.sample.prompt_file
        raise DataError(f"{changed} changed while it was read; give the same command again")
    write_samples(out, texts)
    click.echo(texts[0])
    done(counted(len(texts), "sample"), to=out)


if __name__ == "__main__":
    main()
