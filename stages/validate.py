"""Stage validate: refuse a bad params.yaml before anything is touched."""

import os
from functools import partial
from pathlib import Path

import click

from stages.shared.command import config_option, done, stage_command


@stage_command
@config_option
@click.option("--built-in", default="data/shakespeare", help="The corpus that a stage makes.")
@click.option("--checkpoint-dir", default="checkpoints", help="What checkpoint_dir must be.")
@click.option("--all-keys", is_flag=True, help="Refuse a file that leaves a key out.")
@click.option("--out", type=Path, default="data/validated.json", help="Written when all is well.")
def main(config: str, built_in: str, checkpoint_dir: str, all_keys: bool, out: Path) -> None:
    """Check every key of the configuration, and that its corpus and device are there."""
    from nanogpt2.base.system.files import make_newer, write_json
    from nanogpt2.base.system.repository import check_repository, find_project
    from nanogpt2.exchange.incoming.init_from import INIT_KEYS, check_init
    from nanogpt2.text.survey.preflight import check_copy, check_run, check_tokens
    from nanogpt2.tokens.choice import check_tokenizer
    from nanogpt2.train.distil.paths import FOLDER, check_paths

    if "DVC_STAGE" in os.environ:
        make_newer(Path(config), *Path().glob("*.dvc"), *Path().glob("*/*.dvc"))
        make_newer(*Path().glob(f"{FOLDER}/*.dvc"))
    if project := find_project():
        check_repository(project)
        check_copy(config, project)
    check_run(
        config,
        built_in=built_in,
        checkpoint_dir=checkpoint_dir,
        needs_all=all_keys,
        also=[
            (INIT_KEYS, partial(check_init, check_tokens=check_tokens)),
            ({"tokenizer", "vocab_size"}, partial(check_tokenizer, in_pipeline=all_keys)),
            ({"teachers"}, partial(check_paths, in_pipeline=all_keys)),
        ],
    )
    write_json(out, {"configuration": "valid"})  # constant: only a broken one reruns other stages
    done("keys, text and device are valid", to=out)


if __name__ == "__main__":
    main()
