"""The loss of Whisper's decoder: cross-entropy on the domain, staying close to the base's own answers elsewhere.

Shapes: N windows, L labels, M counted labels of a batch, K kept tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tercet_audio.labels import IGNORED

if TYPE_CHECKING:
    import torch

KEPT = 64  # of 51,864 tokens: the base's distribution has 99.9 % of its mass there


def domain_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return the mean cross-entropy over the labels of one batch of windows."""
    from torch.nn import functional

    labels = batch["labels"]
    return functional.cross_entropy(counted_logits(model, batch), labels[labels != IGNORED])


class Distillation:
    """Keeps a tuned model close to its base on general speech (learning without forgetting, arXiv:1606.09282).

    The base is the same model with its adapter switched off, asked once per window: its K likeliest tokens and the
    mass of all others are kept, which bounds the Kullback-Leibler divergence from below and fits memory.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """Return the mean divergence per label from the base's distribution to the tuned one's."""
        import torch

        if any(window not in self._known for window in batch["windows"]):
            self._ask_base(model, batch)
        logs_MK = torch.cat([self._known[window][0] for window in batch["windows"]])
        tokens_MK = torch.cat([self._known[window][1] for window in batch["windows"]])
        tuned_MK = counted_logits(model, batch).log_softmax(-1).gather(1, tokens_MK)
        base_M1, rest_M1 = with_rest(logs_MK), with_rest(tuned_MK)
        return (base_M1.exp() * (base_M1 - rest_M1)).sum(-1).mean()

    def _ask_base(self, model: Any, batch: dict[str, Any]) -> None:
        import torch

        was_training = model.training
        model.eval()
        with torch.no_grad(), model.disable_adapter():
            logs_MV = counted_logits(model, batch).log_softmax(-1)
        model.train(was_training)
        sizes = (batch["labels"] != IGNORED).sum(dim=1).tolist()
        for window, logs in zip(batch["windows"], torch.split(logs_MV, sizes), strict=True):
            kept = logs.topk(KEPT, dim=-1)
            self._known[window] = (kept.values, kept.indices)


def with_rest(logs_MK: torch.Tensor) -> torch.Tensor:
    """Append the logarithm of the mass that the K tokens leave."""
    import torch

    rest_M1 = (1 - logs_MK.exp().sum(-1, keepdim=True)).clamp_min(1e-8).log()
    return torch.cat([logs_MK, rest_M1], dim=-1)


def counted_logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Return logits [M, V] where labels count, from cached encoder outputs [N, 1500, D] or from features."""
    given = {"encoder_outputs": (batch["encoded"],)} if "encoded" in batch else {"input_features": batch["features"]}
    whisper = model.get_base_model()
    hidden_NLD = whisper.model(**given, decoder_input_ids=batch["inputs"], use_cache=False).last_hidden_state
    logits: torch.Tensor = whisper.proj_out(hidden_NLD[batch["labels"] != IGNORED])
    return logits
