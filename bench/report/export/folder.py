"""`bench export CELL --to DIR`: the files of a trained LoRA that is to be shared. The same cell and the same
results beside it give the same bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.filmstrip import frames_in, opened
from bench.experiment.settings import CellConfig
from bench.models.lora_files import packed, read_saved
from bench.models.lora_kohya import to_kohya
from bench.models.lora_place import weights_file
from bench.report.export import card
from bench.report.grid import grid_of, picture_sheets, prompts_in_order
from bench.report.load import CellResults, load_with
from bench.report.stats import Estimate
from bench.report.summary import Line, line_of
from bench.run.store import CellDir, WorkState
from bench.run.work import CellWork, kind_of

IMAGES, GALLERY = "images", 4  # pictures in the card's header, which the hub shows
Files = dict[str, bytes]


@dataclass(frozen=True)
class Export:
    """The folder's files by path, and what it has to do without, in words."""

    files: Files
    lacks: tuple[str, ...]


def finished(cell: CellDir) -> CellConfig:
    """The settings of a cell whose LoRA can be exported. Raises BenchError for any other directory."""
    if not (cell.path / "config.yaml").is_file():
        raise BenchError(
            f"{cell.path}: no cell: name the directory of one, as `bench run` leaves them in RESULTS/cells"
        )
    if kind_of(cell) is not CellWork:
        raise BenchError(f"{cell.path}: the directory of other work than a cell: it has no LoRA")
    config = cell.config()
    if config.training is None:
        raise BenchError(f"{cell.path}: the cell of the untuned model, which has no LoRA: name a trained one")
    if not config.trains:
        raise BenchError(
            f"{cell.path}: method '{config.label}' trains nothing, so there is no LoRA: it works on each "
            "picture while it is drawn"
        )
    status = cell.status()
    if status.state is not WorkState.DONE:
        why = f": {status.message}" if status.message else ""
        raise BenchError(
            f"{cell.path}: {status.state}, at step {status.step}{why}\n"
            "  Only finished cells are exported: the command that started it continues it"
        )
    if not (cell.path / "lora").is_dir():
        raise BenchError(
            f"{cell.path}: is finished and has no lora/: this kind of model saves none, or it was removed "
            "(`python -m bench run … --overwrite` makes the cell again)"
        )
    return config


def build(cell: CellDir, place: str | None) -> Export:
    """All files. place: the repository that they go to, if any. Raises BenchError."""
    config, results = finished(cell), load_with(cell)
    found = next(one for one in results.cells if one.id == cell.id)
    line = line_of(results, found)
    if line is None:
        raise BenchError(f"{found.problem or f'{cell.path}: no evaluation to write a card of'}")
    whole = weights_file(cell.path / "lora")
    name = re.sub(r"-[0-9a-f]{8}$", "", cell.id)  # without its digest
    kohya, without = _kohya(config, whole)
    # In a folder of its own: two files side by side would leave open which one is loaded.
    kohya_file = f"kohya/{name}.safetensors"
    files: Files = {whole.name: whole.read_bytes()} | ({kohya_file: kohya} if kohya else {})
    sheets = _sheets(line)
    examples, pictures = _examples(found, line.contest.base_cell)
    files |= sheets | pictures
    prompts = prompts_in_order(found)
    exported = card.Exported(
        cell=found,
        config=config,
        line=line,
        everyone=_of_all_seeds(line, found),
        name=place.partition("/")[2] if place else name,
        place=place or "FOLDER",
        kohya=kohya_file if kohya else None,
        without_kohya=without,
        sheets=tuple(sheets),
        examples=examples,
        prompt=prompts[0] if prompts else "",
    )
    files[card.FILE] = card.text(exported).encode()
    files["config.yaml"] = (cell.path / "config.yaml").read_bytes()
    lacks = [] if kohya else [f"no file in kohya's key style: {without}"]
    if not sheets:
        lacks.append("no pictures: the cell kept none (eval.samples)")
    if line.contest.base is None:
        lacks.append("no comparison: the base model's cell is not there")
    return Export(dict(sorted(files.items())), tuple(lacks))


def write(export: Export, to: Path, overwrite: bool) -> list[Path]:
    """Write the files, unless the directory holds something else. Raises BenchError, before anything is
    written, if it does. overwrite: files of the same names; the others are left."""
    if to.exists() and not to.is_dir():
        raise BenchError(f"--to {to}: a file is there: name a directory")
    if to.is_dir() and not overwrite and (other := _other(export.files, to)):
        raise BenchError(
            f"--to {to}: holds {other}, which is not what would be written. Name another directory, or "
            "overwrite files of the same names by --overwrite"
        )
    for name, data in export.files.items():
        write_atomically(to / name, data)
    return [to / name for name in export.files]


def _other(files: Files, to: Path) -> str | None:
    """The first file of a directory that is none of these."""
    for file in sorted(path for path in to.rglob("*") if not path.is_dir()):
        name = file.relative_to(to).as_posix()
        if name not in files or file.read_bytes() != files[name]:
            return name
    return None


def _kohya(config: CellConfig, file: Path) -> tuple[bytes, str]:
    """The file in kohya's style, or nothing and why."""
    tensors, settings = read_saved(file)
    try:
        return packed(to_kohya(config.model.config.family, tensors, settings), {}), ""
    except BenchError as error:
        return b"", str(error)


def _sheets(line: Line) -> Files:
    """Sheets of pictures before and after training."""
    alone = replace(line.contest, groups=(line.group,))
    found = picture_sheets(grid_of(alone))
    names = [f"{IMAGES}/before_and_after{f'_{n + 1}' if n else ''}.png" for n in range(len(found))]
    return {name: sheet.png for name, sheet in zip(names, found, strict=True)}


def _examples(cell: CellResults, base: CellResults | None) -> tuple[tuple[card.Example, ...], Files]:
    """The first pictures of the last evaluation. Clips as GIF, beside each the base model's of its noise."""
    prompts, examples, files = prompts_in_order(cell), list[card.Example](), Files()
    before = base.pictures.files if base is not None else {}
    for n, stored in sorted(cell.pictures.files.items())[:GALLERY]:
        with opened(stored) as image:
            clip = frames_in(image) > 1
        file = stored.with_suffix(".gif") if clip else stored
        if n >= len(prompts) or not file.is_file():
            continue
        name, other = f"{IMAGES}/{file.name}", None
        files[name] = file.read_bytes()
        if clip and n in before and (gif := before[n].with_suffix(".gif")).is_file():
            other = f"{IMAGES}/base_{file.name}"
            files[other] = gif.read_bytes()
        examples.append(card.Example(name, prompts[n], other))
    return tuple(examples), files


def _of_all_seeds(line: Line, cell: CellResults) -> Estimate:
    """The gain in the trained reward over all seeds of the cell's setting."""
    contest = line.contest
    group = next(group for group in contest.groups if any(cell is other for other in group.cells))
    return contest.gain(group, contest.reward)
