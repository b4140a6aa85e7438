"""Loggers: each real one is fed what training prints, goes on with the run, and never ends it."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from imports import ROOT

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.report.loggers import SINKS, Logger
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer

Points = dict[str, list[tuple[int, float]]]  # (step, value) of each name
FINAL = ("train_loss", "val_loss", "best_iter", "best_val_loss")


def read_tensorboard() -> tuple[Points, dict[str, str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = [path for path in Path("logs/tensorboard").iterdir() if path.name != "runs"]
    events = EventAccumulator(str(folder))
    events.Reload()
    points = {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    (table,) = events.Tensors("params/text_summary")
    rows = table.tensor_proto.string_val[0].decode().splitlines()[2:]
    return points, dict(row.strip("| ").split(" | ", 1) for row in rows if row.count("|") == 3)


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of an offline run: a log in LevelDB's form, in blocks of 32 KiB."""
    place, record = 7, b""  # after the file's own header
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, size, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def read_wandb() -> tuple[Points, dict[str, str]]:
    from wandb.proto.wandb_internal_pb2 import Record

    points: Points = {}
    params: dict[str, str] = {}
    for path in sorted(Path("logs/wandb/wandb").glob("offline-run-*/*.wandb")):
        for content in wandb_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            params |= {each.key: each.value_json for each in record.run.config.update}
            items = record.history.item
            row = {each.key or each.nested_key[0]: each.value_json for each in items}
            for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                points.setdefault(name, []).append((int(row["_step"]), float(row[name])))
            for each in record.summary.update:
                if each.key.startswith("final/"):
                    points[each.key] = [(0, float(each.value_json))]
    return points, params


def read_mlflow() -> tuple[Points, dict[str, str]]:
    import mlflow

    client = mlflow.MlflowClient(
        tracking_uri=f"sqlite:///{Path('logs/mlflow/mlflow.db').resolve()}"
    )
    experiment = client.get_experiment_by_name("nanogpt2")
    (run,) = client.search_runs([experiment.experiment_id])
    points = {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return points, run.data.params


def read_trackio() -> tuple[Points, dict[str, str]]:
    points: Points = {}
    with sqlite3.connect("logs/trackio/nanogpt2.db") as database:
        for step, row in database.execute("select step, metrics from metrics order by step"):
            for name, value in json.loads(row).items():
                points.setdefault(name, []).append((step, value))
        (config,) = database.execute("select config from configs")
    database.close()
    return points, {name: str(value) for name, value in json.loads(config[0]).items()}


READERS = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.fixture(params=list(READERS))
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A logger that is installed, set up nowhere."""
    if find_spec(request.param) is None:
        pytest.skip(f"needs the extra {request.param}")
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    return str(request.param)


def train(
    config: Config, text: str, on_evaluation: Callable[..., None] | None = None
) -> tuple[TrainingRecord, GPT]:
    dataset = CharDataset(text, config.block_size)
    torch.manual_seed(1)
    model = GPT(config)
    return Trainer(model, config, on_evaluation=on_evaluation).train(dataset, dataset), model


def with_log(config: Config, tool: str, **changes: Any) -> Config:
    return get_config(config, log_to=tool, **changes)


@pytest.mark.filterwarnings("ignore")
def test_a_logger_has_the_numbers_that_training_prints_once_also_after_going_on(
    tiny: Config, text: str, tool: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(history: Sequence[Mapping[str, float]]) -> None:
        raise KeyboardInterrupt  # which saves nothing: the state is that of step 2

    config = with_log(tiny, tool, checkpoint_interval=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, text, on_evaluation=crash)
    record, _ = train(config, text)
    points, params = READERS[tool]()
    rows = record.history
    for name in ("train_loss", "val_loss", "learning_rate"):
        logged = [point for point in points[name] if point[0]]
        assert [step for step, _ in logged] == [3, 6]
        assert [value for _, value in logged] == pytest.approx([row[name] for row in rows])
    assert [step for step, _ in points["val_loss"]] == [0, 3, 6]
    assert len(points["tokens_per_second"]) == 2
    for name in FINAL:
        assert points[f"final/{name}"][-1][1] == pytest.approx(record.metrics()[name])
    assert params["n_layer"] == str(config.n_layer)
    assert float(params["sample.temperature"]) == config.sample.temperature
    shown = capsys.readouterr()
    assert shown.out.count("logged as run-") == 2
    assert "nothing more goes" not in shown.out + shown.err


def test_an_experiment_of_dvc_gives_its_name_and_the_project_keeps_the_log(
    tiny: Config, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    monkeypatch.setenv("DVC_EXP_NAME", "bold")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    train(with_log(tiny, "tensorboard"), text)
    train(with_log(tiny, "tensorboard"), text)  # another run, so a log of its own
    names = [path.name for path in (tmp_path / "logs/tensorboard").glob("bold-*")]
    assert len(names) == 2


@pytest.mark.parametrize("missing", list(SINKS))
def test_a_logger_that_is_missing_is_one_line_with_the_command_that_brings_it(
    tiny: Config,
    text: str,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    record, _ = train(with_log(tiny, missing), text)
    assert record.step == tiny.max_iters
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(lines) == 1
    assert f"'.[{missing}]'" in lines[0]


def test_a_logger_that_fails_is_said_once_and_changes_no_weight(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    _, model = train(tiny, text)
    _, logged = train(with_log(tiny, "tensorboard"), text)
    Path("logs/tensorboard/runs").rename("gone")
    Path("logs/tensorboard/runs").write_text("a file", encoding="utf-8")
    _, failed = train(with_log(tiny, "tensorboard"), text)
    assert capsys.readouterr().out.count("warning: nothing more goes to tensorboard") == 1
    for other in (logged, failed):
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_processes_beside_the_main_one_log_nothing(tiny: Config) -> None:
    said: list[str] = []
    logger = Logger(with_log(tiny, "tensorboard"), said.append, wanted=False)
    logger.begin(0, "a")
    logger.log([{"iter": 3, "val_loss": 1.0}])
    logger.end(3, {"val_loss": 1.0})
    assert said == []
    assert not Path("logs").exists()


def test_without_log_to_none_of_them_is_imported(tiny: Config) -> None:
    code = (
        "import sys\n"
        "from nanogpt2.config.config import get_config\n"
        "from nanogpt2.model.gpt import GPT\n"
        "from nanogpt2.tokens.dataset import CharDataset\n"
        "from nanogpt2.train.trainer import Trainer\n"
        f"config = get_config({json.dumps({'max_iters': 1, 'eval_iters': 1, 'batch_size': 1})})\n"
        "data = CharDataset('to be or not to be ' * 40, config.block_size)\n"
        "Trainer(GPT(config), config).train(data, data)\n"
        f"print('imported:', set(sys.modules) & {set(SINKS)})\n"
    )
    done = subprocess.run(
        [warm.executable(), "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "imported: set()" in done.stdout
