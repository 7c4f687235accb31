"""The run of one cell in TensorBoard, Weights & Biases or MLflow, through accelerate's trackers.

Imports the trackers' packages, each only when it was asked for.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from accelerate import PartialState
from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker
from PIL import Image

from bench.base.files import read_rows
from bench.base.labels import flat
from bench.base.layers import write_yaml
from bench.base.locks import lock
from bench.run.store import CellDir, ResultsDir, Status, WorkState
from bench.run.tracking.asked import mlflow_store, place
from bench.run.tracking.records import SAMPLES, Sample, StepRecord

FINISH_SECONDS = 300  # for uploads at the end; what is not up by then stays on disk
OF_A_SUITE = ("tuning", "final")  # as `bench.protocol.suite` calls results directories of a workload
LAUNCHERS = ("PMI_", "OMPI_", "MV2_", "MPI_")  # variables by which accelerate would look for other processes


class Tracker(ABC):
    """One cell's run in one tracker. Any method may raise what the tracker's package raises.

    starts_anew: whether `start` begins with an empty run, because all that was sent lies in files here.
    """

    starts_anew: ClassVar[bool] | bool = False

    def __init__(self, cell: CellDir, results: ResultsDir) -> None:
        for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
            del os.environ[name]
        PartialState(cpu=True)  # accelerate's trackers ask it whether this is the main process
        self.cell, self.config, self.place = cell, cell.config(), place(results.path)
        self.project = project(results.path)
        self.place.mkdir(parents=True, exist_ok=True)

    @property
    def labels(self) -> dict[str, str]:
        """What runs are grouped by."""
        found = {"method": self.config.label, "model": self.config.model.name}
        if self.config.training is not None:
            found |= {"reward": self.config.training.reward.name, "seed": str(self.config.training.seed)}
        return found

    @property
    @abstractmethod
    def at(self) -> str:
        """Where its runs are: another place has no run of the same name."""

    @abstractmethod
    def start(self, run: str | None) -> str:
        """Go on with a run, or start one (None). Returns its name, for the next time."""

    def last(self) -> int:
        """The last step that the run has; -1 without one."""
        return -1

    @abstractmethod
    def send(self, record: StepRecord) -> None:
        """Add a step, as one whole."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """Close the run of a cell that ended so."""


class TensorBoard(Tracker):
    """Event files in `tracking/tensorboard/<cell>`, written from the beginning by each process that sends."""

    starts_anew = True

    @property
    def at(self) -> str:
        """Always in the results directory."""
        return "tracking/tensorboard"

    def start(self, run: str | None) -> str:
        """Put a new file in place of what was there; a reader that has that open drops it, by purge_step."""
        from torch.utils.tensorboard.summary import hparams

        folder = self.place / "tensorboard"
        shutil.rmtree(folder / self.cell.id, ignore_errors=True)
        self.tracker = TensorBoardTracker(self.cell.id, folder, purge_step=0)
        self.tracker.start()
        self._zero = _began(self.cell)
        writer = self.tracker.writer.file_writer
        assert writer is not None  # until it is closed
        self._writer = writer
        for summary in hparams(flat(self.config.model_dump(mode="json")), {"train/reward_mean": 0}):
            self._writer.add_summary(summary)
        self.tracker.log({"config": f"```\n{write_yaml(self.config)}\n```"}, step=0)
        return self.cell.id

    def send(self, record: StepRecord) -> None:
        """Numbers as scalars, samples as images with the bytes of their files: GIFs move in TensorBoard."""
        time = self._zero + (record.seconds or 0.0)
        for sample in record.samples:
            self._writer.add_summary(_image(sample), record.step, time)
        self.tracker.log(record.numbers, step=record.step, walltime=time)  # and writes all of it to disk

    def finish(self, status: Status) -> None:
        """Close the files; how the cell ended stands in its own."""
        self.tracker.finish()


class Wandb(Tracker):
    """A run of W&B: online it goes on by its id; offline it is written from the beginning, as a whole."""

    def __init__(self, cell: CellDir, results: ResultsDir) -> None:
        import wandb

        super().__init__(cell, results)
        self.project = os.environ.get("WANDB_PROJECT") or re.sub(r"[/\\#?%:]", "-", self.project)[:128]
        self.settings = wandb.setup().settings
        self.starts_anew = self.settings.mode in ("offline", "dryrun")
        self.folder = Path(os.environ.get("WANDB_DIR") or self.place)

    @property
    def at(self) -> str:
        """Server and project."""
        return "/".join((self.settings.base_url, self.settings.entity or "", self.project))

    def start(self, run: str | None) -> str:
        """By an id of its own, so that it can go on."""
        import wandb

        run = secrets.token_hex(4) if run is None else run
        if self.starts_anew:
            for old in (self.folder / "wandb").glob(f"offline-run-*-{run}"):
                shutil.rmtree(old)
        self.tracker = WandBTracker(
            self.project,
            id=run,
            name=self.cell.id,
            group=self.config.label,
            tags=[f"{key} {value}"[:64] for key, value in self.labels.items()],
            dir=str(self.folder),
            resume=None if self.starts_anew else "allow",
            reinit="finish_previous",
            settings=wandb.Settings(
                console="off", quiet=True, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True
            ),
        )
        self.tracker.start()
        self.tracker.store_init_configuration(self.config.model_dump(mode="json"))
        return run

    def last(self) -> int:
        """What the server says."""
        return self.tracker.run.starting_step - 1

    def send(self, record: StepRecord) -> None:
        """In one line of its history."""
        import wandb

        shown: dict[str, Any] = {}
        for sample in record.samples:
            if sample.file.suffix == ".gif":
                shown[sample.name] = wandb.Video(str(sample.file), caption=sample.prompt, format="gif")
            else:
                shown[sample.name] = wandb.Image(str(sample.file), caption=sample.prompt)
        self.tracker.log(record.numbers | shown, step=record.step, commit=True)

    def finish(self, status: Status) -> None:
        """As finished or failed."""
        self.tracker.run.summary["state"] = str(status.state)
        self.tracker.run.finish(exit_code=int(status.state is not WorkState.DONE))


class MLflow(Tracker):
    """A run of MLflow, in the experiment named after the results directory."""

    def __init__(self, cell: CellDir, results: ResultsDir) -> None:
        super().__init__(cell, results)
        self.store = mlflow_store(results.path)
        os.environ.pop("MLFLOW_RUN_ID", None)  # which stands over the cell's own
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # then it is told

    @property
    def at(self) -> str:
        """The store; of the results directory's own not its path, which may be moved."""
        return self.store.replace(str(self.place), "tracking")

    def start(self, run: str | None) -> str:
        """By the run's id. Settings are sent once, because MLflow keeps the first; config.yaml each time."""
        import mlflow

        mlflow.set_tracking_uri(self.store)
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.project
        if str(self.place) in self.store:
            with (self.place / "mlflow.lock").open("a") as stream:
                lock(stream, self.place, wait=True)  # two processes that make a database's tables fail
                _create(project, (self.place / "mlflow").as_uri())
        else:
            _create(project, None)
        if mlflow.active_run() is not None:  # of a cell that could not be sent to the end
            mlflow.end_run("KILLED")
        self.tracker = MLflowTracker(project, run_id=run, run_name=self.cell.id, tags=self.labels)
        self.tracker.start()
        self.run = self.tracker.active_run.info.run_id
        if run is None:
            settings = flat(self.config.model_dump(mode="json"))
            self.tracker.store_init_configuration({_name(key): value for key, value in settings.items()})
        self.tracker.log_artifact(str(self.cell.path / "config.yaml"))
        self._zero = _began(self.cell)
        return self.run

    def last(self) -> int:
        """The metric `step` says it, which is part of every line."""
        import mlflow

        return int(mlflow.MlflowClient().get_run(self.run).data.metrics.get("step", -1))

    def send(self, record: StepRecord) -> None:
        """Samples first: sent again they take their own place, and the numbers are written all at once."""
        for sample in record.samples:
            self.tracker.log_artifact(str(sample.file), artifact_path=f"{SAMPLES}/{record.step:06d}")
        numbers = {_name(key): value for key, value in record.numbers.items()} | {"step": record.step}
        time = int(1000 * (self._zero + (record.seconds or 0.0)))
        self.tracker.log(numbers, step=record.step, timestamp=time)

    def finish(self, status: Status) -> None:
        """As finished, failed or killed."""
        import mlflow

        ends = {WorkState.DONE: "FINISHED", WorkState.FAILED: "FAILED"}
        mlflow.end_run(ends.get(status.state, "KILLED"))


