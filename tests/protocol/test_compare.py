"""What `bench compare` says of two results directories or records, and its exit code."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from bench.base.errors import BenchError
from bench.base.files import read_rows, write_rows
from bench.protocol.compare import (
    BAD,
    Compared,
    Comparison,
    Tolerance,
    Verdict,
    compare,
    parse_tolerance,
)
from bench.protocol.compare_table import as_json, headline
from bench.protocol.matching import parse_methods
from bench.protocol.measures import over
from bench.protocol.reading import read_record
from bench.protocol.sides import Costs, Entry, Field, Side, read_side
from bench.report.stats import Runs, holm
from tests.protocol.records import Made, maker
from tests.report import fake
from tests.support.running import here

pytestmark = pytest.mark.slow

NONE = Tolerance({})
METHODS = ("vader", "truncated_bp")


def change(root: Path, method: str, edit: Callable[[Path], object]) -> None:
    """Edit the cells of a method."""
    found = sorted(root.glob(f"cells/{method}-*"))
    assert found
    for cell in found:
        edit(cell)


def scores(loss: float = 0.0, of_run: float = 0.0, noise: int = 0) -> Callable[[Path], None]:
    """Lower a cell's scores in the trained reward, by a little more or less in each run."""
    rng = np.random.default_rng(noise)

    def edit(cell: Path) -> None:
        less = loss + of_run * float(rng.standard_normal())
        rows = read_rows(cell / "eval.jsonl")
        for row in rows:
            if row["reward"] == "clip":
                row["score"] -= less + 0.3 * of_run * float(rng.standard_normal())
        write_rows(cell / "eval.jsonl", rows)

    return edit


def setting(**changes: object) -> Callable[[Path], None]:
    """Other settings of the training loop, or of evaluation where it has them."""

    def edit(cell: Path) -> None:
        config = yaml.safe_load((cell / "config.yaml").read_text())
        for key, value in changes.items():
            (config["eval"] if key in config["eval"] else config["training"]["train"])[key] = value
        (cell / "config.yaml").write_text(yaml.safe_dump(config))

    return edit


def state(name: str) -> Callable[[Path], object]:
    """How a cell ended."""
    return lambda cell: (cell / "status.json").write_text(json.dumps({"state": name, "step": 30}))


def directory(root: Path, seeds: Sequence[int] = (0, 1), noise: int = 0) -> Path:
    """Two methods, whose runs scatter."""
    fake.write(root, METHODS, seeds, steps=10, pictures=False)
    for method in METHODS:
        change(root, method, scores(of_run=0.005, noise=noise))
    return root


def compared(a: Path, b: Path, tolerance: float = 0.0, methods: str | None = None) -> Compared:
    """Through the whole reading."""
    names = None if methods is None else parse_methods(methods)
    return compare(read_side(a), read_side(b), Tolerance({}, tolerance), names)


def by_label(found: Compared) -> dict[str, Comparison]:
    return {one.label: one for one in found.comparisons}


