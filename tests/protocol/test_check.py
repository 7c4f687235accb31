"""What is against the protocol in a record is found, with its file and line."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench.base.layers import Tree
from bench.protocol.check import across, check
from bench.protocol.reading import CHOSEN, CURVES, RUNS, SCORES, SUITE, TRIALS, read_record
from bench.report.groups import NULL
from tests.protocol.records import WORKLOADS, Made, Row, change, change_yaml, maker, of, unscored

SOME = {name: WORKLOADS[name] for name in ("easy", "no-gradient")}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record that keeps the protocol."""
    return maker(workloads=SOME).write(tmp_path_factory.mktemp("records") / "record")


@pytest.fixture
def record(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(written, tmp_path / "record")


def faults(folder: Path) -> list[str]:
    """All of them as they are printed, without what lies above the record's folder."""
    return [str(fault).replace(f"{folder}/", "") for fault in check(read_record(folder), SOME)]


def setting(**changes: object) -> Callable[[list[Row]], None]:
    """Change the first line of truncated_bp, which is line 2 of trials.csv and line 3 of runs.csv."""

    def edit(rows: list[Row]) -> None:
        of(rows, method="truncated_bp").update(changes)

    return edit


def score(**changes: object) -> Callable[[list[Row]], None]:
    """Change line 3 of scores.csv, which is the second prompt's in the trained reward."""
    return lambda rows: rows[1].update(changes)


def another(rows: list[Row]) -> None:
    """One run has a prompt of its own in place of another."""
    rows.append(dict.fromkeys(rows[1], "") | {"prompt": "x", "reward": "clip", "truncated_bp 0": "0.8"})
    rows[1]["truncated_bp 0"] = ""


def stranger(rows: list[Row]) -> None:
    """A column of scores belongs to no run."""
    for row in rows:
        row["ddpo 9"] = row["ddpo 0"]


def dropped(**wanted: object) -> Callable[[list[Row]], None]:
    """Take a line out."""
    return lambda rows: rows.remove(of(rows, **wanted))


def test_a_record_that_keeps_the_protocol_has_no_faults(record: Path) -> None:
    assert faults(record) == []


def test_misses_in_tuning_and_in_final_runs_are_no_faults(record: Path) -> None:

    def miss(rows: list[Row]) -> None:
        for row in rows:
            if row["method"] == "ddpo" and row["study"] == "1":
                row |= {"state": "failed", "score": ""}

    def no_run(rows: list[Row]) -> None:
        for row in rows:
            if row["method"] == "ddpo" and row["study"] == "1":
                row |= {"state": "missed", "settings": "", "forwards": "", "steps": "", "seconds": ""}

    def no_choice(tree: Tree) -> None:
        tree["methods"]["ddpo"] = tree["methods"]["ddpo"][:1]

    change(record / "easy" / TRIALS, miss)
    change_yaml(record / "easy" / CHOSEN, no_choice)
    change(record / "easy" / RUNS, no_run)
    unscored(record / "easy", "ddpo", 1, 3)
    assert faults(record) == []


def without(reward: str) -> Callable[[list[Row]], None]:
    """Take a reward's lines out."""

    def edit(rows: list[Row]) -> None:
        rows[:] = [row for row in rows if row["reward"] != reward]

    return edit


def turned(rows: list[Row]) -> None:
    """The better of the first two trials is now the worse."""
    for row in rows[:2]:
        row["score"] = -float(row["score"])


def lr(rate: float, k: int) -> str:
    return f'{{"train": {{"lr": {rate}}}, "k": {k}}}'


def twice(rows: list[Row]) -> None:
    """The second line once more."""
    rows.append(dict(rows[1]))


TRIAL, RUN = "trials.csv:2: truncated_bp, study 0, trial 0", "runs.csv:3: truncated_bp, seed 0"
TABLES = [
    (TRIALS, setting(settings=lr(0.3, 5)), f"{TRIAL}: train.lr=0.3 is outside"),
    (TRIALS, setting(settings=lr(0.00795, 4)), f"{TRIAL}: k=4 is outside"),
    (TRIALS, setting(settings=lr(0.00796, 5)), f"{TRIAL}: its settings are not"),
    (TRIALS, setting(settings='{"eta": 1}'), "tunes eta, and its search space is of train.lr, k"),
    (TRIALS, setting(seed=0), f"{TRIAL}: seed 0 is one of comparisons"),
    (TRIALS, setting(score=""), f"{TRIAL}: a trial has a score if it is done"),
    (TRIALS, setting(trial=7), "trials.csv:2: truncated_bp, study 0, trial 7: suite.yaml knows"),
    (TRIALS, setting(state="running"), f"{TRIAL}: running"),
    (TRIALS, dropped(method="ddpo"), "trials.csv: ddpo, study 0, trial 0 is not there"),
    (TRIALS, twice, "trials.csv: truncated_bp, study 0, trial 1 is there twice"),
    (TRIALS, turned, "chosen.yaml: methods.truncated_bp, study 0: trial"),
    (RUNS, setting(forwards=6600), f"{RUN}: spent 6600 forward equivalents, and the budget"),
    (RUNS, setting(forwards=""), f"{RUN}: no forward equivalents"),
    (RUNS, setting(study=1), f"{RUN}: takes the choice of study 1, not 0"),
    (RUNS, setting(settings=lr(0.001, 1)), f"{RUN}: its settings are not what study 0 chose"),
    (RUNS, setting(state="missed"), f"{RUN}: its settings are not what study 0 chose"),
    (RUNS, setting(seed=9), "runs.csv:3: truncated_bp, seed 9: suite.yaml knows no such run"),
    (RUNS, setting(state="running"), f"{RUN}: running"),
    (RUNS, dropped(method="ddpo", seed=2), "runs.csv: ddpo, seed 2 is not there"),
    (RUNS, dropped(method="base"), "runs.csv: the base model is not there"),
    (RUNS, twice, "runs.csv: truncated_bp, seed 0 is there twice"),
    (SCORES, score(**{"ddpo 0": ""}), "scores.csv:3: ddpo, seed 0: scores of 5 prompts in clip: score the 6"),
    (SCORES, dropped(prompt="prompt 1"), "scores.csv: ddpo, seed 0: scores of 5 prompts in clip"),
    (SCORES, another, "truncated_bp, seed 0: the prompts scored in clip are not those"),
    (SCORES, stranger, "scores.csv:1: column ddpo 9: runs.csv has no such run"),
    (SCORES, score(**{"truncated_bp 0": 0.9}), "truncated_bp, seed 0: clip ends at"),
    (SCORES, without("jpeg"), "scores.csv: the base model: no scores in jpeg"),
    (SCORES, twice, "scores.csv:32: clip of 'prompt 1' is there twice"),
    (CURVES, setting(seed=9), "curves.csv:2: truncated_bp, seed 9: runs.csv has no such run"),
    (CURVES, dropped(method="ddpo", reward="jpeg", step=12), "the last evaluation is of step 9, and the run"),
    (CURVES, without("jpeg"), "curves.csv: truncated_bp, seed 0: no evaluations in jpeg"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "edit", "said"), TABLES)
def test_faults_of_tables_are_found(
    record: Path, file: str, edit: Callable[[list[Row]], object], said: str
) -> None:
    change(record / "easy" / file, edit)
    found = faults(record)
    assert any(said in line for line in found), found
    assert all(line.startswith("easy/") for line in found)


def test_a_choice_with_another_score_or_other_settings_than_its_trial_is_found(record: Path) -> None:
    wrong: list[Tree] = [{"score": 0.99}, {"settings": {"train": {"lr": 0.001}, "k": 1}}]
    for changes in wrong:
        change_yaml(record / "easy" / CHOSEN, partial(_chosen, changes))
        (line,) = (line for line in faults(record) if CHOSEN in line)
        assert "methods.truncated_bp, study 0: trial" in line and "is another one in trials.csv" in line


def _chosen(changes: Tree, tree: Tree) -> None:
    tree["methods"]["truncated_bp"][0].update(changes)


@pytest.mark.parametrize(("key", "value"), [("model", "sd14"), ("reward", "jpeg"), ("budget", 9000)])
def test_choices_of_another_workload_are_found(record: Path, key: str, value: object) -> None:
    change_yaml(record / "easy" / CHOSEN, lambda tree: tree.update({key: value}))
    (line,) = faults(record)
    assert line.startswith(f"easy/chosen.yaml: {key}: is {value}, and ")


def test_a_study_that_goes_on_has_chosen_nothing_and_its_runs_have_no_settings(record: Path) -> None:
    def later(rows: list[Row]) -> None:
        of(rows, method="ddpo", study=1).update(state="running", score="")

    def left(rows: list[Row]) -> None:
        for row in rows:
            if row["method"] == "ddpo" and row["study"] == "1":
                row |= {
                    "state": "left",
                    "settings": "",
                    "cell": "",
                    "forwards": "",
                    "steps": "",
                    "seconds": "",
                }

    change(record / "easy" / TRIALS, later)
    change(record / "easy" / RUNS, left)
    unscored(record / "easy", "ddpo", 1, 3)
    change_yaml(record / "easy" / CHOSEN, lambda tree: tree["methods"]["ddpo"].pop())
    found = check(read_record(record), SOME)
    assert all(fault.missing for fault in found), found
    assert [Path(fault.where.partition(":")[0]).name for fault in found] == [TRIALS, RUNS, RUNS]


def test_what_is_only_not_there_yet_is_told_from_what_is_wrong(record: Path) -> None:
    change(record / "easy" / RUNS, dropped(method="ddpo", seed=2))
    unscored(record / "easy", "ddpo", 2)
    (record / "easy" / CHOSEN).unlink()
    shutil.rmtree(record / "no-gradient")
    found = check(read_record(record), SOME)
    assert all(fault.missing for fault in found)
    assert {Path(fault.where).name for fault in found} == {RUNS, CHOSEN, "no-gradient"}
    change(record / "easy" / RUNS, setting(forwards=7000))
    (wrong,) = [fault for fault in check(read_record(record), SOME) if not fault.missing]
    assert "spent 7000" in str(wrong)


SUITES: list[tuple[Callable[[Tree], object], str]] = [
    (lambda t: t["workloads"]["easy"].update(budget=9000), "workloads.easy.budget: is 9000, and 6000 in"),
    (lambda t: t["workloads"]["easy"].update(target=0.5), "workloads.easy.target: is 0.5, and 0.7 in"),
    (lambda t: t["workloads"].update(my=t["workloads"]["easy"]), "workloads.my: is no workload that ships"),
    (lambda t: t["workloads"].pop("easy"), "suite.yaml: workloads: easy is not in the record"),
    (lambda t: t["sits_out"].update(easy=["ddpo"]), "sits_out.easy: ddpo can take part"),
    (lambda t: t["sits_out"].clear(), "sits_out.no-gradient: truncated_bp needs a gradient that jpeg lacks"),
    (lambda t: t["search"]["ddpo"].update({"k": {"choice": [1]}}), "search.ddpo: is not the search space"),
    (lambda t: t["environment"].update(torch=None), "suite.yaml: environment.torch: is not named"),
    (lambda t: t["environment"].pop("peft"), "suite.yaml: environment.peft: is not named"),
    (lambda t: t["methods"].remove(NULL), "suite.yaml: methods: there is no random-direction"),
    (lambda t: t["methods"].append("ddpo"), "suite.yaml: methods: one is named twice"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "said"), SUITES)
def test_faults_of_the_suite_are_found(record: Path, edit: Callable[[Tree], object], said: str) -> None:
    change_yaml(record / SUITE, edit)
    assert any(said in line for line in faults(record)), faults(record)


def test_a_method_that_is_not_installed_is_held_to_the_space_that_it_declared(record: Path) -> None:
    for path in record.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace("ddpo", "theirs"))
    assert faults(record) == []

    def outside(rows: list[Row]) -> None:
        of(rows, method="theirs")["settings"] = (
            '{"train": {"lr": 1.0, "samples_per_prompt": 2}, "group": true}'
        )

    change(record / "easy" / TRIALS, outside)
    assert any(
        "theirs, study 0, trial 0: train.lr=1.0 is outside its search space" in f for f in faults(record)
    )


