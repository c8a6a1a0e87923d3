"""What a denoiser is trained by: noise or velocity weighted by min-SNR, or the velocity of a flow.

Every draw is from torch's generator on the CPU, which the training loop seeds. B: pictures of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tercet.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tercet_image.t2i_parts import Conditions, Parts

LEAST_SNR = 1e-8  # a schedule may end in noise alone


def denoising_loss(parts: Parts, latents_Bchw: torch.Tensor, told: Conditions, gamma: float | None) -> torch.Tensor:
    """Noise the latents to a time drawn for each, and hold what the denoiser predicts against the truth.

    Raises:
        ModelError: the scheduler predicts something else than noise, velocity or the picture itself.
    """
    import torch

    noise_Bchw = torch.randn(latents_Bchw.shape).to(latents_Bchw)
    make = _flow if parts.is_flow else _diffusion
    noisy, times_B, target, weight_B = make(parts.noising, latents_Bchw, noise_Bchw, gamma)
    error = (parts.predict(noisy, times_B, told).float() - target.float()).square().flatten(1).mean(1)
    loss: torch.Tensor = (weight_B * error).mean()
    return loss


def _flow(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, gamma: float | None) -> tuple[Any, ...]:
    """Go a straight way from picture to noise, times by a logit-normal law (arXiv:2403.03206)."""
    import torch

    del gamma
    share_B = torch.sigmoid(torch.randn(len(latents))).to(latents)
    shift = float(scheduler.config.shift)
    sigma_B = shift * share_B / (1 + (shift - 1) * share_B)
    sigma = sigma_B.view(-1, *[1] * (latents.ndim - 1))
    times_B = sigma_B * scheduler.config.num_train_timesteps
    return (1 - sigma) * latents + sigma * noise, times_B, noise - latents, torch.ones_like(sigma_B)


def _diffusion(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, gamma: float | None) -> tuple[Any, ...]:
    """Noise by the scheduler, times spread evenly over the batch, weighted by min-SNR (arXiv:2303.09556)."""
    import torch

    size, steps = len(latents), scheduler.config.num_train_timesteps
    spread = (torch.randperm(size) + torch.rand(size)) / size
    times_B = (spread * steps).long().clamp(max=steps - 1).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, times_B)
    signal_B = scheduler.alphas_cumprod.to(latents)[times_B]
    snr_B = (signal_B / (1 - signal_B)).clamp(min=LEAST_SNR)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target, per_picture_B = noise, 1 / snr_B  # an error in the noise is so much of one in the picture itself
    elif kind == "v_prediction":
        target, per_picture_B = scheduler.get_velocity(latents, noise, times_B), 1 / (snr_B + 1)
    elif kind == "sample":
        target, per_picture_B = latents, torch.ones_like(snr_B)
    else:
        raise ModelError(f"scheduler.prediction_type {kind!r}: text-to-image trains epsilon, v_prediction and sample")
    weight_B = torch.ones_like(snr_B) if gamma is None else snr_B.clamp(max=gamma) * per_picture_B
    return noisy, times_B, target, weight_B
