"""A gradient profile as work for a process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.measure.gradients.store import ProbeConfig, ProbeDir
from bench.run.slurm.cluster import Profile, Resources
from bench.run.store import CellDir, WorkState
from bench.run.work import Work


@dataclass(frozen=True)
class ProbeWork(Work):
    """A profile to measure. draws: how many draws are wanted; None if only time or precision limits them."""

    directory: ProbeDir
    config: ProbeConfig
    title: str
    draws: int | None = None

    command = "probe"
    unit = "draw"
    label_heading = "methods"

    @classmethod
    def read(cls, directory: CellDir) -> ProbeWork:
        """A profile that was begun."""
        probe = ProbeDir(directory.path)
        return cls(probe, probe.config(), directory.id)

    @property
    def total(self) -> int | None:
        """The draws that are wanted."""
        return self.draws

    @property
    def log(self) -> Path:
        """One line per draw."""
        return self.directory.draws

    def finished(self) -> bool:
        """Whether that many draws were made, under the same names. A budget alone always allows more."""
        status = self.directory.status()
        enough = self.draws is not None and status.state is WorkState.DONE and status.step >= self.draws
        return enough and self.directory.config() == self.config

    def resources(self, profile: Profile) -> Resources:
        """By the model and the method, for one process."""
        return profile.layered(models=[self.config.model.name], methods=[self.config.base]).for_one_process()

    def memory_advice(self, gpu: bool) -> str:
        """The settings to type so that less memory is taken."""
        return "--set train.micro_batch=1 and --set model.gradient_checkpointing=true take less."