def test_other_seeds_raise_no_alarm_and_a_loss_does(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    found = compared(a, b)
    assert not found.alarms and {one.verdict for one in found.comparisons} == {Verdict.UNCLEAR}
    assert all(one.paired and one.seeds == () for one in found.comparisons)
    change(b, "vader", scores(loss=0.3))
    lost = by_label(compared(a, b))
    assert (lost["vader"].verdict, lost["truncated_bp"].verdict) == (Verdict.WORSE, Verdict.UNCLEAR)
    assert lost["vader"].difference.mean == pytest.approx(-0.3, abs=0.02)
    assert by_label(compared(b, a))["vader"].verdict is Verdict.BETTER
    ours = [one.difference.p for one in lost.values()]
    assert [one.p for one in lost.values()] == pytest.approx(holm(ours))
    assert by_label(compared(a, b, tolerance=0.35))["vader"].verdict is Verdict.UNCLEAR


def test_the_same_numbers_are_equal_and_no_claim(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b")
    change(b, "vader", scores(loss=0.3))
    found = by_label(compared(a, b))
    assert found["truncated_bp"].verdict is Verdict.EQUAL and math.isnan(found["truncated_bp"].p)
    assert found["vader"].p == found["vader"].difference.p  # adjusted for no other


def test_one_seed_claims_nothing_but_beyond_a_tolerance(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a", (0,)), directory(tmp_path / "b", (1,), noise=1)
    change(b, "vader", scores(loss=0.3))
    assert {one.verdict for one in compared(a, b).comparisons} == {Verdict.OPEN}
    given = by_label(compared(a, b, tolerance=0.05))
    assert (given["vader"].verdict, given["truncated_bp"].verdict) == (Verdict.WORSE, Verdict.UNCLEAR)


def test_less_is_better_where_the_reward_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    change(b, "vader", scores(loss=0.3))
    monkeypatch.setattr("bench.protocol.compare.direction", lambda reward: -1)
    assert by_label(compared(a, b))["vader"].verdict is Verdict.BETTER
    assert by_label(compared(b, a))["vader"].verdict is Verdict.WORSE


def test_other_pictures_are_not_paired_and_it_is_said_why(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    for method in ("base", *METHODS):
        change(b, method, setting(seed=99))
    found = compared(a, b)
    assert not any(one.paired for one in found.comparisons)
    assert any(
        "do not draw the same pictures" in note and "eval.seed 1234 → 99" in note for note in found.notes
    )
    paired = compared(a, directory(tmp_path / "c", (2, 3), noise=1))
    assert by_label(found)["vader"].difference.se > by_label(paired)["vader"].difference.se


def test_a_base_model_that_scores_otherwise_is_said(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    change(b, "base", scores(loss=0.1))
    assert ["the base model itself scores" in note for note in compared(a, b).notes] == [True]


def test_methods_of_one_side_are_named_and_other_settings_too(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), fake.write(tmp_path / "b", ["vader", "ddpo"], (2, 3), pictures=False)
    change(b, "vader", setting(lr=0.002))
    found = compared(a, b)
    assert [(one.side, one.method) for one in found.alone] == [("A", "truncated_bp"), ("B", "ddpo")]
    (vader,) = found.comparisons
    assert vader.settings_differ == ["train.lr 0.0005 → 0.002"]


def test_of_several_settings_equal_ones_are_compared(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (0, 1, 2), noise=1)
    change(a, "vader-tiny-clip-s1", setting(lr=0.002))
    change(b, "vader-tiny-clip-s1", setting(lr=0.002))
    change(b, "vader-tiny-clip-s2", setting(lr=0.003))
    found = compared(a, b)
    assert {"vader (lr=0.0005)", "vader (lr=0.002)", "truncated_bp"} == set(by_label(found))
    assert [(one.side, one.method) for one in found.alone] == [("B", "vader (lr=0.003)")]
    with pytest.raises(
        BenchError, match=r"vader has several settings in .*: name one of 'vader \(lr=0.0005\)'"
    ):
        compared(a, b, methods="vader")
    (one,) = compared(a, b, methods="vader (lr=0.002):vader (lr=0.003)").comparisons
    assert one.b.label == "vader (lr=0.003)"


def test_runs_that_fail_in_b_are_an_alarm_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    change(b, "vader-tiny-clip-s3", state("failed"))
    change(b, "truncated_bp-tiny-clip-s3", state("running"))
    found = by_label(compared(a, b))
    assert (found["vader"].verdict, found["truncated_bp"].verdict) == (Verdict.FAILS, Verdict.OPEN)
    assert found["vader"].b.unfinished_text == "1 of 2 runs failed"
    change(a, "vader-tiny-clip-s0", state("failed"))
    assert by_label(compared(a, b))["vader"].verdict is Verdict.OPEN


def test_runs_that_all_failed_on_both_sides_are_not_called_equal(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", noise=1)
    for side in (a, b):
        change(side, "vader", state("failed"))
    found = compared(a, b)
    one = by_label(found)["vader"]
    assert one.verdict is Verdict.OPEN and math.isnan(one.difference.mean)
    assert "Equal" not in headline(found)


def test_seeds_that_are_left_out_of_pairs_are_named(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a", (0, 1, 2, 7)), directory(tmp_path / "b", (0, 1, 2, 8), noise=1)
    change(b, "truncated_bp-tiny-clip-s8", state("failed"))
    notes = json.loads(as_json(compared(a, b)))["notes"]
    assert any(note.startswith("vader: seeds 7 of A, 8 of B are left out of B − A") for note in notes)
    assert any(note.startswith("truncated_bp: seeds 7 of A are left out") for note in notes)
    same = json.loads(as_json(compared(a, directory(tmp_path / "c", (0, 1, 2, 7), noise=1))))["notes"]
    assert not any("left out" in note for note in same)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    change(b, "vader-tiny-clip-s3", lambda cell: (cell / "config.yaml").write_text("- no mapping"))
    found = compared(a, b)
    assert len(by_label(found)["vader"].b.runs) == 1
    assert ["B: vader-tiny-clip-s3" in note and "cannot be read" in note for note in found.notes] == [True]


MADE = {
    "truncated_bp": Made({"clip": 0.2}, sits_out=("no-gradient",)),
    "ddpo": Made({"clip": 0.19, "jpeg": 0.2}, of_run=0.01),
    "reinforce": Made({"clip": 0.05, "jpeg": 0.19}, of_run=0.01, missed=(2,)),
}


def test_methods_of_one_record_differ_as_on_the_leaderboard(tmp_path: Path) -> None:
    folder = maker(methods=MADE).write(tmp_path / "record")
    found = compared(folder, folder, methods="ddpo:truncated_bp").comparisons
    tables = read_record(folder).tables
    expected = [over(tables[name], "truncated_bp", "ddpo", "clip", 4) for name in ("easy", "hard")]
    assert [one.difference for one in found] == expected and [one.seeds for one in found] == [
        (0, 1, 2, 3)
    ] * 2
    assert [one.label for one in found] == ["truncated_bp − ddpo"] * 2
    assert {one.place for one in found} == {
        f"tiny, trained on clip, emoji ({name})" for name in ("easy", "hard")
    }


def test_a_record_and_a_workload_of_it_stand_for_a_directory(tmp_path: Path) -> None:
    a, b = (maker(methods=MADE, noise=n).write(tmp_path / f"r{n}") for n in range(2))
    whole, part = compared(a, b), compared(a / "no-gradient", b)
    assert [one.label for one in part.comparisons] == ["ddpo", "reinforce"]
    assert [one.place for one in part.comparisons] == ["tiny, trained on jpeg, emoji"] * 2
    assert part.comparisons[0].difference == whole.comparisons[-2].difference
    assert {one.place for one in part.alone} == {"easy", "hard"}
    costs = part.comparisons[0].a.costs
    assert costs == Costs(seconds=59.0, forward_equivalents=5900.0, memory=1.5e9)
    assert part.comparisons[1].verdict is Verdict.OPEN  # a run of both has failed


def test_a_record_is_paired_with_a_directory_whose_base_model_is_the_same_cell(tmp_path: Path) -> None:
    folder = maker(methods={"vader": Made({"clip": 0.2})}).write(tmp_path / "record")
    results = directory(tmp_path / "a")
    (one,) = compared(results, folder / "easy").comparisons
    assert not one.paired
    side = read_side(results)
    rows = pd.read_csv(folder / "easy" / "runs.csv", dtype=str)
    rows.loc[rows["method"] == "base", "cell"] = side.fields[0].base_cell
    rows.to_csv(folder / "easy" / "runs.csv", index=False)
    table = pd.read_csv(folder / "easy" / "scores.csv", dtype=str)
    clip = table[table["reward"] == "clip"].assign(prompt=sorted(fake.PROMPTS)[:6])
    clip.to_csv(folder / "easy" / "scores.csv", index=False)
    (one,) = compared(results, folder / "easy").comparisons
    assert one.paired and one.difference.units == 6
    assert one.a.mean == pytest.approx(side.fields[0].entries[-1].mean)


@pytest.mark.parametrize(
    ("text", "said"),
    [("x", "expected a number from 0 up"), ("-1", "expected a number"), ("clip:", "expected a number")],
)
def test_a_tolerance_that_is_none_is_a_mistake(text: str, said: str) -> None:
    with pytest.raises(BenchError, match=f"--tolerance {text}: {said}"):
        parse_tolerance(text)


def test_tolerances_of_several_rewards() -> None:
    found = parse_tolerance("0.1,clip:0.01, jpeg:0.2")
    assert [found.of(name) for name in ("clip", "jpeg", "aes")] == [0.01, 0.2, 0.1]


def test_names_are_cut_at_commas_outside_of_labels() -> None:
    assert parse_methods("rlr (h=2, lr=0.1):ddpo, vader") == [
        ("rlr (h=2, lr=0.1)", "ddpo"),
        ("vader", "vader"),
    ]
    with pytest.raises(BenchError, match="expected NAME"):
        parse_methods("rlr:")


def test_what_cannot_be_compared_is_one_message(tmp_path: Path) -> None:
    a = directory(tmp_path / "a")
    for b, methods, said in (
        (a, None, "A and B are the same"),
        (fake.write(tmp_path / "b", ["zo"], pictures=False), None, "have no method in common"),
        (fake.write(tmp_path / "c", [], pictures=False), None, "no method was ever trained here"),
        (a, "vadre:vader", "has no 'vadre'. Did you mean 'vader'?"),
    ):
        with pytest.raises(BenchError) as caught:
            compared(a, b, methods=methods)
        assert said in str(caught.value)
    with pytest.raises(BenchError, match="nothing was trained on 'hpsv2', but on clip"):
        compare(read_side(a), read_side(tmp_path / "b"), Tolerance({"hpsv2": 1.0}))


def test_exit_codes_tables_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    a, b = directory(tmp_path / "a"), directory(tmp_path / "b", (2, 3), noise=1)
    done = here("compare", a, b)
    assert done.returncode == 0 and "No alarm in 2 comparisons" in done.stdout
    change(b, "vader", scores(loss=0.3))
    done = here("compare", a, b)
    assert done.returncode == 1 and "Alarm: 1 of 2: vader (-0.2" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = here("compare", a, b, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and found["alarms"] == 1
    lines = {line["method"]: line for line in found["comparisons"]}
    assert [line["alarm"] for line in lines.values()] == [name == "vader" for name in lines]
    assert lines["vader"]["difference"] == pytest.approx(-0.3, abs=0.02) and lines["vader"]["p_holm"] < 0.05
    assert here("compare", a, b, "--tolerance", "0.4").returncode == 0
    done = here("compare", a, tmp_path / "nowhere")
    assert done.returncode == 2 and "no results here" in done.stderr and "Traceback" not in done.stderr


PAIRS, UNITS, TITLE = 60, 12, "tiny, trained on clip"


def made_up(rng: np.random.Generator, prompts: np.ndarray, loss: float = 0.0) -> Side:
    """Five methods with two runs of unequal spread each; the first one loses."""
    index = pd.MultiIndex.from_product([[f"p{n:02d}" for n in range(UNITS)], [0]], names=["prompt", "image"])

    def entry(number: int) -> Entry:
        spread = 0.1 * (1 + number)
        runs: Runs = {
            int(rng.integers(10**6)): pd.Series(
                prompts - (loss if number == 0 else 0.0) + spread * (rng.normal() + rng.normal(size=UNITS)),
                index,
            )
            for _ in range(2)
        }
        return Entry(f"m{number}", f"m{number}", {}, runs, 0, 0, Costs(1.0, 1.0, 1.0))

    entries = tuple(entry(number) for number in range(5))
    field = Field(TITLE, "tiny", "clip", "emoji", "base", "same", {}, math.nan, False, entries)
    return Side(Path(str(rng.integers(10**9))), "made up", "", "", (field,))


def test_no_more_than_one_table_in_twenty_raises_a_false_alarm_and_a_loss_is_found() -> None:
    rng, alarms, found = np.random.default_rng(0), 0, 0
    for _ in range(PAIRS):
        prompts = rng.normal(size=UNITS)
        a = made_up(rng, prompts)
        alarms += bool(compare(a, made_up(rng, prompts), NONE).alarms)
        bad = [
            one.label
            for one in compare(a, made_up(rng, prompts, loss=2.0), NONE).comparisons
            if one.verdict in BAD
        ]
        found += "m0" in bad
    assert alarms <= 0.05 * PAIRS + 3 * math.sqrt(0.05 * 0.95 * PAIRS)
    assert found > 0.6 * PAIRS
