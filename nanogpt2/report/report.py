"""The report of a training run: speed, use of the device, where the time went, memory, energy.

The utilisation is MFU of Chowdhery et al. 2022, "PaLM", appendix B: the operations that the model
needs, over what the device could do in the same time. What is not known is None, said as unknown.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import write_json
from nanogpt2.base.system.words import describe_seconds
from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT
from nanogpt2.report import hardware
from nanogpt2.report.stopwatch import Stopwatch


def training_flops_per_token(model: GPT) -> int:
    """Return the floating-point operations that training needs for each token.

    Those of the matrix products: two (multiply, add) for each weight in one, and for attention's
    scores and their use, 2 * 2 * block_size * n_embd a layer; backward takes twice as many as
    forward. As PaLM and the field do, each token counts as if it attended to the whole block,
    though causal attention needs half of that; and nothing counts that is computed a second time.
    """
    config = model.config
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    if config.tied_head:
        weights += model.wte.weight.numel()  # the head; as an embedding it is a look-up
    attention = 2 * config.n_layer * config.block_size * config.n_embd
    return 3 * 2 * (weights + attention)


def compute_precision(device: torch.device, dtype: torch.dtype) -> str:
    """Return what matrix products of `dtype` compute in: bfloat16, float16, tf32 or float32."""
    if dtype == torch.float32:
        return hardware.float32_precision(device)
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Report:
    """What one process did of a run: iterations `first` + 1 to `last` of `max_iters`."""

    first: int
    last: int
    max_iters: int
    tokens: int  # trained on
    seconds: dict[str, float]  # of each part; see Stopwatch
    flops_per_token: int
    device: str
    precision: str
    peak_flops: float | None  # a second
    peak_memory: int | None  # bytes
    joules: float | None

    @property
    def wall_seconds(self) -> float:
        """Seconds from the start of the process to its end."""
        return sum(self.seconds.values())

    @property
    def step_seconds(self) -> float:
        """Seconds in steps alone, their batches included."""
        return self.seconds["data"] + self.seconds["step"]

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the time; they add up to 1."""
        return {part: each / self.wall_seconds for part, each in self.seconds.items()}

    @property
    def flops(self) -> float:
        """Operations that the model needed in a second of steps."""
        return self.tokens * self.flops_per_token / self.step_seconds

    @property
    def utilisation(self) -> float | None:
        """Share of the device's peak (MFU), 0 to 1."""
        return None if self.peak_flops is None else self.flops / self.peak_flops

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as plain data."""
        return asdict(self) | {
            "shares": self.shares,
            "tokens_per_second": self.tokens / self.step_seconds,
            "tokens_per_second_overall": self.tokens / self.wall_seconds,
            "flops": self.flops,
            "model_flop_utilisation": self.utilisation,
        }

    def write(self, path: Path, *, say: Callable[[str], None]) -> None:
        """Write every figure to `path` as JSON; `say` is told where it cannot be written."""
        try:
            write_json(path, self.to_dict())
        except DataError as error:
            say(f"warning: no report written: {error}")

    def describe(self) -> str:
        """Return the report in four lines."""
        utilisation = "unknown" if self.utilisation is None else f"{self.utilisation:.1%}"
        memory = "unknown" if self.peak_memory is None else f"{self.peak_memory / 2**30:.2f} GiB"
        energy = "unknown" if self.joules is None else f"{self.joules / 3600:.3g} Wh"
        whose = f"this process, from iteration {self.first}: " if self.first else ""
        shares = ", ".join(f"{part} {share:.1%}" for part, share in self.shares.items())
        return "\n".join(
            [
                f"report: {whose}{self.last - self.first:,} steps, {self.tokens:,} tokens in"
                f" {describe_seconds(self.wall_seconds)};"
                f" {self.tokens / self.step_seconds:,.0f} tokens/s in steps,"
                f" {self.tokens / self.wall_seconds:,.0f} overall",
                f"model: {self.flops_per_token / 1e6:,.3g} MFLOP a token,"
                f" {self.flops / 1e12:.3g} TFLOP/s in {self.precision};"
                f" utilisation {utilisation} ({self.device})",
                f"time: {shares}",
                f"peak memory {memory}, energy {energy}",
            ]
        )


def make_report(
    model: GPT,
    config: Config,
    device: torch.device,
    dtype: torch.dtype,
    *,
    steps: tuple[int, int],
    tokens: int,
    stopwatch: Stopwatch,
    energy: hardware.EnergyMeter,
    processes: int = 1,
) -> Report:
    """Return the report of `steps` (first, last), in which `tokens` were trained on.

    Of several `processes`, memory is this one's, and the energy of all is not known.
    """
    energy.update()
    stopwatch.stop()
    name = hardware.device_name(device)
    precision = compute_precision(device, dtype)
    peak = hardware.peak_flops(name, precision)
    return Report(
        first=steps[0],
        last=steps[1],
        max_iters=config.max_iters,
        tokens=tokens,
        seconds=dict(stopwatch.seconds),
        flops_per_token=training_flops_per_token(model),
        device=name if processes == 1 else f"{processes} x {name}",
        precision=precision,
        peak_flops=None if peak is None else peak * processes,
        peak_memory=hardware.peak_memory(device),
        joules=energy.joules if processes == 1 else None,
    )
