"""One side of the comparison: TRL's trainers, run in its own environment by `scripts.peers.compare`."""

from __future__ import annotations

import itertools
from typing import Any

import accelerate
import diffusers
import torch
import trl  # type: ignore[import-not-found]

from scripts.peers import task


def trainer(method: str, steps: int, batch: int, lr: float) -> Any:
    """TRL's trainer with the task's settings."""
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    accelerate.PartialState(cpu=True)  # its constructor logs before it makes one
    pipeline = trl.DefaultDDPOStableDiffusionPipeline(str(task.MODEL), use_lora=True)
    prompts = itertools.cycle(task.PROMPTS)
    settings: dict[str, Any] = {
        "mixed_precision": "no",
        "allow_tf32": False,
        "log_with": None,
        "num_epochs": 1,
        "save_freq": 10**9,
        "sample_num_steps": steps,
        "sample_eta": 1.0 if method == "ddpo" else 0.0,
        "sample_guidance_scale": task.GUIDANCE,
        "train_batch_size": batch,
        "train_learning_rate": lr,
        "train_max_grad_norm": 1e9,
        "accelerator_kwargs": {"cpu": True},
    }
    rewarded = lambda images, prompts, _: (task.redness(images, prompts), {})  # noqa: E731
    prompted = lambda: (next(prompts), {})  # noqa: E731
    if method == "ddpo":
        config = trl.DDPOConfig(sample_batch_size=batch, sample_num_batches_per_epoch=1, **settings)
        made = trl.DDPOTrainer(config, rewarded, prompted, pipeline)
    else:
        cut = steps - task.TRUNCATION
        config = trl.AlignPropConfig(
            truncated_backprop_rand=False, truncated_backprop_timestep=cut, **settings
        )
        made = trl.AlignPropTrainer(config, rewarded, prompted, pipeline)
    made.accelerator.log = lambda *_, **__: None
    made.sd_pipeline.set_progress_bar_config(disable=True)
    return made


def recorded(made: Any, method: str) -> dict[str, Any]:
    """Run one step from a LoRA that is not zero; its prompts, noise, advantages, parameters and gradient."""
    unet, found = made.sd_pipeline.unet, dict[str, Any](prompts=[])
    named = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(1)
    for p in named.values():
        p.data = 0.05 * torch.randn(p.shape, generator=generator)
    found["parameters"] = {name: p.detach().clone() for name, p in named.items()}
    pipeline, prepare = made.sd_pipeline.sd_pipeline, made.sd_pipeline.sd_pipeline.prepare_latents

    def prepared(*args: Any, **kwargs: Any) -> Any:
        found["x_T"] = prepare(*args, **kwargs)
        return found["x_T"]

    pipeline.prepare_latents = prepared
    if method == "ddpo":
        made._train_batched_samples = _remembering(made._train_batched_samples, found)
    take_step = made.optimizer.step

    def stepped(*args: Any, **kwargs: Any) -> Any:
        if made.accelerator.sync_gradients:
            found["gradient"] = {name: p.grad.clone() for name, p in named.items()}
        return take_step(*args, **kwargs)

    made.optimizer.step = stepped
    asked = made.prompt_fn
    made.prompt_fn = lambda: (found["prompts"].append((drawn := asked())[0]), drawn)[1]
    made.step(0, 0)
    return found


def _remembering(train: Any, found: dict[str, Any]) -> Any:
    """TRL shuffles a batch in time and among samples; this puts it into order."""

    def remembering(inner: int, epoch: int, step: int, batches: list[dict[str, Any]]) -> int:
        (batch,) = batches
        order = batch["timesteps"].argsort(dim=1, descending=True)
        rows = torch.arange(len(order))[:, None]
        latents = batch["latents"][rows, order]
        found["states"] = torch.cat([latents, batch["next_latents"][rows, order][:, -1:]], dim=1)
        found["advantages"], found["embeds"] = batch["advantages"], batch["prompt_embeds"]
        return train(inner, epoch, step, batches)

    return remembering


def main() -> None:
    """As `task.arguments` says."""
    asked = task.arguments()
    made = trainer(asked.method, asked.steps, asked.batch, task.LR)
    if asked.record is not None:
        torch.save(recorded(made, asked.method), asked.record)
        return
    counter = itertools.count()
    task.timed(lambda: made.step(next(counter), 0), asked.count).write(asked.out)


if __name__ == "__main__":
    main()
