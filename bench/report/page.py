"""report.html: one file that opens anywhere, offline, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.base.labels import flat
from bench.report.chart_data import as_json
from bench.report.load import Results
from bench.report.origins import DIFFERENT_MACHINES, origins
from bench.report.section import Section

TEMPLATES = Path(__file__).parent / "templates"


def render_page(results: Results, sections: Sequence[Section]) -> str:
    """The page as text, the same for the same results."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    jinja.filters |= {"base64": lambda data: base64.b64encode(data).decode(), "json": _json}
    jinja.globals["asset"] = _asset
    envs = [*(cell.env for cell in results.cells), *(env for s in sections for env in s.environments)]
    return jinja.get_template("report.html.j2").render(
        name=" + ".join(place.resolve().name for place in results.directories),
        counts="; ".join(filter(None, [_cells(results), *(section.count for section in sections)])),
        total=len(results.cells),
        unfinished=results.unfinished(),
        notes=results.notes,
        sections=sections,
        command=_command(results.request, envs),
        environment=environment(envs),
        origins=found if len(found := origins(results.cells)) > 1 else [],
        different_machines=DIFFERENT_MACHINES,
    )


def _json(data: Any) -> Markup:
    return Markup(as_json(data))  # it escapes `<` itself


def _asset(name: str) -> Markup:
    """A file of ours that becomes part of the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _cells(results: Results) -> str:
    states = [cell.status for cell in results.cells]
    of_each = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states)))
    return f"{len(states)} cells: {of_each}" if states else ""


def _command(request: Mapping[str, Any], envs: Sequence[Mapping[str, Any]]) -> str:
    """What was typed, as recorded, and the commit it ran on above it."""
    recorded = [*requests(request), *envs]
    commands = list(dict.fromkeys(str(r["command"]) for r in recorded if "command" in r))
    states = [env["git"] for env in envs if env.get("git")]
    commits = list(dict.fromkeys(str(state["commit"]) for state in states))
    lines = [f"git checkout {commits[0]}"] if len(commits) == 1 else [f"# some of it: {c}" for c in commits]
    if any(state["dirty"] for state in states):
        lines.append("# there were uncommitted changes")
    return "\n".join([*lines, *(commands or ["(no command was recorded)"])])


def requests(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """An experiment.yaml, and those that it was merged from."""
    return [request, *(one for merged in request.get("merged", ()) for one in requests(merged))]


def environment(envs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Keys of env.json and the values that occur; several, where cells ran in different places."""
    recorded = [flat({k: v for k, v in env.items() if k != "command"}) for env in envs if env]
    keys = dict.fromkeys(key for env in recorded for key in env)
    return [(key, "; ".join(dict.fromkeys(env[key] for env in recorded if key in env))) for key in keys]
