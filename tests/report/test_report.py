"""The report: what training cost, counted and timed, and nothing said that is not known."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from imports import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nanogpt2.base.system.errors import TrainingError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.report.hardware import EnergyMeter, peak_flops
from nanogpt2.report.report import Report, training_flops_per_token
from nanogpt2.report.stopwatch import PARTS, Stopwatch
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer

UNKNOWN = [
    "cpu, 8 threads",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "NVIDIA A10G",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA H20",
    "AMD Instinct MI300X",
]


def make_report(**changes: Any) -> Report:
    """Return the report of 8 seconds of steps in 10, on a device that is known."""
    facts: dict[str, Any] = {
        "first": 0,
        "last": 100,
        "max_iters": 100,
        "tokens": 8_000_000,
        "seconds": dict.fromkeys(PARTS, 0.0) | {"start-up": 2.0, "data": 1.0, "step": 7.0},
        "flops_per_token": 494_700_000,
        "device": "NVIDIA H200",
        "precision": "bfloat16",
        "peak_flops": peak_flops("NVIDIA H200", "bfloat16"),
        "peak_memory": 3 * 2**30,
        "joules": 7200.0,
    }
    return Report(**facts | changes)


def train(config: Config, text: str, **options: Any) -> tuple[TrainingRecord, dict[str, Any]]:
    """Return the record of a run and its report as it was written."""
    dataset = CharDataset(text, config.block_size)
    log = Path("logs/train.log")
    record = Trainer(GPT(config), config, log_file=log).train(dataset, dataset, **options)
    return record, json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))


# --- Operations, and the device's peak ---


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "gpt2"},
        {"architecture": "modern"},
        {"mlp": "swiglu"},
        {"n_kv_head": 1},
        {"tied_head": False, "bias": False},
        {"architecture": "modern", "tied_head": True, "n_layer": 3, "block_size": 8},
    ],
    ids=str,
)
def test_the_operations_are_those_that_torch_counts(tiny: Config, changes: dict[str, Any]) -> None:
    model = GPT({**tiny.to_dict(), **changes})
    idx = torch.randint(64, (3, model.config.block_size))
    # as matrix products: torch counts flash attention's second computation of scores too
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(idx, idx)[1].backward()
    assert counter.get_total_flops() == training_flops_per_token(model) * idx.numel()


def test_a_known_device_has_the_peak_of_its_data_sheet() -> None:
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("A100-SXM4-40GB", "tf32") == 156e12  # as old drivers call it
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("Tesla V100-SXM2-16GB", "float16") == 125e12
    assert peak_flops("NVIDIA GeForce RTX 4090", "float32") == 82.6e12


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_device_has_no_peak(name: str) -> None:
    assert peak_flops(name, "bfloat16") is None


def test_an_unknown_precision_has_no_peak() -> None:
    assert peak_flops("NVIDIA H200", "bf16x9") is None
    assert peak_flops("NVIDIA B200", "tf32") is None


def test_utilisation_is_what_steps_achieve_of_the_peak() -> None:
    report = make_report()  # 8e6 tokens of 494.7e6 operations in 8 s, of 989.4e12 a second
    assert report.flops == pytest.approx(494.7e12)
    assert report.utilisation == pytest.approx(0.5)
    assert report.describe().splitlines() == [
        "report: 100 steps, 8,000,000 tokens in 10s; 1,000,000 tokens/s in steps, 800,000 overall",
        "model: 495 MFLOP a token, 495 TFLOP/s in bfloat16; utilisation 50.0% (NVIDIA H200)",
        "time: start-up 20.0%, data 10.0%, step 70.0%, evaluation 0.0%, saving 0.0%, other 0.0%",
        "peak memory 3.00 GiB, energy 2 Wh",
    ]


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    report = make_report(peak_flops=None, peak_memory=None, joules=None)
    assert "utilisation unknown" in report.describe()
    assert report.describe().endswith("peak memory unknown, energy unknown")
    assert report.to_dict()["model_flop_utilisation"] is None


# --- Time ---


def test_each_second_counts_once_for_the_innermost_part() -> None:
    began = time.perf_counter()
    watch = Stopwatch(began - 5)
    watch.start()
    with watch.measure("step"):
        time.sleep(0.02)
        with watch.measure("data"):
            time.sleep(0.03)
    for _ in watch.each("saving", iter([1, 2])):
        time.sleep(0.04)
    watch.stop()
    assert sum(watch.seconds.values()) == pytest.approx(time.perf_counter() - began + 5, abs=0.01)
    assert watch.seconds["start-up"] == pytest.approx(5, abs=0.01)
    assert watch.seconds["step"] >= 0.02
    assert watch.seconds["data"] >= 0.03
    assert watch.seconds["saving"] < 0.02
    assert watch.seconds["other"] >= 0.08


def test_a_part_ends_with_an_error() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="step"), watch.measure("step"):
        raise ValueError("step")
    assert watch.part == "start-up"


def test_a_process_began_before_its_stopwatch() -> None:
    watch = Stopwatch.of_process()
    watch.stop()
    assert 0 < watch.seconds["start-up"] < 24 * 3600


# --- What is measured in a run ---


def test_a_run_reports_its_time_memory_and_tokens(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = train(tiny, text, save=lambda record, weights: time.sleep(0.05))
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert report["tokens"] == 6 * 4 * 16
    assert all(report["seconds"][part] > 0 for part in PARTS)
    assert report["seconds"]["saving"] >= 0.05
    assert 2**26 < report["peak_memory"] < 2**36
    assert report["model_flop_utilisation"] is None
    printed = capsys.readouterr().out
    assert "\nreport: 6 steps, 384 tokens in " in printed
    assert "utilisation unknown (cpu, 1 thread)" in printed


def test_a_run_that_was_cut_off_reports_and_the_next_reports_its_own_part(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = get_config({**tiny.to_dict(), "checkpoint_interval": 1})
    dataset = CharDataset(text, config.block_size)
    log = Path("logs/train.log")
    first = Trainer(GPT(config), config, log_file=log)
    seen = []

    def interrupt(*_: object) -> None:
        seen.append(1)
        if len(seen) == 8:  # four for the losses of iteration 0
            signal.raise_signal(signal.SIGTERM)

    first.model.ln_f.register_forward_hook(interrupt)
    with pytest.raises(TrainingError, match="interrupted by SIGTERM"):
        first.train(dataset, dataset)
    done = first.record.step
    assert f"report: {done} steps" in capsys.readouterr().out
    _, report = train(config, text)
    assert (report["first"], report["last"]) == (done, 6)
    assert report["tokens"] == (6 - done) * 4 * 16
    assert f"report: this process, from iteration {done}: {6 - done} steps" in (
        capsys.readouterr().out
    )


def test_a_report_that_cannot_be_written_costs_no_run(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("logs/train.json").mkdir(parents=True)
    dataset = CharDataset(text, tiny.block_size)
    record = Trainer(GPT(tiny), tiny, log_file=Path("logs/train.log")).train(dataset, dataset)
    assert record.step == 6
    assert "warning: no report written: " in capsys.readouterr().out


def test_nothing_of_the_report_is_in_a_tracked_output(tiny: Config, text: str) -> None:
    record, report = train(tiny, text)
    assert not set(report) & (set(record.metrics()) | set(record.history[0]))
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--quiet", "logs/train.json"], cwd=ROOT, check=False
    )
    assert ignored.returncode == 0
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outputs = [stages["train"][kind] for kind in ("outs", "metrics", "plots")]
    assert "logs" not in json.dumps(outputs)


# --- Energy ---


def make_zone(root: Path, number: str, name: str, microjoules: int) -> Path:
    zone = root / f"intel-rapl:{number}"
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    return zone / "energy_uj"


def test_energy_is_that_of_all_processors_past_the_end_of_their_counters(tmp_path: Path) -> None:
    first = make_zone(tmp_path, "0", "package-0", 999_000_000)
    second = make_zone(tmp_path, "1", "package-1", 0)
    make_zone(tmp_path, "0:0", "core", 5)
    make_zone(tmp_path, "2", "psys", 5)
    meter = EnergyMeter(torch.device("cpu"), powercap=tmp_path)
    first.write_text("2000000\n")  # 1 J to the end of the counter, and 2 J
    second.write_text("4000000\n")
    meter.update()
    assert meter.joules == pytest.approx(7)


def test_energy_is_unknown_where_a_counter_is_missing_or_lost(tmp_path: Path) -> None:
    assert EnergyMeter(torch.device("cpu"), powercap=tmp_path).joules is None
    path = make_zone(tmp_path, "0", "package-0", 1)
    meter = EnergyMeter(torch.device("cpu"), powercap=tmp_path)
    path.unlink()
    meter.update()
    assert meter.joules is None


def test_energy_is_unknown_where_a_counter_may_have_begun_anew_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_zone(tmp_path, "0", "package-0", 1)
    meter = EnergyMeter(torch.device("cpu"), powercap=tmp_path)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    meter.update()
    assert meter.joules is None