KINDS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


def tracker(name: str, cell: CellDir, results: ResultsDir) -> Tracker:
    """The tracker of that name for a cell; nothing is sent yet."""
    return KINDS[name](cell, results)


def project(results: Path) -> str:
    """What its runs stand under: the directory's name, of a suite's directories SUITE-WORKLOAD-final."""
    parts = results.absolute().parts
    return "-".join(parts[-3:]) if parts[-1] in OF_A_SUITE else parts[-1]


def _began(cell: CellDir) -> float:
    """When the training would have begun without pauses, from its newest line: steps are told with the time
    of the training, not of their sending."""
    if not cell.metrics.exists() or not (rows := read_rows(cell.metrics)):
        return (cell.path / "config.yaml").stat().st_mtime
    return cell.metrics.stat().st_mtime - rows[-1]["seconds"]


def _image(sample: Sample) -> Any:
    """As TensorBoard's own message, with the bytes of the file."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    data = sample.file.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag=sample.name, image=image)])


def _create(project: str, artifacts: str | None) -> None:
    """The experiment, unless it is there: cells of one results directory start at the same time."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if mlflow.get_experiment_by_name(project) is None:
        try:
            mlflow.create_experiment(project, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _name(key: str) -> str:
    """Of a metric or a parameter, without the characters that MLflow refuses."""
    return re.sub(r"[^\w\-. :/]", "_", key)
