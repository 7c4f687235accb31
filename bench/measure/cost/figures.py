"""Figures of a profile: memory by component, against T and against h, and the timeline of a step.

Rows are those of profile.csv (docs/profiles.md), at least: method, graphs, T, h, peak_gb, seconds or flops,
and `components`, GB at the peak by component. Numbers come from there alone; nothing is simulated here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes

from bench.base import style
from bench.base.style import Drawing, Look
from bench.base.units import GB
from bench.engine.stages import DECODE, FIRST_ORDER, HALF_ORDER, OPTIMIZER, REWARD, ROLLOUT, ZEROTH_ORDER
from bench.measure.cost.ledger import COMPONENTS, Point

GROUPS = {
    "weights": ("weights", style.GREY),
    "LoRA, gradients, optimizer": ("lora gradients optimizer", style.PURPLE),
    "perturbations, latents": ("perturbations latents", style.SKY),
    "activations of the network": ("activations network", style.BLUE),
    "activations of the decoder": ("activations vae", style.GREEN),
    "activations of the reward": ("activations reward", style.ORANGE),
    "temporaries": ("temporaries", "#C8C8C8"),
}
STAGES = {
    ROLLOUT: "#E8E8E8",
    DECODE: "#A8DCC8",
    REWARD: "#F3CE8E",
    FIRST_ORDER: "#2B6CB0",
    HALF_ORDER: "#D1495B",
    ZEROTH_ORDER: "#B9A3D6",
    OPTIMIZER: "#333333",
}


@dataclass(frozen=True)
class Setting:
    """One profiled setting. components: bytes at the peak. flops, seconds: of an optimizer step."""

    method: str
    graphs: str
    steps: int
    h: int | None
    peak: int
    flops: float
    seconds: float | None = None
    components: Mapping[str, int] = field(default_factory=dict)


def draw(directory: Path, rows: Sequence[Setting], timelines: Mapping[str, Sequence[Point]]) -> list[Path]:
    """Draw what the rows and timelines (by title) allow, as svg and png. Returns the files."""
    with style.drawing():
        found = [
            figure
            for figure in (_stacked(rows), _against_steps(rows), _against_h(rows), *_timelines(timelines))
            if figure is not None
        ]
    return style.write_drawings(directory, found)


def group(component: str) -> str:
    """The legend's entry that a component belongs to."""
    kind, _, part = component.partition(" ")
    if kind == "activations":
        return {"vae": "activations of the decoder", "reward": "activations of the reward"}.get(
            part, "activations of the network"
        )
    for name, (kinds, _) in GROUPS.items():
        if kind in kinds.split():
            return name
    return "temporaries"


def grouped(components: Mapping[str, int]) -> dict[str, float]:
    """GB by entry of the legend."""
    found = dict.fromkeys(GROUPS, 0.0)
    for name, size in components.items():
        found[group(name)] += size / GB
    return found


