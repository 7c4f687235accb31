"""`python -m bench evaluate`: scores of pictures from anywhere, or of a cell's, drawn again."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, islice
from os.path import relpath
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench.base import registry, units
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import Record, append_rows, write_atomically
from bench.base.media import read
from bench.base.reward_names import listed
from bench.data import prompts as prompt_sets
from bench.data.packages import absent
from bench.engine.reward import check_prompts, media_of, scores
from bench.experiment.choices import load_reward
from bench.experiment.ingredients import ALL, Ingredient, reward_ingredient, reward_list
from bench.experiment.overrides import Override, typed
from bench.experiment.settings import CellConfig, Choice
from bench.run.evaluate import summary
from bench.run.evaluations import DIVERSITY
from bench.run.load import find_lora, load_lora, start
from bench.run.noise_choice import kept
from bench.run.pictures import Picture, find
from bench.run.session import Session
from bench.run.store import CellDir

BATCH = 8
TABLES = (".csv", ".jsonl")
DISTANCE = "mean distance to the other pictures of the prompt"


@dataclass(frozen=True)
class ScoringRequest:
    """What to score by. rewards: names with commas, or `all` for those that can be loaded here.

    batch: pictures at a time; None: the cell's own, or 8. out: a table besides, .csv or .jsonl.
    """

    rewards: str
    settings: Sequence[str] = ()
    batch: int | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix not in TABLES:
            raise BenchError(f"--out {self.out}: the name must end in {' or '.join(TABLES)}")
        if not units.names(self.rewards):
            raise BenchError("--reward: name at least one, or all")


def score_images(console: Console, directory: Path, prompts_file: Path | None, asked: ScoringRequest) -> None:
    """Score the pictures of a directory. Raises BenchError."""
    pictures = find(directory, prompts_file)
    _, device = start(torch.get_num_threads())
    videos = read(pictures[0].file).ndim == 4
    choices = _choices(console, asked, (), videos, [picture.prompt for picture in pictures])
    rewards = {choice.name: load_reward(choice, device) for choice in choices}
    rows: list[Record] = []
    for part in _batches(pictures, asked.batch or BATCH, device):
        texts = [picture.prompt for picture, _ in part]
        media = torch.stack([image for _, image in part])
        for name, reward in rewards.items():
            with torch.no_grad():
                found = scores(reward, media, texts).double().cpu().tolist()
            for (picture, _), score in zip(part, found, strict=True):
                if not math.isfinite(score):
                    raise BenchError(f"{picture.file}: reward '{name}' gives {score}")
                rows.append(
                    {
                        "file": relpath(picture.file, directory),
                        "prompt": picture.prompt,
                        "reward": name,
                        "score": score,
                    }
                )
    _show(console, str(directory), rows)
    _write(console, asked.out, rows)


def score_cells(console: Console, directories: Sequence[Path], asked: ScoringRequest) -> None:
    """Draw the held-out pictures of cells again, as their runs did, and score them. Raises BenchError.

    Rows are added to evaluations/<rewards>.jsonl of each cell; its eval.jsonl is not touched.
    """
    everything: list[Record] = []
    for directory in directories:
        cell = CellDir(directory)
        if not (directory / "config.yaml").is_file():
            raise BenchError(f"--cell {directory}: no config.yaml there, so not a cell's directory")
        rows = _redrawn(console, cell, cell.config(), asked)
        names = sorted({row["reward"] for row in rows} - {DIVERSITY})
        file = directory / "evaluations" / f"{'-'.join(names)}.jsonl"
        file.parent.mkdir(exist_ok=True)
        append_rows(file, rows)
        _show(console, cell.id, rows)
        plain(console, f"  added to {file}")
        everything += [{"cell": cell.id, **row} for row in rows]
    _write(console, asked.out, everything)


def _redrawn(console: Console, cell: CellDir, config: CellConfig, asked: ScoringRequest) -> list[Record]:
    adapter = find_lora(cell.path, "--cell") if config.trains else None
    world, device = start(config.threads, config.deterministic)
    videos = config.model.config.frames is not None
    texts = prompt_sets.load(config.prompts).eval
    choices = tuple(_choices(console, asked, config.eval_rewards, videos, texts))
    how = config.eval if asked.batch is None else config.eval.model_copy(update={"batch": asked.batch})
    session = Session(cell, config.model_copy(update={"eval": how, "eval_rewards": choices}), world, device)
    if adapter is not None:
        load_lora(session.chain, adapter)
    elif config.training is not None:
        session.improve = partial(kept, cell)
    marks = {"step": cell.status().step, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    return [{**marks, "image": row.pop("index"), **row} for row in session.held_out().rows]


def _choices(
    console: Console, asked: ScoringRequest, trained: Sequence[Choice], videos: bool, texts: Sequence[str]
) -> list[Choice]:
    """Names and settings, by name: as in the cell if it has the reward, else as it ships; --set over both.

    With `all`, rewards that are not on this machine, those of videos without any (videos: whether there
    are), and those that cannot score one of the prompts (texts) are left out, and it is said why.
    """
    layers = typed(asked.settings)
    names = reward_list() if asked.rewards == ALL else list(dict.fromkeys(listed(asked.rewards)))
    for layer in layers:
        if not set(layer.tree) <= set(names):
            raise BenchError(f"{layer.origin}: only settings of {', '.join(names)} mean anything here")
    own = {choice.name: Override("the cell", {choice.name: choice.config}) for choice in trained}
    found: list[Choice] = []
    faulty = {name: entry.problem for name, entry in registry.own("reward").items() if entry.problem}
    for name, problem in faulty.items() if asked.rewards == ALL else ():
        console.print(f"left out: {name}: {problem}", style="yellow", highlight=False, soft_wrap=True)
    for name in sorted(names):
        piece = reward_ingredient(name, [own[name], *layers] if name in own else layers)
        if asked.rewards == ALL and (why := _absent(piece, videos, texts)):
            plain(console, f"left out: {name}: {why}", "yellow")
            continue
        check_prompts(piece.config, texts)
        config = {} if piece.config is None else piece.config.model_dump(mode="json")
        found.append(Choice(name=name, config=config))
    return found


def _absent(piece: Ingredient, videos: bool, texts: Sequence[str]) -> str | None:
    """Why a reward cannot be loaded without fetching something first, or scores nothing here."""
    cls = registry.load("reward", piece.name)
    if not videos and media_of(cls, piece.config or cls.Config()) == "video":
        return "it scores videos"
    if not piece.complete:
        return f"not here; python -m bench fetch --reward {piece.name}"
    lacking = absent(piece.config)
    if lacking:
        return f"package {lacking[0]} is not installed; docs/scorers.md"
    try:
        check_prompts(piece.config, texts)
    except BenchError as error:
        return str(error).removeprefix(f"reward {piece.name}: ")
    return None


def _batches(
    pictures: Sequence[Picture], batch: int, device: torch.device
) -> Iterator[list[tuple[Picture, Tensor]]]:
    """Up to `batch` neighbours of one shape with their pixels [3, H, W], or [F, 3, H, W], in [0, 1]."""
    loaded = ((picture, read(picture.file).to(device)) for picture in pictures)
    for _, alike in groupby(loaded, key=lambda pair: pair[1].shape):
        while part := list(islice(alike, batch)):
            yield part


def _show(console: Console, title: str, rows: list[Record]) -> None:
    """Mean and standard error over prompts of every reward."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("reward", no_wrap=True)
    table.add_column("mean ± SE", no_wrap=True, justify="right")
    table.add_column("n", no_wrap=True, justify="right")
    table.add_column("scale", overflow="fold")
    for name, (mean, se) in summary(rows).items():
        count = sum(row["reward"] == name for row in rows)
        scale = DISTANCE if name == DIVERSITY else registry.load("reward", name).scale
        error = "" if math.isnan(se) else f" ± {se:.2g}"
        by = {row["features"] for row in rows if row["reward"] == name and "features" in row}
        shown = f"{name} ({', '.join(sorted(by))})" if by else name
        table.add_row(shown, f"{mean:.4g}{error}", str(count), scale)
    console.print(table)
    prompts = len({row["prompt"] for row in rows})
    over = f"over {prompts} prompts" if prompts > 1 else "over the pictures of one prompt"
    console.print(f"standard errors {over}", style="dim", highlight=False)


def _write(console: Console, out: Path | None, rows: list[Record]) -> None:
    if out is None:
        return
    if out.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    write_atomically(out, text)
    plain(console, f"{len(rows)} scores in {out}")
