"""`bench report --paper`: the RLR paper's published numbers beside made-up cells."""

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from bench.report.load import load
from bench.report.paper import Entry, View, number, published, their_gain, views
from bench.report.paper_section import Paper, section
from bench.report.paper_tables import TABLES
from tests.report.fake_paper import PROMPTS, SPREAD, cell, rlr

BASE = {"pickscore": 16.0, "hpsv2": 22.0, "aes": 4.5, "imagereward": 0.1}
BETTER = {"pickscore": 18.0, "hpsv2": 27.0, "aes": 6.0, "imagereward": 0.6}
TINY = {"clip": {}, "colourfulness": {}}


def only(root: Path) -> View:
    """The only table of a directory."""
    (view,), _ = views(load(root))
    return view


def entry(view: View, label: str, column: str) -> Entry:
    (line,) = [line for line in view.lines if line.label == label]
    return line.entries[column]


def shown(made: Paper, width: int = 80) -> str:
    stream = io.StringIO()
    made.show(Console(file=stream, width=width))
    return stream.getvalue()


def records(made: Paper, folder: Path) -> list[dict[str, str]]:
    made.write(folder, folder)
    with (folder / "paper.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_every_published_number_is_named_once_by_its_table() -> None:
    for table in TABLES:
        numbers = [number(table, line, quantity) for line in table.lines for quantity in table.quantities]
        assert all(map(math.isfinite, numbers))
        texts = [text for line in published(table.file) for text in line.values()]
        printed = [t for t in texts if re.fullmatch(r"[0-9]+(\.[0-9]+)?", t)]
        not_shown = {"6": 3, "9": 5}.get(table.number, 0)  # GB of main memory; values of h
        assert len(numbers) == len(printed) - not_shown


def test_difference_is_ours_minus_theirs_with_the_interval_of_ours(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr())
    found = entry(only(tmp_path), "rlr", "hpsv2")
    half = stats.t.ppf(0.975, len(PROMPTS) - 1) * math.sqrt(sum(x**2 for x in SPREAD) / 3 / 4)
    assert (found.ours.mean, found.ours.seeds) == (pytest.approx(27.0), 1)
    assert found.difference.mean == pytest.approx(27.0 - 29.22)
    assert found.difference.low == pytest.approx(27.0 - 29.22 - half)
    assert found.difference.high == pytest.approx(27.0 - 29.22 + half)
    assert found.gain.mean == pytest.approx(5.0)


def test_several_seeds_are_one_number_with_an_interval_over_both(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    for seed, higher in enumerate((0.0, 0.5, 1.0)):
        cell(tmp_path, "rlr", {"hpsv2": 27.0 + higher}, settings=rlr(), seed=seed)
    found = entry(only(tmp_path), "rlr", "hpsv2")
    assert (found.ours.mean, found.ours.seeds, len(found.cells)) == (pytest.approx(27.5), 3, 3)
    one_seed = stats.t.ppf(0.975, len(PROMPTS) - 1) * math.sqrt(sum(x**2 for x in SPREAD) / 3 / 4)
    assert (found.ours.high - found.ours.low) / 2 > one_seed
    text = shown(section(load(tmp_path)))
    assert "over prompts and seeds" in " ".join(text.split())
    assert "with one seed" not in text


def test_ablations_are_told_apart_by_their_settings_and_not_by_the_preset(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr-no-ho", {"hpsv2": 24.0}, settings=rlr(h=0))
    cell(tmp_path, "rlr", {"hpsv2": 25.0}, settings=rlr(completion="none"))
    cell(tmp_path, "rlr-h3", {"hpsv2": 26.0}, settings=rlr(h=3))
    view = only(tmp_path)
    assert entry(view, "w/o HO", "hpsv2").ours.mean == pytest.approx(24.0)
    assert entry(view, "w/o ZO", "hpsv2").ours.mean == pytest.approx(25.0)
    assert [line.label for line in view.lines if line.entries] == ["w/o ZO", "w/o HO"]


def test_unknown_scale_has_no_difference_and_says_why(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr(), reward="imagereward")
    found = entry(only(tmp_path), "rlr", "imagereward")
    assert found.ours.units and not found.difference.units
    assert "does not define its scale" in " ".join(shown(section(load(tmp_path))).split())


def test_a_reward_of_ours_on_another_scale_has_no_difference(tmp_path: Path) -> None:
    raw = {"hpsv2": {"scale": "raw"}}
    cell(tmp_path, None, {"hpsv2": 0.22}, rewards=raw)
    cell(tmp_path, "rlr", {"hpsv2": 0.27}, settings=rlr(), rewards=raw)
    assert not entry(only(tmp_path), "rlr", "hpsv2").difference.units
    assert "scale = raw" in shown(section(load(tmp_path)))


def test_csv_has_exactly_the_numbers_of_table_5(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", BETTER, settings=rlr())
    cell(tmp_path, "rlr-fo", {"hpsv2": 21.0}, settings=rlr(0, "none"), state="failed")
    found = records(section(load(tmp_path)), tmp_path)
    assert [
        (r["line"], r["quantity"], r["state"], r["theirs"], r["ours"], r["difference"]) for r in found
    ] == [
        ("w/o HO & ZO", "pickscore", "missing", "18.43", "", ""),
        ("w/o HO & ZO", "hpsv2", "failed", "23.66", "", ""),
        ("w/o HO & ZO", "aes", "missing", "5.78", "", ""),
        ("w/o HO & ZO", "imagereward", "missing", "60.07", "", ""),
        ("w/o ZO", "pickscore", "missing", "20.11", "", ""),
        ("w/o ZO", "hpsv2", "missing", "27.07", "", ""),
        ("w/o ZO", "aes", "missing", "6.23", "", ""),
        ("w/o ZO", "imagereward", "missing", "68.35", "", ""),
        ("w/o HO", "pickscore", "missing", "19.28", "", ""),
        ("w/o HO", "hpsv2", "missing", "26.7", "", ""),
        ("w/o HO", "aes", "missing", "5.92", "", ""),
        ("w/o HO", "imagereward", "missing", "63.85", "", ""),
        ("rlr", "pickscore", "missing", "21.38", "", ""),
        ("rlr", "hpsv2", "done", "29.22", "27", "-2.22"),
        ("rlr", "aes", "missing", "6.65", "", ""),
        ("rlr", "imagereward", "missing", "76.55", "", ""),
    ]
    (rlr_line,) = [r for r in found if r["ours"]]
    assert (rlr_line["our_gain"], rlr_line["their_gain"], rlr_line["seeds"]) == ("5", "7.14", "1")


def test_the_command_names_only_methods_rewards_and_models_that_are_missing(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    for reward in BASE:
        cell(tmp_path, "rlr", BETTER, settings=rlr(), reward=reward)
        cell(tmp_path, "rlr-no-zo", BETTER, settings=rlr(2, "none"), reward=reward)
    (part,) = section(load(tmp_path)).parts
    assert part.command == (
        f"python -m bench run --config table5 --methods rlr-fo,rlr-no-ho --out {tmp_path}"
    )
    assert part.missing == "8 of 16 numbers have no finished run. w/o HO & ZO; w/o HO."
    cell(tmp_path, "rlr-fo", BETTER, settings=rlr(0, "none"))
    cell(tmp_path, "rlr-no-ho", BETTER, settings=rlr(0))
    (part,) = section(load(tmp_path)).parts
    assert "--methods rlr-fo,rlr-no-ho --reward pickscore,aes,imagereward --out" in part.command


def test_nothing_is_missing_of_a_complete_table(tmp_path: Path) -> None:
    for solver, steps in (("ddim", 50), ("dpmpp", 20)):
        at: dict[str, Any] = {
            "solver": solver,
            "steps": steps,
            "prompts": "pickapic",
            "command": "bench run --config=table8",
        }
        cell(tmp_path, None, BASE, **at)
        for reward in BASE:
            cell(tmp_path, "rlr", BETTER, settings=rlr(), reward=reward, **at)
    made, view = section(load(tmp_path)), only(tmp_path)
    assert (view.table.number, [part.missing for part in made.parts]) == ("8", [""])
    assert all(not line.differing for line in view.lines)
    assert "Missing" not in shown(made)


def test_table_2_has_its_own_base_model_and_prompts_in_each_line(tmp_path: Path) -> None:
    at: dict[str, Any] = {"model": "sd21", "prompts": "pickapic", "command": "bench run --config table2"}
    cell(tmp_path, None, BASE, **at)
    cell(tmp_path, "ddpo", {"aes": 5.0}, reward="aes", **at)
    view = only(tmp_path)
    base = entry(view, "sd21, base", "pickapic_hpsv2")
    assert base.difference.mean == pytest.approx(22.0 - 22.14) and not base.gain.units
    ddpo = entry(view, "sd21, ddpo", "pickapic_aes")
    assert ddpo.difference.mean == pytest.approx(5.0 - 5.58)
    (line,) = [line for line in view.lines if line.label == "sd21, ddpo"]
    (quantity,) = [q for q in view.table.quantities if q.column == "pickapic_aes"]
    assert their_gain(view.table, line.line, quantity) == pytest.approx(5.58 - 4.53)
    assert not any(line.entries for line in view.lines if line.line.model == "sd14")


def test_a_stand_in_has_gains_beside_gains_and_no_difference(tmp_path: Path) -> None:
    at: dict[str, Any] = {"model": "tiny", "prompts": "emoji", "rewards": TINY, "steps": 20}
    at["command"] = "python -m bench run --config table5 --model tiny --steps 2"
    cell(tmp_path, None, {"clip": 0.6, "colourfulness": 50.0}, **at)
    cell(tmp_path, "rlr", {"clip": 0.7}, settings=rlr(), reward="clip", **at)
    made = section(load(tmp_path))
    found = entry(only(tmp_path), "rlr", "hpsv2")
    assert found.gain.mean == pytest.approx(0.1) and not found.difference.units
    text = " ".join(shown(made).split())
    assert "Not the paper's model: tiny stands in for sd14; clip for pickscore, hpsv2, imagereward" in text
    assert "hpsv2 (clip)" in text and "+7.14" in text
    (part,) = made.parts
    headers = [column.header for block in part.blocks for column in block.flat]
    assert any("gain" in header for header in headers) and not any("difference" in h for h in headers)
    assert part.command == f"python -m bench run --config table5 --model tiny --out {tmp_path}"
    assert part.typed_before == at["command"]
    assert {r["stands_in"] for r in records(made, tmp_path)} == {"yes"}


def test_random_weights_are_not_the_papers_model(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE, digest="random:sd14")
    cell(tmp_path, "rlr", BETTER, settings=rlr(), digest="random:sd14")
    assert only(tmp_path).beside.stand_in == "sd14 with random weights"
    (part,) = section(load(tmp_path)).parts
    assert "--model sd14 --weights random" in part.command


def test_chain_length_has_memory_and_minutes_beside_theirs_without_a_difference(tmp_path: Path) -> None:
    command = "bench run --config table9"
    cell(tmp_path, None, BASE, command=command)
    cell(tmp_path, "rlr-h3", BETTER, settings=rlr(h=3), command=command)
    cell(tmp_path, "zo", {"hpsv2": 22.5}, settings={"scale": 1e-3}, command=command)
    view = only(tmp_path)
    memory = entry(view, "rlr, h = 3", "memory_gb")
    assert (memory.ours.mean, memory.difference.units) == (pytest.approx(20.0), 0)
    assert entry(view, "zo", "minutes_per_step").ours.mean == pytest.approx(1.0)
    assert entry(view, "zo", "hpsv2").difference.mean == pytest.approx(22.5 - 22.31)


def test_steps_to_the_target_count_from_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    at: dict[str, Any] = {"reward": "aes", "prompts": "pickapic", "command": "bench run --config table7"}
    cell(tmp_path, None, BASE, prompts="pickapic", command=at["command"])
    cell(tmp_path, "rlr", {"aes": 4.5}, settings=rlr(), evaluations=[(25, 0.5), (50, 1.0), (75, 1.5)], **at)
    cell(tmp_path, "ddpo", {"aes": 4.5}, evaluations=[(25, 0.1), (50, 0.2)], **at)
    found, _ = views(load(tmp_path))
    assert [view.table.number for view in found] == ["6", "7"]
    steps = entry(found[1], "rlr", "steps_to_aes_5.4")
    assert (steps.ours.mean, steps.difference.mean) == (50.0, -25.0)
    assert entry(found[1], "rlr", "minutes_to_aes_5.4").ours.mean == pytest.approx(50.0)
    assert not entry(found[1], "ddpo", "steps_to_aes_5.4").ours.units
    assert "0/1 reach it" in shown(section(load(tmp_path)))


def test_dcot_is_compared_with_the_cells_that_have_it(tmp_path: Path) -> None:
    command = "bench run --config table4"
    for dcot, aes in ((False, 5.0), (True, 5.5)):
        cell(tmp_path, None, BASE, prompts="hand", dcot=dcot, command=command)
        more: dict[str, Any] = {"start_range": [9, 19]} if dcot else {}
        settings = rlr(**more)
        cell(
            tmp_path,
            "rlr",
            {"aes": aes},
            reward="aes",
            prompts="hand",
            dcot=dcot,
            settings=settings,
            command=command,
        )
    view = only(tmp_path)
    assert entry(view, "rlr", "aes").difference.mean == pytest.approx(5.0 - 5.27)
    assert entry(view, "rlr, DCoT", "aes").difference.mean == pytest.approx(5.5 - 5.83)
    (line,) = [line for line in view.lines if line.label == "rlr, DCoT"]
    (aes,) = [q for q in view.table.quantities if q.column == "aes"]
    assert their_gain(view.table, line.line, aes) == pytest.approx(5.83 - 4.83)


def test_two_settings_of_one_number_are_two_lines_that_say_what_differs(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", {"hpsv2": 27.0}, settings=rlr())
    cell(tmp_path, "rlr", {"hpsv2": 28.0}, settings=rlr(), lr=1e-3)
    labels = [line.label for line in only(tmp_path).lines if line.entries]
    assert sorted(labels) == ["rlr (lr=0.0005)", "rlr (lr=0.001)"]
    assert "lr = 0.001 (0.0005): rlr (lr=0.001)" in " ".join(shown(section(load(tmp_path))).split())


def test_runs_that_differ_in_their_weights_alone_are_two_lines(tmp_path: Path) -> None:
    for digest, score in (("0" * 16, 27.0), ("1" * 16, 28.0)):
        cell(tmp_path, None, BASE, digest=digest)
        cell(tmp_path, "rlr", {"hpsv2": score}, settings=rlr(), digest=digest)
    lines = [line for line in only(tmp_path).lines if line.entries]
    assert {line.label: round(line.entries["hpsv2"].ours.mean, 6) for line in lines} == {
        "rlr, number 1": 27.0,
        "rlr, number 2": 28.0,
    }


def test_cells_made_for_another_table_are_taken_where_the_table_has_none_of_its_own(tmp_path: Path) -> None:
    cell(tmp_path, None, BASE)
    cell(tmp_path, "rlr", {"hpsv2": 27.0}, settings=rlr(), command="bench run --config table2")
    cell(tmp_path, "rlr-no-ho", {"hpsv2": 26.0}, settings=rlr(0))
    found, others = views(load(tmp_path))
    assert [view.table.number for view in found] == ["2", "5"]
    assert entry(found[1], "rlr", "hpsv2").ours.mean == pytest.approx(27.0)
    assert [table.number for table in others] == ["9"]
