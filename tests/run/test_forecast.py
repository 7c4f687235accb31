"""What a cell could do without on a larger GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.experiment.settings import CellConfig
from bench.run import cell as cells
from bench.run.forecast import memory_of, relaxed


def cell(method: str, *settings: str, model: str = "sd14") -> CellConfig:
    found = resolve_all(
        build(Options(methods=method, model=model, settings=settings)).combinations, fetch=False
    )
    return next(c.config for c in found if c.config.training is not None)


def sets(text: str | None) -> list[str]:
    return (
        []
        if text is None
        else [w for w in text.replace(",", "").split() if w.startswith(("model.", "train."))]
    )


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (80.0, ["model.gradient_checkpointing=false", "train.micro_batch=8"]),
        (20.0, ["model.gradient_checkpointing=false"]),
        (12.0, ["train.micro_batch=8"]),
        (10.0, []),
    ],
)
def test_ddpo_on_sd14_by_the_size_of_the_card(gib: float, expected: list[str]) -> None:
    assert sets(relaxed(cell("ddpo"), gib)) == expected


def test_what_is_proposed_is_what_the_estimate_says_it_takes() -> None:
    text = relaxed(cell("ddpo"), 80)
    other = cell("ddpo", "model.gradient_checkpointing=false", "train.micro_batch=8")
    assert text is not None and str(memory_of(other, gpu=True)) in text
    assert relaxed(other, 80) is None


@pytest.mark.parametrize("model", ["tiny", "sdxl"])
def test_nothing_is_proposed_where_nothing_is_saved_or_known(model: str) -> None:
    assert relaxed(cell("ddpo", model=model), 1000) is None


def test_the_cell_says_it_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Session:
        config, device = cell("ddpo"), torch.device("cpu")
        world: Any = type("World", (), {"is_main": True})

    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: type("Card", (), {"total_memory": 80 * 2**30})
    )
    session: Any = Session()
    cells._hint(session)
    assert capsys.readouterr().out == ""
    session.device = torch.device("cuda")
    cells._hint(session)
    assert "this GPU has 80 GiB" in capsys.readouterr().out
