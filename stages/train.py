"""Stage train: train the model and write its checkpoints, metrics and curves."""

from pathlib import Path

import click

from stages.shared import command


@command.stage_command
@command.config_option
@click.option("--data", type=Path, default="data/prepared", help="Folder of the prepare stage.")
@click.option("--init", type=Path, default="data/init/model.pt", help="File of the init stage.")
@click.option("--metrics", type=Path, default="metrics/train.json", help="Figures to write.")
@click.option("--curve", type=Path, default="plots/loss.csv", help="Losses to write.")
@click.option("--log", type=Path, help="Receives what is printed; NAME-logs by --metrics.")
def main(config: str, data: Path, init: Path, metrics: Path, curve: Path, log: Path | None) -> None:
    """Train; checkpoints go to checkpoint_dir. A run that was cut off goes on by itself."""
    from nanogpt2.config.config import get_config
    from nanogpt2.device.launch import run_as_group
    from nanogpt2.device.start import start_beside

    settings = get_config(config)
    if run_as_group(settings.num_processes):
        return
    start_beside(settings.device)
    from nanogpt2.device.group import joined
    from nanogpt2.report.recorded import read_recorded
    from nanogpt2.report.stopwatch import Stopwatch
    from nanogpt2.tokens.dataset import load_split
    from nanogpt2.train.distil.teachers import make_start
    from nanogpt2.train.record import saving
    from nanogpt2.train.trainer import Trainer

    with joined(settings) as group:
        train, val = (load_split(data, name, settings.block_size) for name in ("train", "val"))
        start = make_start(settings, init, data)
        trainer = Trainer(
            *(start.model, start.config, start.teachers),
            resume_root=command.state_folder(), log_file=log or command.log_beside(metrics),
            stopwatch=Stopwatch.of_process(), group=group,
            recorded=read_recorded(settings, curve, Path("params.yaml")),
            on_evaluation=command.while_dvc_waits(lambda: trainer.record.write(metrics, curve)),
        )  # fmt: skip
        save = saving(start, data, metrics=metrics, curve=curve, say=trainer.display.say)
        trainer.train(train, val, save=command.checked(save), wait=True)


if __name__ == "__main__":
    main()
