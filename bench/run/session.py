"""What training and evaluation of a cell share: its model, rewards and prompts, loaded, and its directory."""

from __future__ import annotations

import torch

from bench.base.files import append_rows, cut_rows, write_atomically
from bench.base.media import files
from bench.data import prompts as prompt_sets
from bench.engine.reward import Reward
from bench.engine.world import World
from bench.experiment.cell_digests import check_unchanged
from bench.experiment.choices import load_reward
from bench.experiment.settings import CellConfig
from bench.run import features
from bench.run.evaluate import Evaluation, Improve, evaluate
from bench.run.load import load_chain, schedule_texts
from bench.run.parked import Parked
from bench.run.spent import Counters
from bench.run.store import CellDir


class Session:
    """One cell, loaded: model, rewards, prompts, and what is written about them."""

    def __init__(self, cell: CellDir, config: CellConfig, world: World, device: torch.device) -> None:
        self.cell, self.config, self.world, self.device = cell, config, world, device
        check_unchanged(config.digests, config.prompts, config.eval_rewards, config.dcot)
        torch.manual_seed(0 if config.training is None else config.training.seed)  # the LoRA's initial values
        self.chain = load_chain(config.model.config, device)
        self.rewards, self.parked = dict[str, Reward](), Parked(device)
        for choice in config.eval_rewards:
            reward = self.rewards[choice.name] = load_reward(choice, device)
            if config.trains and config.training is not None and choice.name != config.training.reward.name:
                self.parked.park(reward)
        self.prompts = prompt_sets.load(config.prompts)
        if config.dcot is not None:
            schedule_texts(self.chain, (*self.prompts.train, *self.prompts.eval), config.dcot)
        self.counters = Counters()
        self.improve: Improve | None = None  # chooses the noise that held-out pictures start from

    def held_out(self) -> Evaluation:
        """The held-out prompts' pictures and scores, as the model is now. Writes nothing."""
        settings = self.config.eval
        last = None if settings.prompts is None else settings.skip + settings.prompts
        with self.parked.here():
            return evaluate(
                self.chain,
                self.rewards,
                self.prompts.eval[settings.skip : last],
                seed=settings.seed,
                batch=settings.batch,
                images_per_prompt=settings.images_per_prompt,
                keep=settings.samples,
                improve=self.improve,
                world=self.world,
            )

    def evaluate(self) -> None:
        """Score the held-out prompts, keep the first pictures and the features of all, then the scores."""
        found = self.held_out()
        step = self.counters.step
        if self.world.is_main:
            folder = self.cell.path / "samples" / f"{step:06d}"
            for n, image in enumerate(found.images):
                for suffix, data in files(image).items():
                    write_atomically(folder / f"{n:02d}{suffix}", data)
            features.write(self.cell.features, step, found.features)
            append_rows(
                self.cell.evaluations, ({"step": step, "image": r.pop("index"), **r} for r in found.rows)
            )
        self.counters.evaluated, self.counters.due = step, False

    def cut_logs(self) -> None:
        """Forget what was logged after the checkpoint."""
        if self.world.is_main:
            cut_rows(self.cell.metrics, self.counters.step)
            cut_rows(self.cell.evaluations, self.counters.evaluated)
            features.cut(self.cell.features, self.counters.evaluated)