def _stacked(rows: Sequence[Setting]) -> Drawing | None:
    """One bar per method and way of holding graphs, at the largest T of each."""
    shown = _at_most_steps([row for row in rows if row.components])
    if not shown:
        return None
    kinds = sorted({row.graphs for row in shown}, reverse=True)  # staged first
    figure = style.new_figure(4.2 * len(kinds) + 1.4, 1.3 + 0.36 * len({r.method for r in shown}))
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        these = sorted((row for row in shown if row.graphs == kind), key=lambda row: -row.peak)
        left = [0.0] * len(these)
        stacks = [grouped(row.components) for row in these]
        for name, (_, colour) in GROUPS.items():
            widths = [stack[name] for stack in stacks]
            axes.barh([_name(r) for r in these], widths, left=left, color=colour, height=0.65, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, total in enumerate(left):
            axes.text(total, place, f" {total:.3g}", va="center", fontsize=7.5)
        axes.set(title=f"{kind} graphs", xlabel="GB at the peak", xlim=(0, 1.15 * max(left)))
        axes.grid(axis="y", visible=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2 * len(kinds), handlelength=1.0, fontsize=7.5
    )
    return Drawing("memory_components", "What the peak consists of", **style.render(figure))


def _at_most_steps(rows: Sequence[Setting]) -> list[Setting]:
    best: dict[tuple[str, str], Setting] = {}
    for row in rows:
        key = (_name(row), row.graphs)
        if key not in best or row.steps > best[key].steps:
            best[key] = row
    return list(best.values())


def _name(row: Setting) -> str:
    return row.method if row.h is None or row.method[-1].isdigit() else f"{row.method} (h = {row.h})"


def _against_steps(rows: Sequence[Setting]) -> Drawing | None:
    """Peak against T, where a method was profiled at several T."""
    lengths = {_name(row): {r.steps for r in rows if _name(r) == _name(row)} for row in rows}
    shown = sorted((r for r in rows if len(lengths[_name(r)]) > 1), key=lambda r: r.steps)
    if not shown:
        return None
    looks = style.looks({_name(row): row.method for row in shown})
    kinds, longest = sorted({row.graphs for row in shown}), max(row.steps for row in shown)
    figure = style.new_figure(3.6 * len(kinds), 3.0)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        ends: list[tuple[float, list[str]]] = []
        for name, look in looks.items():
            these = [r for r in shown if (_name(r), r.graphs) == (name, kind)]
            _line(axes, [(r.steps, r.peak / GB) for r in these], look)
            if these:
                ends.append((these[-1].peak / GB, [name]))
        for peak, names in _together(ends):
            place = {"xytext": (0, 5), "textcoords": "offset points", "ha": "right", "fontsize": 7.5}
            axes.annotate(", ".join(names), (longest, peak), **place)
        axes.set(title=f"{kind} graphs", xlabel="T, denoising steps", ylim=(0, None))
        axes.set_xticks(sorted({r.steps for r in shown}))
    panels[0].set_ylabel("peak, GB")
    return Drawing("memory_steps", "Memory against the length of the chain", **style.render(figure))


def _together(ends: Sequence[tuple[float, list[str]]]) -> list[tuple[float, list[str]]]:
    """Labels of lines that end too close to one another as one, at the highest of them."""
    found: list[tuple[float, list[str]]] = []
    top = max((peak for peak, _ in ends), default=0.0)
    for peak, names in sorted(ends, reverse=True):
        if found and found[-1][0] - peak < 0.07 * top:
            found[-1] = (found[-1][0], found[-1][1] + names)
        else:
            found.append((peak, names))
    return found


def _against_h(rows: Sequence[Setting]) -> Drawing | None:
    """Peak and time against h, at the largest T, relative to the least h."""
    steps = max((row.steps for row in rows), default=0)
    shown = sorted((r for r in rows if r.h is not None and r.steps == steps), key=lambda r: r.h or 0)
    if len({row.h for row in shown}) < 2:
        return None
    timed = all(row.seconds is not None for row in shown)
    figure = style.new_figure(7.6, 2.8)
    memory, time = figure.subplots(1, 2)
    looks = {"staged": Look(style.BLUE, "o", "-"), "joint": Look(style.VERMILLION, "s", style.DASHED)}
    present = {kind: look for kind, look in looks.items() if any(r.graphs == kind for r in shown)}
    for kind, look in present.items():
        these = [row for row in shown if row.graphs == kind]
        _line(memory, [(r.h or 0, r.peak / GB) for r in these], look)
        costs = [(r.h or 0, (r.seconds or 0.0) if timed else r.flops / 1e12) for r in these]
        _line(time, costs, look)
    memory.set(title="memory", xlabel="h, half-order steps", ylabel="peak, GB", ylim=(0, None))
    label = "seconds per optimizer step" if timed else "TFLOP per optimizer step"
    highest = max((r.seconds or 0.0) if timed else r.flops / 1e12 for r in shown)
    time.set(title="work", xlabel="h, half-order steps", ylabel=label, ylim=(0, 1.05 * highest))
    for axes in (memory, time):
        axes.set_xticks(sorted({r.h or 0 for r in shown}))
    style.legend(figure, list(present), present, beside=8)
    return Drawing("cost_h", "Memory and time against h", **style.render(figure))


def _line(axes: Axes, points: Sequence[tuple[float, float]], look: Look) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.line, markeredgewidth=0)


def _timelines(timelines: Mapping[str, Sequence[Point]]) -> list[Drawing]:
    return [_timeline(title, list(points)) for title, points in timelines.items() if points]


def _stages(points: Sequence[Point]) -> list[str]:
    """The stage at every point; between two stages, the one before."""
    found: list[str] = []
    for point in points:
        found.append(point.stage or (found[-1] if found else ""))
    return found


def _timeline(title: str, points: list[Point]) -> Drawing:
    """Memory through one optimizer step, by component. x counts events: fake tensors take no time."""
    first = next((n for n, point in enumerate(points) if point.stage), 0)
    points = points[first:]  # before it, what is there is told to the tracker
    figure = style.new_figure(8.4, 3.4)
    axes = figure.subplots()
    stacks = [grouped({name: int(p.bytes[n]) for n, name in enumerate(COMPONENTS)}) for p in points]
    x = range(len(points))
    axes.stackplot(
        x,
        [[stack[name] for stack in stacks] for name in GROUPS],
        colors=[colour for _, colour in GROUPS.values()],
        labels=list(GROUPS),
        step="mid",
        linewidth=0,
    )
    top = max(point.device for point in points) / GB
    for name, colour in STAGES.items():
        spans = [(n, 1) for n, stage in enumerate(_stages(points)) if stage == name]
        if spans:
            axes.broken_barh(spans, (1.08 * top, 0.09 * top), color=colour, linewidth=0, label=name)
    axes.set(title=title, ylabel="GB", xlabel="one optimizer step, in order", ylim=(0, 1.22 * top), xticks=[])
    axes.margins(x=0)
    figure.legend(loc="outside lower center", ncols=4, handlelength=1.0, fontsize=7.5)
    slug = "".join(c if c.isalnum() else "_" for c in title.lower())
    return Drawing(f"timeline_{slug}", f"Memory through one step: {title}", **style.render(figure))
