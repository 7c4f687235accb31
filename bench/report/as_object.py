"""The summary as objects, for `bench report DIR --json`: what the tables show, unrounded."""

from __future__ import annotations

from typing import Any

from bench.report.groups import Contest
from bench.report.load import Results
from bench.report.summary import Line, contest_lines


def as_object(results: Results) -> dict[str, Any]:
    """Contests with their lines, what is not done, and notes on what could not be read."""
    return {
        "directory": results.path,
        "contests": [_contest(contest, lines) for contest, lines in contest_lines(results)],
        "unfinished": [
            {"cell": cell.id, "state": cell.status, "step": cell.step, "problem": cell.problem}
            for cell in results.unfinished()
        ],
        "notes": results.notes,
    }


def _contest(contest: Contest, lines: list[Line]) -> dict[str, Any]:
    return {
        "title": contest.title,
        "model": contest.model,
        "reward": contest.reward,
        "setting": contest.setting,
        "lines": [_line(line) for line in lines],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "label": line.group.label,
        "method": line.group.method,
        "is_base": line.is_base,
        "status": line.group.status,
        "cells": [cell.id for cell in line.group.cells],
        "left_out": [cell.id for cell in line.group.left_out],
        "score": line.score,
        "gains": line.gains,
        "over_null": line.over_null,
        "claim": line.claim,
        "p": line.p,
        "diversity": line.diversity,
        "diversity_change": line.diversity_change,
        "distance": line.distance,
        "collapses": line.collapses,
        "cost": {**vars(line.cost), "forward_equivalents": line.cost.forward_equivalents},
        "term": line.term,
        "share": line.share,
    }
