from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.data.prompts.emoji import CONCEPTS
from bench.data.prompts.emoji_motion import FRAMES
from bench.models.embedded import SD_DIR
from scripts.embedded.compose import Library
from scripts.embedded.data import Picture
from scripts.embedded.export import make_video_scheduler
from scripts.embedded.loop import Training
from scripts.embedded.unet import token_ids
from scripts.embedded.video import HEAD, DirectionTest, VideoModel, grow_unet, make_optimizer, velocity_loss


def image_unet(channels: tuple[int, ...] = (2 * HEAD, 2 * HEAD)) -> UNet2DConditionModel:
    torch.manual_seed(0)
    settings = {
        "sample_size": 4,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * len(channels),
        "up_block_types": ["CrossAttnUpBlock2D"] * len(channels),
        "block_out_channels": list(channels),
        "layers_per_block": 1,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings).eval()  # type: ignore[arg-type]


def texts() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=5,
        )
    )


@pytest.mark.slow
def test_but_for_the_frames_places_a_fresh_video_model_gives_what_the_image_model_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scripts.embedded.video.ORDER", 0.0)
    image = image_unet()
    video = grow_unet(image)
    x, states, t = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 5, 8), torch.tensor([10, 500])
    with torch.no_grad():
        together = video(x, t, states).sample
        alone = torch.stack([image(x[:, :, f], t, states).sample for f in range(3)], dim=2)
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_fresh_video_model_knows_all_frames_but_the_middle_ones_from_one_another() -> None:
    video, one = grow_unet(image_unet()), torch.randn(1, 4, 1, 4, 4)
    with torch.no_grad():
        frames = (
            video(one.expand(-1, -1, FRAMES, -1, -1), 999, torch.randn(1, 5, 8)).sample[0].transpose(0, 1)
        )
    known = torch.cat([frames[: FRAMES // 2], frames[FRAMES // 2 + 1 :]])
    apart = (known[:, None] - known[None]).pow(2).flatten(2).mean(dim=2).sqrt()
    assert apart[~torch.eye(len(known), dtype=torch.bool)].min() > 0.01 * frames.std()


@pytest.mark.slow
def test_every_layer_over_time_learns_and_frames_come_to_depend_on_one_another() -> None:
    model = VideoModel(grow_unet(image_unet()), texts())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, alphas = make_optimizer(model), make_video_scheduler().alphas_cumprod
    rng = torch.Generator().manual_seed(0)
    latents, ids = torch.randn(4, 4, 3, 4, 4, generator=rng), torch.randint(0, 20, (4, 5), generator=rng)
    for _ in range(3):
        optimizer.zero_grad()
        velocity_loss(model, latents, ids, alphas, rng).backward()
        optimizer.step()
    stuck = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert stuck == []
    x = latents.clone()
    x[:, :, 0] += 1
    with torch.no_grad():
        one, two = (model(v, torch.full((4,), 500), ids)[:, :, 2] for v in (latents, x))
    assert (one - two).abs().max() > 1e-4


def test_the_frozen_text_encoder_is_not_trained() -> None:
    model = VideoModel(grow_unet(image_unet()), texts())
    assert all(name.startswith("unet.") for name, _ in model.named_parameters())


def test_parts_that_a_video_unet_lacks_are_an_error() -> None:
    image = image_unet()
    image.register_parameter("extra", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises((ValueError, KeyError), match="extra"):
        grow_unet(image)


def test_shared_parts_are_linked_beside_their_source_and_copied_elsewhere(tmp_path: Path) -> None:
    from scripts.embedded.assemble import _share

    source = tmp_path / "weights" / "sd" / "vae"
    source.mkdir(parents=True)
    (source / "config.json").write_text("{}")
    beside, elsewhere = tmp_path / "weights" / "video", tmp_path / "other" / "video"
    for target in (beside, elsewhere):
        target.mkdir(parents=True)
        for _ in range(2):
            _share(source.parent, target, "vae")
        assert (target / "vae" / "config.json").read_text() == "{}"
    assert (beside / "vae").readlink() == Path("../sd/vae")
    assert not (elsewhere / "vae").is_symlink()


class Knowing(torch.nn.Module):
    """Predicts the true velocity of noisy versions of one latent; off by `error`."""

    def __init__(self, latents: torch.Tensor, alphas: torch.Tensor, error: float) -> None:
        super().__init__()
        self.latents, self.alphas, self.error = latents, alphas, error

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        a = self.alphas[timestep].view(-1, 1, 1, 1, 1)
        noise = (noisy - a.sqrt() * self.latents) / (1 - a).sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * self.latents + self.error


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_velocity_loss_is_the_squared_error_of_the_velocity(error: float) -> None:
    rng, alphas = torch.Generator().manual_seed(0), make_video_scheduler().alphas_cumprod
    latents = torch.randn(4, 2, 3, 4, 4, generator=rng)
    loss = velocity_loss(Knowing(latents, alphas, error), latents, torch.zeros(4, 5), alphas, rng)
    assert float(loss) == pytest.approx(error**2, abs=1e-4)


def test_noisy_timesteps_are_drawn_more_often() -> None:
    seen: list[torch.Tensor] = []

    def note(noisy: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        seen.append(timestep)
        return noisy

    rng, count = torch.Generator().manual_seed(0), 20_000
    latents = torch.zeros(count, 1, 1, 1, 1)
    velocity_loss(note, latents, latents, make_video_scheduler().alphas_cumprod, rng)  # type: ignore[arg-type]
    drawn = seen[0].double() / 1000
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(float(drawn.mean()) - 2 / 3) < 4 * (1 / 18 / count) ** 0.5  # density 2t: sd sqrt(1/18)


class Reading(torch.nn.Module):
    """Predicts velocities that are off by 0 for captions with "left", "up", "growing", else by 0.5."""

    def __init__(self, inner: Knowing, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.inner, self.tokenizer = inner, tokenizer
        self.bias = torch.nn.Parameter(torch.zeros(8))

    def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(ids)
        wrong = torch.tensor([not any(w in text for w in ("left", "up ", "growing")) for text in texts])
        return self.inner(noisy, timestep, ids) + 0.5 * wrong.view(-1, 1, 1, 1, 1)


@pytest.mark.slow
def test_the_direction_test_is_the_rise_of_the_error() -> None:
    rows = [Picture("0", name, (), "noto") for name in CONCEPTS]
    library = Library(torch.rand(len(rows), 4, 64, 64, generator=torch.Generator().manual_seed(0)), rows)
    tokenizer = CLIPTokenizer.from_pretrained(SD_DIR / "tokenizer", local_files_only=True)
    vae = AutoencoderKL.from_pretrained(SD_DIR / "vae", torch_dtype=torch.float32).eval()
    measure = DirectionTest(vae, library, tokenizer)
    assert [len(i) for i in measure._ids] == [32, 32] == [len(token_ids(tokenizer, ["a"] * 32))] * 2
    model = Reading(Knowing(measure._latents, make_video_scheduler().alphas_cumprod, 0.0), tokenizer)
    right = sum("left" in t or "up " in t or "growing" in t for t in tokenizer.batch_decode(measure._ids[0]))
    line = measure(Training(model, make_optimizer(model), seed=0))
    assert f"error {0.25 * (32 - right) / 32:.4f}" in line  # captions are right where they say "left" ...
    assert f"opposite direction {0.25 * (2 * right - 32) / 32:+.4f} ± " in line
