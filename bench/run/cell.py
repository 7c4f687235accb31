"""One cell from start to status, in this process: what `python -m bench cell DIRECTORY` does."""

from __future__ import annotations

import os
import shutil
from typing import Protocol, runtime_checkable

import torch

from bench.base.units import GIB
from bench.engine.world import Interrupted, World
from bench.run.forecast import relaxed
from bench.run.process import Exit
from bench.run.recorded import ENDINGS, REASONS, STOPS, StopRequest, recorded
from bench.run.session import Session
from bench.run.store import CellDir, WorkState
from bench.run.train import Trainer
from bench.run.work import CellWork


@runtime_checkable
class SavesLora(Protocol):
    """A chain whose adapter can be written to a directory."""

    def save_lora(self, directory: str | os.PathLike[str]) -> None:
        """Write it in diffusers' format."""
        ...


def run_cell(cell: CellDir, timeout: float | None) -> Exit:
    """Train and evaluate one cell, or evaluate the base model; the status says how it ended.

    With several processes all of them come here, and only the first one writes.
    """
    stop = StopRequest(timeout)
    with stop.listening():
        work = CellWork.read(cell)
        if work.finished():
            return Exit.DONE

        def do(world: World, device: torch.device) -> Exit:
            world.stop = stop.number
            session = Session(cell, work.config, world, device)
            return _run_and_save(session, stop) if world.is_main else ENDINGS[_run(session)]

        return recorded(work, do)


def _run_and_save(session: Session, stop: StopRequest) -> Exit:
    before, loaded = session.cell.status().step, stop.seconds_left()
    state = _run(session)
    if session.config.trains and isinstance(session.chain, SavesLora):
        _save_lora(session.cell, session.chain)
    counters = session.counters
    message = REASONS[state]
    if state is WorkState.TIMEOUT and counters.step == before:
        message = f"{message} without a step: {max(0.0, loaded):.0f} s were left after loading. Give more"
    session.cell.write_status(state, counters.step, counters.seconds, message)
    return ENDINGS[state]


def _run(session: Session) -> WorkState:
    training = session.config.training
    try:
        if training is not None:
            _hint(session)
            Trainer(session, training).run(_tell)
        else:
            session.cut_logs()
            session.evaluate()
        session.world.hear()
    except Interrupted as interrupted:
        return STOPS[interrupted.reason] or WorkState.DONE
    return WorkState.DONE


def _hint(session: Session) -> None:
    """Say on a GPU what the cell could do without."""
    if session.world.is_main and session.device.type == "cuda":
        gib = torch.cuda.get_device_properties(session.device).total_memory / GIB
        if text := relaxed(session.config, gib):
            _tell(text)


def _tell(message: str) -> None:
    print(message, flush=True)


def _save_lora(cell: CellDir, chain: SavesLora) -> None:
    """Write the adapter beside the old one, then swap."""
    fresh, final = cell.path / ".lora.tmp", cell.path / "lora"
    shutil.rmtree(fresh, ignore_errors=True)
    chain.save_lora(fresh)
    if final.exists():
        shutil.rmtree(final)
    fresh.rename(final)
