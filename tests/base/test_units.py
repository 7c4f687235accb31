import pytest

from bench.base.errors import BenchError
from bench.base.units import duration, size


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
