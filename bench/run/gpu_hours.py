"""GPU-hours of cells before they run: what they compute (`bench.run.computed`) over how fast a card does it.

That is from configs/gpus.yaml, public benchmarks and estimates, until a cell of the same network has run on
the card: then its own seconds say. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.base.files import Record
from bench.experiment.resolve import Cell
from bench.experiment.settings import CellConfig
from bench.run.computed import pace, work
from bench.run.gpu_speeds import kind, published, rates
from bench.run.spent import Limit
from bench.run.store import CellDir


@dataclass(frozen=True)
class Hours:
    """GPU-hours by card. measured: the cards whose speed cells have shown."""

    by_card: Mapping[str, float]
    measured: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """`A100 4.3, H100 2.4`; `~` before what no cell has shown."""
        return ", ".join(f"{card} {self.of(card)}" for card in self.by_card)

    def of(self, card: str) -> str:
        """`~4.3`, without the sign where it rests on a measurement; `-` for a card that is not known."""
        if card not in self.by_card:
            return "-"
        hours = self.by_card[card]
        return (
            f"{'' if card in self.measured else '~'}{hours:.{0 if hours >= 10 else 1 if hours >= 1 else 2}f}"
        )


class Speedometer:
    """How fast cards are: as published, and over that as cells that ran have shown."""

    def __init__(self, seen: Iterable[tuple[CellDir, CellConfig, Record]] = ()) -> None:
        """seen: cells that ran, oldest first, each with the last line of its metrics."""
        self._seen: dict[tuple[str, str], float] = {}  # (kind of network, card) → work per second
        for directory, config, row in seen:
            network, rate = kind(config.model.config), pace(config, row)
            card, processes = _place(directory)
            if network is not None and card is not None and rate is not None:
                self._seen[network, card] = rate / processes

    def hours(self, config: CellConfig) -> Hours | None:
        """Of a whole cell, its evaluations included; None where that is not known, as of plugins' models."""
        network, amount, seconds = kind(config.model.config), work(config), 0.0
        if network is None or amount is None:
            return None
        if config.training is not None and isinstance(config.training.train.budget, str):
            seconds = Limit(config.training.train).end
        measured = {card: rate for (one, card), rate in self._seen.items() if one == network}
        known = sorted((rates(config.model.config) | measured).items())
        return Hours({card: (seconds + amount / rate) / 3600 for card, rate in known}, frozenset(measured))


class GpuHours:
    """Columns of a table of cells: the GPU-hours of each, on every card that is known for any."""

    def __init__(self, seen: Iterable[tuple[CellDir, CellConfig, Record]], cells: Sequence[Cell]) -> None:
        """seen: as for `Speedometer`. cells: those that have to run."""
        speeds = Speedometer(seen)
        self._hours = {cell.id: found for cell in cells if (found := speeds.hours(cell.config)) is not None}
        self.cards = tuple(sorted({card for found in self._hours.values() for card in found.by_card}))

    def of(self, cell: Cell) -> list[str]:
        """A cell's columns."""
        found = self._hours.get(cell.id, Hours({}))
        return [found.of(card) for card in self.cards]

    def together(self) -> list[str]:
        """The sums over cells, of those that are known."""
        measured = frozenset.intersection(*(found.measured for found in self._hours.values()))
        sums = {card: sum(h.by_card.get(card, 0.0) for h in self._hours.values()) for card in self.cards}
        return [Hours(sums, measured).of(card) for card in self.cards]

    def words(self) -> str:
        """What the columns mean; nothing where there are none."""
        if not self.cards:
            return ""
        return (
            " GPU-hours are of whole cells with their evaluations. ~: counted work over published speeds and "
            "estimates of the card (configs/gpus.yaml), off by a factor of two at times; without the sign, "
            "over the speed of the newest cell of that network on that card. Loading is left out."
        )


def _place(directory: CellDir) -> tuple[str | None, int]:
    """The card that a cell ran on, by its name in the table or as torch calls it, and how many processes."""
    try:
        found = json.loads((directory.path / "env.json").read_text(encoding="utf-8"))
        name, processes = found["gpu"], int(found["processes"])
    except (OSError, ValueError, TypeError, KeyError):  # never started, or damaged: it says nothing of a card
        return None, 1
    known = {card for speeds in published().architectures.values() for card in speeds.cards}
    return None if name is None else next((c for c in sorted(known) if c in name), str(name)), processes
