import pytest

from bench.base.errors import BenchError
from bench.base.units import duration, numbers, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), ("90", 90), (" 0.5m ", 30)],
)
def test_times_are_numbers_with_a_unit_and_without_one_seconds(text: str, seconds: float) -> None:
    assert duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "0", "-5m", "5 m", "1w", "m"])
def test_what_is_no_time_is_told_under_its_flag(text: str) -> None:
    with pytest.raises(BenchError, match=f"^--deadline {text}: expected a time such as 90s, 5m or 2h"):
        duration(text, "--deadline")


def test_sizes_tell_decimal_units_from_binary_ones() -> None:
    sizes = ["40GB", "24GiB", "800 mb", "1.5TB"]
    assert [size(text, "--budget") for text in sizes] == [40 * 10**9, 24 * 2**30, 800 * 10**6, 15 * 10**11]
    for text in ("40", "0GB", "40GBs"):
        with pytest.raises(BenchError, match=f"--budget {text}: expected a size"):
            size(text, "--budget")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", [0]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("0-2,7", [0, 1, 2, 7]),
        (" 7 , 3-3", [7, 3]),
        ("10-11,0", [10, 11, 0]),
    ],
)
def test_numbers_and_ranges_mix_in_the_order_typed(text: str, found: list[int]) -> None:
    assert numbers(text, "--seeds") == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("4-0", "the range 4-0 runs backwards: write 0-4"),
        ("0,1,0", "0 is there twice"),
        ("0-3,2", "2 is there twice"),
        ("", "names no number"),
        (",", "names no number"),
        ("-1", "'-1' is no whole number or range"),
        ("0-", "'0-' is no whole number or range"),
        ("1.5", "'1.5' is no whole number or range"),
        ("0..4", "'0..4' is no whole number or range"),
        ("0-100000000", "more than 10,000 numbers"),
    ],
)
def test_what_is_no_list_of_numbers_is_told(text: str, told: str) -> None:
    with pytest.raises(BenchError, match=f"^--seeds: {told}"):
        numbers(text, "--seeds")
