"""Loggers that people have already, fed with what training prints: `log_to` chooses one.

A run that goes on from a state goes on in its log, and no step is logged twice.
"""

import io
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nanogpt2.base.system.extras import import_extra
from nanogpt2.base.system.files import read_json, write_json
from nanogpt2.config.config import Config
from nanogpt2.config.schema import flatten

PROJECT = "nanogpt2"
Values = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run as loggers name it; `folder` is theirs, `name` the same after going on."""

    folder: Path
    name: str
    params: Mapping[str, Any]
    is_new: bool


class Sink(Protocol):
    """Where numbers go: `log` takes those of a step, `end` the final ones, None when cut off."""

    shown_by: str  # what shows them

    def log(self, step: int, values: Values) -> None: ...
    def end(self, step: int, final: Values | None) -> None: ...


class TensorBoard:
    """Event files, which TensorBoard reads while they grow."""

    def __init__(self, run: Run) -> None:
        import_extra("tensorboard", extra="tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(run.folder / run.name)
        self.shown_by = f"tensorboard --logdir {run.folder}"
        if run.is_new:
            rows = "\n".join(f"| {key} | {value} |" for key, value in run.params.items())
            self.writer.add_text("params", f"| key | value |\n|---|---|\n{rows}")

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, step: int, final: Values | None) -> None:
        if final is not None:
            self.log(step, {f"final/{name}": value for name, value in final.items()})
        self.writer.close()


class WandB:
    """Weights & Biases; on this machine alone where nobody is logged in."""

    def __init__(self, run: Run) -> None:
        wandb = import_extra("wandb", extra="wandb")
        offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.name,
            name=run.name,
            config=dict(run.params),
            resume="allow",
            dir=run.folder,
            settings=wandb.Settings(console="off", silent=True),
            **({"mode": "offline"} if offline else {}),
        )
        self.shown_by = f"wandb sync {run.folder}/wandb/offline-*" if offline else self.run.url

    def log(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step, commit=True)

    def end(self, step: int, final: Values | None) -> None:
        self.run.summary.update({f"final/{name}": value for name, value in (final or {}).items()})
        self.run.finish(exit_code=int(final is None))


class MLflow:
    """MLflow's server at MLFLOW_TRACKING_URI, or a database in the run's folder."""

    def __init__(self, run: Run) -> None:
        for name, value in {  # a server that is gone costs seconds, and nobody is told of the use
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }.items():
            os.environ.setdefault(name, value)
        mlflow = import_extra("mlflow", extra="mlflow")
        ours = f"sqlite:///{run.folder / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", ours)
        self.client, self.entities = mlflow.MlflowClient(tracking_uri=uri), mlflow.entities
        self.shown_by = f"mlflow ui --backend-store-uri {uri}" if uri == ours else uri
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT), run)
        found = self.client.search_runs(
            [experiment], filter_string=f"attributes.run_name = '{run.name}'"
        )
        if found:
            self.id = found[0].info.run_id
            self.client.set_terminated(self.id, "RUNNING")
            return
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [self.entities.Param(name, str(value)) for name, value in run.params.items()]
        self.client.log_batch(self.id, params=params)

    def _experiment(self, name: str, run: Run) -> str:
        if found := self.client.get_experiment_by_name(name):
            return str(found.experiment_id)
        folder = None if "MLFLOW_TRACKING_URI" in os.environ else (run.folder / "files").as_uri()
        return str(self.client.create_experiment(name, artifact_location=folder))

    def log(self, step: int, values: Values) -> None:
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def end(self, step: int, final: Values | None) -> None:
        if final is not None:
            self.log(step, {f"final/{name}": value for name, value in final.items()})
        self.client.set_terminated(self.id, "KILLED" if final is None else "FINISHED")


class Trackio:
    """trackio: a database in the run's folder, or where TRACKIO_DIR says."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.folder))
        trackio = import_extra("trackio", extra="trackio")
        self.finish = trackio.finish
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.shown_by = f"TRACKIO_DIR={os.environ['TRACKIO_DIR']} trackio show --project {project}"
        with redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                project=project,
                name=run.name,
                config=dict(run.params),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def end(self, step: int, final: Values | None) -> None:
        if final is not None:
            self.log(step, {f"final/{name}": value for name, value in final.items()})
        with redirect_stdout(io.StringIO()):
            self.finish()


SINKS: dict[str, Callable[[Run], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class Logger:
    """Feeds the logger that `log_to` names. What fails in it is said once, and ends no run."""

    def __init__(self, config: Config, say: Callable[[str], None], *, wanted: bool) -> None:
        self.config, self.say = config, say
        self.tool = config.log_to if wanted else None
        self.sink: Sink | None = None
        self.name, self.logged = "", -1  # the last step
        self.note = Path()

    def begin(self, step: int, run: str | None) -> None:
        """Begin at `step` of a `run`; by its name the log is found in which it goes on."""
        if self.tool is not None:
            self._guard(lambda: self._begin(str(self.tool), step, run or "unnamed"))

    def _begin(self, tool: str, step: int, run: str) -> None:
        # copies of the project, in which experiments run, do not last
        folder = Path(os.environ.get("DVC_ROOT", "."), "logs", tool).resolve()
        self.note = folder / "runs" / f"{run}.json"
        is_new = step == 0 or not self.note.exists()
        if is_new:
            label = re.sub(r"[^\w.-]", "-", os.environ.get("DVC_EXP_NAME") or "run")
            self.name = f"{label}-{secrets.token_hex(3)}"
        else:
            found = read_json(self.note)
            self.name, self.logged = str(found["name"]), int(found["step"])
        folder.mkdir(parents=True, exist_ok=True)
        params = {
            key: str(value) if isinstance(value, list) else value
            for key, value in flatten(self.config.to_dict()).items()
        }
        self.sink = SINKS[tool](Run(folder, self.name, params, is_new))
        self.say(f"logged as {self.name}: {self.sink.shown_by}")

    def log(self, rows: Sequence[Values], *, speed: float | None = None) -> None:
        """Log those `rows`, of step `iter` each, that are not logged yet; `speed` is the last's."""
        for row in rows:
            more = {} if speed is None or row is not rows[-1] else {"tokens_per_second": speed}
            if self.sink and int(row["iter"]) > self.logged:
                self._guard(lambda row=row, more=more: self._log({**row, **more}))  # type: ignore[misc]

    def _log(self, row: dict[str, float]) -> None:
        assert self.sink is not None
        self.logged = int(row.pop("iter"))
        write_json(self.note, {"name": self.name, "step": self.logged})
        self.sink.log(self.logged, row)

    def end(self, step: int, final: Values | None) -> None:
        """End with the `final` figures of a run that is over; None where it was cut off."""
        if self.sink is None:
            return
        sink = self.sink
        figures = final and {name: value for name, value in final.items() if name != "iter"}
        self._guard(lambda: sink.end(step, figures))
        if final is not None:
            with suppress(OSError):
                self.note.unlink(missing_ok=True)

    def _guard(self, action: Callable[[], None]) -> None:
        """Do `action`; after the first error nothing is done any more."""
        try:
            action()
        except Exception as error:  # of whatever kind: these libraries are not ours
            self.sink = None
            lines = str(error).splitlines() or [type(error).__name__]
            self.say(f"warning: nothing more goes to {self.tool}: {lines[0]}")
