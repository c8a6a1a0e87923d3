"""The loss of `text-to-image`: how noise is drawn and weighed, which captions it hears, what it trains."""

from __future__ import annotations

from typing import Any

import pytest
from tests.modalities.image.conftest import catch_question, quietly
from tests.modalities.image.text_to_image.conftest import adapted, with_scheduler

from tercet.train.adapters import trainable
from tercet_image.t2i_parts import parts_of
from tercet_image.text_to_image import TextToImage

DENOISER_ALONE = r"unet\..*(to_q|to_k|to_v|to_out\.0)"


def test_the_sampler_that_paints_changes_nothing_of_the_training(task, model, run_dir):
    import torch
    from diffusers import EulerDiscreteScheduler

    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1], [])
    parts = parts_of(model)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(float(task.loss(model, batch)))
        parts.pipeline.scheduler = EulerDiscreteScheduler.from_config(parts.pipeline.scheduler.config)
        vars(parts).pop("noising")
    assert losses[0] == losses[1]


def test_the_adapter_sits_where_diffusers_looks_for_it(task, root):
    names = list(trainable(adapted(task, root)))
    assert {name.removeprefix("base_model.model.").partition(".")[0] for name in names} == {"unet", "text_encoder"}
    assert not [name for name in names if "vae" in name]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_each_prediction_as_an_error_in_the_picture(task, model, run_dir, kind, monkeypatch):
    import torch

    with_scheduler(model, prediction_type=kind)
    parts = parts_of(model)
    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1, 2], [])
    seen = catch_question(monkeypatch, parts)
    torch.manual_seed(5)
    loss = float(task.loss(model, batch))
    signal = parts.pipeline.scheduler.alphas_cumprod[seen["times"]].double().view(-1, 1, 1, 1)
    x = batch["latents"].double()
    noise = (seen["noisy"].double() - signal.sqrt() * x) / (1 - signal).sqrt()
    # what a prediction of zero says of the picture itself
    said = {
        "epsilon": seen["noisy"].double() / signal.sqrt(),
        "v_prediction": signal.sqrt() * seen["noisy"].double(),
        "sample": torch.zeros_like(x),
    }[kind]
    weight = (signal / (1 - signal)).clamp(max=5.0)
    assert loss == pytest.approx(float((weight * (said - x) ** 2).mean()), rel=1e-3)
    assert noise.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_schedule_that_ends_in_noise_alone_gives_a_finite_loss(task, model, run_dir, kind, monkeypatch):
    import torch

    with_scheduler(model, prediction_type=kind, rescale_betas_zero_snr=True)
    data = task.prepare(model, run_dir, 3, quietly)
    monkeypatch.setattr(torch, "rand", lambda *size: torch.full(size, 1 - 1e-7))  # the very last time
    assert parts_of(model).noising.alphas_cumprod[-1] == 0
    assert torch.isfinite(task.loss(model, data.collate([0, 1], [])))


def test_without_min_snr_every_time_weighs_the_same(recipe, root, run_dir, monkeypatch):
    import torch

    image = recipe.data["modalities"]["image"]
    task = TextToImage(recipe.replaced(modalities={"image": {**image, "training": {"min_snr_gamma": None}}}))
    model = task.load_base(root / "base")
    batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1, 2], [])
    noise: list[torch.Tensor] = []
    draw = torch.randn

    def kept(*size: Any, **more: Any) -> Any:
        noise.append(draw(*size, **more))
        return noise[-1]

    monkeypatch.setattr(torch, "randn", kept)
    monkeypatch.setattr(parts_of(model), "predict", lambda noisy, times, told: torch.zeros_like(noisy))
    assert float(task.loss(model, batch)) == pytest.approx(float(noise[0].square().mean()), rel=1e-5)


def test_times_are_spread_over_the_whole_schedule_whatever_the_place_in_the_batch(task, model, run_dir, monkeypatch):
    import torch

    parts = parts_of(model)
    batch = task.prepare(model, run_dir, 3, quietly).collate(list(range(8)), [])
    drawn: list[torch.Tensor] = []

    def predict(noisy: Any, times: Any, told: Any) -> Any:
        drawn.append(times)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(parts, "predict", predict)
    for seed in range(40):
        torch.manual_seed(seed)
        task.loss(model, batch)
    times = torch.stack(drawn).float()
    assert (times.sort(1).values.diff(dim=1) < 260).all() and times.min() < 20 and times.max() > 980
    assert (times.mean(0) - 500).abs().max() < 150  # no place always takes the noisiest


def test_a_step_depends_on_the_seed_alone(task, model, run_dir):
    import torch

    data = task.prepare(model, run_dir, 3, quietly)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(task.loss(model, data.collate([0, 1], [0]))))
    assert losses[0] == losses[1] != losses[2]


def test_captions_are_encoded_once_where_no_text_encoder_is_trained(task, root, run_dir):
    import torch

    model = adapted(task, root, DENOISER_ALONE)
    data = task.prepare(model, run_dir, 3, quietly)
    assert data.describe()["captions_cached"]
    batch = data.collate([0, 1], [0])
    losses = []
    for one in (batch, {**batch, "untold": None}):  # kept, and encoded anew
        torch.manual_seed(0)
        losses.append(task.loss(model, one).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_trained_text_encoder_reads_each_step(task, root, run_dir):
    model = adapted(task, root)
    data = task.prepare(model, run_dir, 3, quietly)
    assert not data.describe()["captions_cached"]
    task.loss(model, data.collate([0, 1], [])).backward()
    assert all(value.grad is not None for value in trainable(model).values())


def test_the_loss_hears_the_caption(task, model, run_dir):
    import torch

    data = task.prepare(model, run_dir, 3, quietly)
    batch = data.collate([0, 1, 2, 3], [])
    torch.manual_seed(0)
    loss = float(task.loss(model, batch))
    batch["told"] = batch["told"][::-1]
    torch.manual_seed(0)
    assert float(task.loss(model, batch)) != loss


def test_all_captions_dropped_is_the_loss_without_any(recipe, root, run_dir):
    import torch

    image = recipe.data["modalities"]["image"]
    never = {**image, "training": {"caption_dropout": 0.999999}}
    task = TextToImage(recipe.replaced(modalities={"image": never}))
    model = task.load_base(root / "base")
    data = task.prepare(model, run_dir, 3, quietly)
    batch = data.collate([0, 1], [])
    untold = {**batch, "told": [data.untold] * 2}
    losses = []
    for one in (batch, untold):
        torch.manual_seed(0)
        losses.append(float(task.loss(model, one)))
    assert losses[0] == losses[1]


def test_fused_layers_give_the_loss_of_peft(task, root, run_dir):
    import torch

    found = []
    for kernels in ("peft", "fused"):
        model = adapted(task, root, kernels=kernels)
        batch = task.prepare(model, run_dir, 3, quietly).collate([0, 1], [0])
        torch.manual_seed(0)
        loss = task.loss(model, batch)
        loss.backward()
        found.append(
            [loss.item(), *(value.grad.norm().item() for value in trainable(model).values() if value.grad is not None)]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-3)