def test_the_space_of_a_method_that_is_not_installed_keeps_the_rule(record: Path) -> None:
    def greedy(tree: Tree) -> None:
        tree["search"]["theirs"] |= {"train.lr": {"log": [1e-5, 1]}, "train.budget": {"choice": [9000]}}

    for path in record.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace("ddpo", "theirs"))
    change_yaml(record / SUITE, greedy)
    found = [line for line in faults(record) if line.startswith("suite.yaml")]
    assert [line.partition(": ")[2].partition(":")[0] for line in found] == [
        "search.theirs.train.lr", "search.theirs.train.budget"
    ]  # fmt: skip
    assert "is drawn from {log: [0.0003, 0.03]}" in found[0] and "is not a method's to tune" in found[1]


def test_base_models_and_effort_of_two_records_are_to_be_the_same(tmp_path: Path) -> None:
    one, two = (read_record(maker(workloads=SOME, noise=n).write(tmp_path / str(n))) for n in (1, 2))
    assert across([one, two]) == []
    other = maker(workloads=SOME, trials=3)
    other.base["clip"] = 0.62
    three = read_record(other.write(tmp_path / "3"))
    effort, easy, no_gradient = across([three], [one, two])
    assert str(effort).endswith(
        f"suite.yaml: trials: 3, and 2 in {tmp_path / '1'}: run the suite with as many"
    )
    assert "easy/scores.csv: the base model's clip is 0.6" in str(easy) and str(tmp_path / "1") in str(easy)
    assert "no-gradient/scores.csv: the base model's clip is 0.6" in str(no_gradient)


def test_methods_without_a_search_space_tune_nothing(tmp_path: Path) -> None:
    methods = {"rlr-fo": Made({}), NULL: Made({})}
    workloads = {"easy": WORKLOADS["easy"]}
    folder = maker(methods=methods, workloads=workloads).write(tmp_path / "record")
    assert check(read_record(folder), workloads) == []
