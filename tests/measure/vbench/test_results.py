"""Reading scores: VBench's result files, tables and leaderboards, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from bench.base.errors import BenchError
from bench.measure.vbench import table
from bench.measure.vbench.aggregate import TABLE3, checks, value
from bench.measure.vbench.dimension_status import DimensionStatus, write_status
from bench.measure.vbench.results import read
from tests.measure.vbench.videos import write_result


def test_vbenchs_result_files_of_a_directory_are_one_row(tmp_path: Path) -> None:
    write_result(tmp_path / "mine" / "scores" / "scene_eval_results.json", {"scene": 0.25})
    write_result(tmp_path / "mine" / "scores" / "b_eval_results.json", {"color": 0.5, "dynamic_degree": 1})
    (row,) = read([tmp_path / "mine"])
    assert (row.name, row.scores) == ("mine", {"scene": 0.25, "color": 0.5, "dynamic_degree": 1.0})


def test_one_result_file_of_vbenchs_command_line(tmp_path: Path) -> None:
    file = write_result(tmp_path / "results_2024-05-01-10:00:00_eval_results.json", {"dynamic_degree": 1.0})
    (row,) = read([file])
    assert (row.name, row.scores) == ("results_2024-05-01-10:00:00", {"dynamic_degree": 1.0})


def test_leaderboards_in_percent_and_in_fractions(tmp_path: Path) -> None:
    table = tmp_path / "board.csv"
    table.write_text(
        "Model Name (clickable),Sampled by,Total Score,Subject Consistency,Scene,Human Action\n"
        "[LaVie](https://example.org/lavie),VBench,77.08%,91.41%,52.69%,\n"
        "Show-1,VBench,78.93%,95.53%,47.03%,-\n"
    )
    lavie, show = read([table])
    assert (lavie.name, show.name) == ("LaVie", "Show-1")
    assert lavie.scores == {"subject_consistency": pytest.approx(0.9141), "scene": pytest.approx(0.5269)}
    assert lavie.printed == {"total": pytest.approx(0.7708)}
    assert lavie.half_units == pytest.approx(
        dict.fromkeys(["subject_consistency", "scene", "total"], 0.00005)
    )
    flat, nested, rows = (tmp_path / f"{name}.json" for name in ("flat", "nested", "rows"))
    flat.write_text(json.dumps({"subject consistency": 0.91, "scene": 0.5}))
    nested.write_text(json.dumps({"a": {"scene": 52.0}, "b": {"scene": 47.5, "color": None}}))
    rows.write_text(json.dumps([{"model": "a", "scene": "52%"}]))
    found = read([flat, nested, rows])
    assert [row.name for row in found] == ["flat", "a", "b", "a (2)"]
    assert [row.scores["scene"] for row in found] == pytest.approx([0.5, 0.52, 0.475, 0.52])


def test_a_unit_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("method,scene\nx,0.5\n")
    assert read([tmp_path / "a.csv"])[0].scores["scene"] == 0.5
    assert read([tmp_path / "a.csv"], "percent")[0].scores["scene"] == pytest.approx(0.005)


def test_blank_lines_cells_and_zeros_are_no_mistakes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('method,scene,color\n"x,\n1",52,0,\n,,\n\ny,0.5%,50\n')
    assert [row.name for row in read([tmp_path / "a.csv"])] == ["x,\n1", "y"]
    assert [row.scores["scene"] for row in read([tmp_path / "a.csv"])] == pytest.approx([0.52, 0.005])


def test_every_column_is_rounded_by_itself(tmp_path: Path) -> None:
    """Dimensions in full precision beside an aggregate with two decimals."""
    scores = {name: 0.9 + n * 0.0123456789 for n, name in enumerate(TABLE3)}
    mean = value("weighted_average", scores)
    assert mean is not None
    names, numbers = ",".join(scores), ",".join(f"{100 * value:.8f}" for value in scores.values())
    (tmp_path / "a.csv").write_text(f"method,{names},weighted_average\nx,{numbers},{100 * mean:.2f}\n")
    (row,) = read([tmp_path / "a.csv"])
    assert row.half_units["weighted_average"] == pytest.approx(0.00005)
    assert row.half_units["dynamic_degree"] == pytest.approx(0.5e-10)
    (check,) = checks(row.scores, row.printed, row.half_units)
    assert check.consistent


def test_numbers_of_json_drop_zeros_and_are_as_exact_as_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"dynamic_degree": 1, "scene": 0.51234, "color": 1.5e-05, "total_score": 0.7}'
    )
    (row,) = read([tmp_path / "a.json"])
    assert row.half_units["dynamic_degree"] == row.half_units["color"] == pytest.approx(0.5e-6)
    assert row.half_units["total"] == pytest.approx(0.05)


def test_notes_of_ones_own_name_dimensions_or_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "method,scene,color,Notes\nx,52,,Scene: five videos; color: old\ny,53,50,our run; see: logs\n"
    )
    assert [row.notes for row in read([tmp_path / "a.csv"])] == [{"scene": "five videos"}, {}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "method,scene\nx,52\ny,0.5\n", "say --unit"),
        ("a.csv", "method,scene\nx,many\n", "'many', not a number"),
        ("a.csv", "method,scene\nx,520\n", "not a score"),
        ("a.csv", "method,scene\nx,-2\n", "not a score"),
        ("a.csv", "method,scene\nx,inf\n", "is inf"),
        ("a.csv", "method,subject_consistancy\nx,52\n", "Did you mean 'subject_consistency'"),
        ("a.csv", "method,speed\nx,52\n", "none of VBench's dimensions"),
        ("a.csv", "scene,color\n52,30\n", "whose scores these are"),
        ("a.json", "{", "not valid json"),
        ("a.json", "{}", "expected VBench's results"),
        ("a.csv", "method,scene\nx,\n", "no score in it"),
        ("a.json", '{"subject_consistency": [null, []]}', "no score in it"),
        ("a.json", "3", "expected VBench's results"),
        ("a.txt", "", "expected a .csv or .json file"),
        ("a.csv", "", "a.csv: empty"),
        ("a.json", "\n", "a.json: empty"),
        ("a.csv", "method,scene\n\n,\n", "no line under the header"),
        ("a.csv", "method,scene,Scene\nx,52,53\n", "'scene' and 'Scene' are both scene"),
        ("a.csv", "method,scene,scene\nx,52,53\n", "are both scene"),
        ("a.csv", "method,scene,Total Score,total_score\nx,52,53,\n", "are both total_score"),
        ("a.json", '{"scene": 0.5, "scene": 0.6}', "are both scene"),
        ("a.json", '{"x": {"scene": 0.5}, "x": {"scene": 0.6}}', "'x' is twice"),
        ("a.csv", "method,scene,color\nx,95,0.8\n", "color of x is 0.8, which looks like a fraction"),
        ("a.csv", "method,scene,color\nx,95%,0.8\n", "say --unit"),
        ("a.csv", "method,scene\nx,52\ny,53,54\n", r"model 2 \(y\) has 3 cells, the header 2"),
        ("a.csv", "method,scene\nx,52\n ,53\n", "model 2 of 2 has no name"),
        ("a.json", '{"": {"scene": 0.5}}', "has no name"),
        ("a.json", '[{"scene": 0.5, "model": "a"}, {"scene": 0.5}]', "model 2 of 2 has no name"),
        ("a.json", '{"quality": {"color": 0.5}, "semantic": {"scene": 0.5}}', "'quality' groups dimensions"),
        ("a.json", '{"Quality Score": {"color": 0.5}, "total": 0.5}', "groups dimensions"),
        ("a.json", '{"color": [0.9, []], "scene": 0.5}', "mixed forms are not supported"),
        ("a.json", '[{"name": "x", "color": {"score": 0.5}}]', "mixed forms are not supported"),
        ("a.json", '{"scene": []}', r"scene is \[\] where a number is expected"),
    ],
)
def test_files_that_say_nothing_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BenchError, match=message):
        read([tmp_path / name])


def test_files_that_are_not_there_and_directories_without_scores(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        read([tmp_path / "none.csv"])
    with pytest.raises(BenchError, match="vbench score"):
        read([tmp_path])


def test_two_files_of_one_dimension_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_result(tmp_path / f"{name}_eval_results.json", {"scene": 0.5})
    with pytest.raises(BenchError, match="remove one"):
        read([tmp_path])


def own_format(file: Path, **dimensions: object) -> Path:
    """dimension=[score, [result, …]], a result alone or with what else VBench writes of a video."""
    tree = {
        name: [
            score,
            [
                {"video_path": f"{n}.mp4", **(video if isinstance(video, dict) else {"video_results": video})}
                for n, video in enumerate(videos)
            ],
        ]
        for name, (score, videos) in dimensions.items()  # type: ignore[misc]
    }
    file.write_text(json.dumps(tree))
    return file


def frames(results: float, **more: object) -> dict[str, object]:
    return {"video_results": results, **more}


@pytest.mark.silent
@pytest.mark.parametrize(
    ("dimension", "score", "videos"),
    [
        ("dynamic_degree", 2 / 3, [True, False, True]),
        ("imaging_quality", 0.7, [60.0, 80.0]),
        ("aesthetic_quality", 0.55001, [0.5, 0.6]),
        ("scene", 0.25, [frames(0.5, frame_count=2), frames(1 / 6, frame_count=6)]),
        ("background_consistency", 0.875, [frames(0.5, cnt_per_video=1), frames(1.0, cnt_per_video=3)]),
        ("appearance_style", 0.3, [frames(0.2, frame_results=[0.2]), frames(0.35, frame_results=[0.3, 0.4])]),
        ("spatial_relationship", 0.0, [0, 0]),
    ],
)
def test_a_score_that_is_the_mean_of_its_videos_as_vbench_takes_it_has_no_note(
    tmp_path: Path, dimension: str, score: float, videos: list[object]
) -> None:
    (row,) = read([own_format(tmp_path / "a.json", **{dimension: [score, videos]})])
    assert row.scores == {dimension: score} and row.notes == {}


@pytest.mark.silent
@pytest.mark.parametrize(
    ("dimension", "score", "videos"),
    [
        ("scene", 0.95, [0.5, 0.6]),
        ("imaging_quality", 0.7, [0.6, 0.8]),
        ("scene", 0.9, [frames(0.5, frame_count=2), frames(0.25, frame_count=6)]),
        ("dynamic_degree", 1.0, [True, False]),
    ],
)
def test_a_score_that_is_not_the_mean_of_its_own_videos_is_starred_and_stays_so_in_the_csv(
    tmp_path: Path, dimension: str, score: float, videos: list[object]
) -> None:
    file = own_format(tmp_path / "mine_eval_results.json", **{dimension: [score, videos]})
    for place in (file, tmp_path):
        (row,) = read([place])
        assert f"the file says {100 * score:.2f} %, the mean of its own 2 videos is" in row.notes[dimension]
        assert table.cell(row, dimension) == f"{100 * score:.2f}*"
    table.write(tmp_path / "out", [row])
    (again,) = read([tmp_path / "out" / "vbench.csv"])
    assert again.notes == row.notes


@pytest.mark.silent
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"scene": [0.5, []]}', "scene is 0.5 with no video to rest on"),
        ('{"scene": [0.5]}', "scene is 0.5 with no video to rest on"),
        ('{"scene": [0.5, 12]}', "scene is 0.5 with no video to rest on"),
        ('{"scene": [0.5, [{"video_path": "a"}]]}', "video 1 has no number under video_results"),
        ('{"scene": [0.5, [{"video_results": 0.5}, {"video_results": NaN}]]}', "video 2 has no number"),
        ('{"scene": ["0.5", [{"video_results": 0.5}]]}', "scene is '0.5', not a number"),
    ],
)
def test_a_score_without_the_videos_that_it_should_rest_on_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BenchError) as error:
        read([tmp_path / "a.json"])
    assert message in str(error.value)


@pytest.mark.silent
def test_why_a_score_is_not_official_and_that_it_does_not_add_up_are_both_said(tmp_path: Path) -> None:
    scores = tmp_path / "mine" / "scores"
    scores.mkdir(parents=True)
    own_format(scores / "scene_eval_results.json", scene=[0.9, [0.5]])
    write_status(scores, "scene", DimensionStatus(state="done", partial="1 of the suite's 430 videos"))
    (row,) = read([tmp_path / "mine"])
    assert row.notes["scene"].startswith("1 of the suite's 430 videos, the file says 90.00 %")
