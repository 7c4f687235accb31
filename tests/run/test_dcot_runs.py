"""Runs with diffusive chain-of-thought: what the network sees, and what the reward and the plans see."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.base.files import read_rows
from bench.data.prompts import answers, dcot
from bench.experiment.cell_digests import MISSING
from bench.experiment.request import Options, build
from bench.experiment.resolve import resolve_all
from bench.run import launch
from bench.run.cell import run_cell
from bench.run.experiment import plan, show
from bench.run.process import Exit
from bench.run.sample import draw, write
from bench.run.session import Session
from bench.run.store import CellDir
from tests.support.pipelines import pipeline_dir
from tests.support.running import cell

SHORT = ("train.batch_size=2", "eval.prompts=2", "eval.images_per_prompt=1", "sampler.steps=6")
SMALL = f"model.path={pipeline_dir()}"


def asked(out: Path, *settings: str, dcot: bool = True) -> Options:
    return Options(methods="ddpo", prompts="hand", dcot=dcot, steps=1, settings=(*SHORT, *settings), out=out)


def trained(out: Path, dcot: bool = True) -> CellDir:
    ready, _ = launch.prepare(plan(build(asked(out, SMALL, dcot=dcot)), force=False).todo, force=False)
    assert [run_cell(CellDir(work.directory.path), None) for work in ready] == [Exit.DONE] * len(ready)
    return cell(out, "ddpo")


@pytest.mark.slow
def test_every_third_of_the_chain_sees_its_prompt_and_the_reward_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine.world import World

    (config,) = [
        c.config for c in resolve_all(build(asked(tmp_path)).combinations) if c.config.training is None
    ]
    session = Session(CellDir(tmp_path / "cell"), config, World(None), torch.device("cpu"))
    seen: list[str] = []
    scored: list[str] = []
    network = session.chain.network.forward  # type: ignore[attr-defined]
    prompt = session.prompts.eval[0]
    parts = dcot.stages([prompt], dcot.DcotConfig())[prompt]
    states = {text: session.chain._text([[text]]).states[0, 0] for text in parts}  # type: ignore[attr-defined]

    def watched(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, **more: object) -> object:
        seen.append(next(name for name, state in states.items() if torch.equal(state, text[0])))
        return network(x, t, text, **more)

    monkeypatch.setattr(session.chain.network, "forward", watched)  # type: ignore[attr-defined]
    reward = session.rewards["clip"]
    score = reward.score
    monkeypatch.setattr(reward, "score", lambda media, texts: scored.extend(texts) or score(media, texts))
    session.config = config.model_copy(update={"eval": config.eval.model_copy(update={"prompts": 1})})
    session.held_out()
    assert seen == [text for text in parts for _ in range(2)]  # six steps, noise first
    assert set(scored) == {prompt}


@pytest.mark.slow
def test_a_cell_with_dcot_draws_other_pictures_and_samples_are_drawn_as_it_was_trained(
    tmp_path: Path, tried_here: None
) -> None:
    plain, with_stages = trained(tmp_path / "off", dcot=False), trained(tmp_path / "on")
    scores = [
        [row["score"] for row in read_rows(one.evaluations) if row["reward"] == "clip"]
        for one in (plain, with_stages)
    ]
    assert scores[0] != scores[1]

    def picture(name: str, dcot: bool | None) -> bytes:
        drawn = draw("A hand", None, with_stages.path, 1, 0, (SMALL,), dcot)
        (file,) = write(drawn, "A hand", tmp_path / name)
        return file.read_bytes()

    assert picture("default", None) == picture("on-again", True) != picture("off-again", False)


def test_a_plan_asks_no_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.txt"
    file.write_text("a cat\na dog\na bird\n")
    server = ("dcot.endpoint=http://127.0.0.1:9/v1", "dcot.llm=none")
    options = Options(methods="ddpo", prompts=str(file), dcot=True, settings=server, out=tmp_path / "x")
    planned = plan(build(options), force=False, fetch=False)
    assert all(one.config.digests["dcot"].startswith(MISSING) for one in planned.cells)
    console = Console(record=True, width=100)
    show(console, planned)
    assert "the run itself asks none (dcot.llm) for them" in console.export_text()


def test_a_plan_knows_what_a_language_model_answered_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.txt"
    file.write_text("a cat\nA hand\n")
    key = answers.key("writer", dcot.template(), "a cat")
    answers.append(key, "writer", "a cat", answers.Stages("a", "b", "c"))
    server = ("dcot.endpoint=http://127.0.0.1:9/v1", "dcot.llm=writer")
    options = Options(methods="ddpo", prompts=str(file), dcot=True, settings=server, out=tmp_path / "x")
    dry, wet = (plan(build(options), force=False, fetch=fetch).cells for fetch in (False, True))
    assert [cell.id for cell in dry] == [cell.id for cell in wet]
