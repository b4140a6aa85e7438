"""Reading the model of a run that is not over, and what training says at its ends."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import NanoGPT2Error
from nanogpt2.commands.shared.unfinished import load_unfinished
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import load_split
from nanogpt2.train.trainer import Trainer
from stages.train import main as train_stage


def cut_off(config: Config) -> GPT:
    """Train on data/prepared until a disk that is full ends it, and keep the state."""
    model = GPT(config)

    def fail(*_: object) -> None:
        raise NanoGPT2Error("no room")

    train, val = (load_split("data/prepared", name, 16) for name in ("train", "val"))
    with pytest.raises(NanoGPT2Error, match="no room"):
        Trainer(model, config).train(train, val, save=fail)
    return model


@pytest.fixture(autouse=True)
def _prepared(text: str) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare("text.txt", "data/prepared", tokenizer="char", vocab_size=64, fractions=(0.2, 0.1))


def run(command: str, *options: str) -> Result:
    return CliRunner().invoke(main, [command, *options, "--device", "cpu"])


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.9}, {"architecture": "modern", "n_head": 1}]
)
def test_the_model_of_a_run_that_was_cut_off_can_be_used(
    tiny: Config, changes: dict[str, object]
) -> None:
    config = get_config(tiny, **changes)
    model = cut_off(config)
    save_checkpoint("m.pt", model.state_dict(), config, tokenizer=None, origin={})
    options = ["--prompt", "the", "--max-new-tokens", "30", "--temperature", "1"]
    expected = run("generate", "--checkpoint", "m.pt", *options).stdout
    assert len(expected) == 34
    (folder,) = (path for path in Path(".resume").iterdir() if path.is_dir())
    newest = sorted(folder.glob("*.pt"))[-1]
    for which in (
        ["--run"],
        ["--run", folder.name],
        ["--run", folder.name[:5]],
        ["--checkpoint", str(folder)],
        ["--checkpoint", str(newest)],
    ):
        done = run("generate", *which, *options)
        assert done.stdout == expected, done.stderr
        assert "not over, at iteration 6" in done.stderr
    assert (
        run("score", "text.txt", "--run").stdout
        == run("score", "text.txt", "--checkpoint", "m.pt").stdout
    )


def test_a_damaged_state_is_passed_over_for_the_one_before(tiny: Config) -> None:
    cut_off(get_config(tiny, checkpoint_interval=2))
    older, newest = sorted(Path(".resume").glob("*/*.pt"))
    newest.write_bytes(newest.read_bytes()[:-10])
    assert load_unfinished(newest.parent).origin == {"iter": int(older.name[:10])}
    older.write_bytes(b"")
    done = run("generate", "--run")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no whole state of a run" in done.stderr


def test_without_a_run_it_says_so_and_with_one_a_missing_model_names_it(tiny: Config) -> None:
    done = run("generate", "--run")
    line = "no unfinished run with a state under .resume; there are: none\n"
    assert (done.exit_code, done.stderr) == (1, line)
    assert "`dvc repro train` makes it" in run("generate").stderr
    cut_off(tiny)
    (folder,) = (path for path in Path(".resume").iterdir() if path.is_dir())
    read = (
        f"--run, without --checkpoint, reads the newest run that is not over: {folder.name},"
        f" iteration {tiny.max_iters}, {(folder / 'run.txt').read_text(encoding='utf-8')}\n"
    )
    makes = "no such file; `dvc repro train` makes"
    assert run("generate").stderr == f"checkpoints/best_model.pt: {makes} it; {read}"
    none = f"none.pt: {makes} checkpoints/best_model.pt"
    assert run("generate", "--checkpoint", "none.pt").stderr == f"{none}; {read}"
    assert run("serve", "--checkpoint", "none.pt", "--port", "0").stderr == f"{none}\n"
    for path in folder.glob("*.pt"):
        path.unlink()
    assert run("generate", "--checkpoint", "none.pt").stderr == f"{none}\n"
    assert run("generate", "--run", "none").stderr.startswith("no unfinished run none with a state")


def test_only_what_training_made_is_listed_and_pruned(tiny: Config) -> None:
    cut_off(tiny)
    (folder,) = (path for path in Path(".resume").iterdir() if path.is_dir())
    own = ["src", "0123456789abcdef", ".resume/notes", ".resume/empty"]
    for other in map(Path, own):
        other.mkdir()
        (other / "a.txt").write_text("mine", encoding="utf-8")
    Path("src/run.txt").write_text("mine too", encoding="utf-8")
    for arguments in (["--root", "."], ["--root", ".resume"]):
        done = CliRunner().invoke(main, ["runs", *arguments, "prune", "src"])
        assert (done.exit_code, done.stderr) == (1, f"no unfinished run src under {arguments[1]}\n")
    assert "no unfinished runs under ." in CliRunner().invoke(main, ["runs", "--root", "."]).stdout
    assert CliRunner().invoke(main, ["runs"]).stdout.split()[0] == folder.name
    for arguments in (["--root", "."], []):
        assert CliRunner().invoke(main, ["runs", *arguments, "prune"]).exit_code == 0
    assert not folder.exists()
    assert all(Path(other, "a.txt").is_file() for other in own)


@pytest.mark.parametrize("prune", [[], ["prune"]])
@pytest.mark.parametrize(("root", "why"), [("none", "no such folder"), ("text.txt", "a file")])
def test_a_root_of_runs_that_is_no_folder_is_refused(root: str, why: str, prune: list[str]) -> None:
    done = CliRunner().invoke(main, ["runs", "--root", root, *prune])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"{root}: {why}")


@pytest.mark.parametrize("content", [b"", b"text", b"PK"])
def test_a_file_that_is_no_state_is_refused(content: bytes) -> None:
    Path(".resume/run").mkdir(parents=True)
    Path(".resume/run/a.pt").write_bytes(content)
    done = run("generate", "--checkpoint", ".resume/run/a.pt")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    torch.save({"stepper": [], "record": {"step": 3}}, ".resume/run/a.pt")
    done = run("generate", "--checkpoint", ".resume/run/a.pt")
    assert done.stderr == ".resume/run/a.pt: not a state of this version's runs\n"


def test_training_begins_with_the_losses_of_iteration_0_and_ends_with_the_best() -> None:
    Path("my.yaml").write_text(
        "{device: cpu, vocab_size: 64, block_size: 16, n_layer: 1, n_head: 1, n_embd: 8,"
        " batch_size: 4, max_iters: 4, eval_interval: 2, eval_iters: 2, checkpoint_dir: out}",
        encoding="utf-8",
    )
    done = CliRunner().invoke(train_stage, ["--config", "my.yaml"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("iter 0: train loss 4.1")  # about ln 64
    (best,) = (line for line in lines if line.startswith("best val loss"))
    assert "at iteration 4: out/best_model.pt; the last, at 4," in best.replace("\\", "/")
    curve = Path("plots/loss.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in curve] == ["iter", "2", "4"]


def test_a_run_that_goes_on_says_no_iteration_0(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(tiny)
    assert "iter 0: " in capsys.readouterr().out
    cut_off(tiny)
    assert "iter 0: " not in capsys.readouterr().out
