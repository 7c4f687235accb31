"""The example for estimators of one's own."""

import re

import pytest

from examples import profile_your_own


@pytest.mark.slow
def test_it_finds_the_wrong_weight_biased_and_the_right_one_unbiased(
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile_your_own.main()
    text = capsys.readouterr().out
    assert re.findall(r"weight (\d): (\w+)", text) == [("1", "biased"), ("2", "unbiased")]
