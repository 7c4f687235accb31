"""Names beside the points of a scatter plot, none on top of another; a thin line to those that moved far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

DIRECTIONS = 16
DISTANCES = (2.0, 8.0, 16.0, 26.0, 38.0, 52.0, 70.0, 92.0)  # points between a marker's edge and its name
PASSES = 6
LEADER = 6.0  # points from which on a line leads to the marker


@dataclass(frozen=True)
class Point:
    """A marker with a name: place in data coordinates, radius in points, colour of the name."""

    name: str
    x: float
    y: float
    radius: float
    colour: str


def place_names(figure: Figure, axes: Axes, points: Sequence[Point], size: float) -> list[Annotation]:
    """Write the names, font size in points. Limits of the axes have to be set before.

    Places are found by coordinate descent: each name in turn takes the cheapest of its candidates (distance,
    overlap with names and markers, leaving the axes), given where the others are. The layout is fixed.
    """
    names = [
        axes.annotate(
            p.name,
            (p.x, p.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=p.colour,
            zorder=6,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
            in_layout=False,
        )
        for p in points
    ]
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = 72 / figure.dpi
    centres = axes.transData.transform([(p.x, p.y) for p in points]) * scale
    extents = [name.get_window_extent() for name in names]
    halves = np.array([(e.width, e.height) for e in extents]) * scale / 2 + (1.0, 0.2)
    frame = np.array(axes.get_window_extent().extents) * scale
    radii = np.array([p.radius for p in points])
    for n, (place, gap) in enumerate(_descend(centres, halves, radii, frame)):
        names[n].set_position(tuple(place - centres[n]))
        if gap > LEADER:
            _lead(axes, points[n], centres[n], place, halves[n])
    return names


def _descend(
    centres: np.ndarray, halves: np.ndarray, radii: np.ndarray, frame: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Centre of every name, and how far from its marker it is."""
    candidates = [_candidates(*one) for one in zip(centres, halves, radii, strict=True)]
    markers = np.concatenate([centres - radii[:, None], centres + radii[:, None]], 1)
    fixed = []
    for n, (places, gaps) in enumerate(candidates):
        boxes = _boxes(places, halves[n])
        outside = np.maximum(frame[:2] - boxes[:, :2], 0) + np.maximum(boxes[:, 2:] - frame[2:], 0)
        others = np.delete(markers, n, 0)
        hidden = sum((_overlap(boxes, m) for m in others), np.zeros(len(boxes)))
        fixed.append(gaps * 0.5 + 40 * outside.sum(1) + 1.5 * hidden)
    chosen = [int(np.argmin(cost)) for cost in fixed]
    for _ in range(PASSES):
        for n, (places, _) in enumerate(candidates):
            boxes = _boxes(places, halves[n])
            cost = fixed[n].copy()
            for m, (other, _) in enumerate(candidates):
                if m != n:
                    cost += 6 * _overlap(boxes, _boxes(other[chosen[m]][None], halves[m])[0])
            chosen[n] = int(np.argmin(cost))
    return [(places[c], float(gaps[c])) for c, (places, gaps) in zip(chosen, candidates, strict=True)]


def _candidates(centre: np.ndarray, half: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres of a name around its marker, the right-hand side first; and their distances from it."""
    places, gaps = [], []
    for gap in DISTANCES:
        for k in range(DIRECTIONS):
            angle = 2 * math.pi * k / DIRECTIONS
            towards = np.array([math.cos(angle), math.sin(angle)])
            places.append(centre + towards * (radius + gap) + np.sign(np.round(towards, 6)) * half)
            gaps.append(gap)
    return np.array(places), np.array(gaps)


def _boxes(places: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.concatenate([places - half, places + half], 1)


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Common area of each box with another one."""
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    return np.maximum(sides, 0).prod(1)


def _lead(axes: Axes, point: Point, at: np.ndarray, centre: np.ndarray, half: np.ndarray) -> None:
    """A thin line from the marker's edge to the nearest point of the name."""
    nearest = np.clip(at, centre - half, centre + half)
    away = nearest - at
    start = away * point.radius / np.linalg.norm(away)
    axes.annotate(
        "",
        (point.x, point.y),
        xytext=tuple(away),
        textcoords="offset points",
        arrowprops={
            "arrowstyle": "-",
            "color": "#999999",
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": float(np.linalg.norm(start)),
        },
        zorder=2,
        in_layout=False,
    )
