"""The distillation loss on a tiny random Whisper: zero at the base, positive away from it, the base asked once."""

import pytest
import torch

from tercet.recipe import Adapter
from tercet.train.adapters import attach, trainable
from tercet_audio import distil
from tercet_audio.distil import Distillation, counted_logits, domain_loss, with_rest
from tercet_audio.labels import IGNORED
from tercet_audio.task import DECODER


@pytest.fixture
def model():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(1)
    config = WhisperConfig(
        vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, max_source_positions=10,
        max_target_positions=20, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    return attach(WhisperForConditionalGeneration(config).requires_grad_(False), Adapter(rank=2, dropout=0), DECODER)


@pytest.fixture
def batch():
    labels = torch.tensor([[IGNORED, 5, 9, 7], [IGNORED, 8, 3, IGNORED]])
    inputs = torch.tensor([[1, 2, 5, 9], [1, 2, 8, 0]])
    return {"encoded": torch.randn(2, 10, 16), "inputs": inputs, "labels": labels, "windows": [4, 9]}


def change(model):
    with torch.no_grad():
        for name, value in trainable(model).items():
            if "lora_B" in name:
                value.normal_(std=0.5, generator=torch.Generator().manual_seed(2))


def test_an_untrained_adapter_is_at_no_distance_and_a_changed_one_is_away(model, batch):
    assert Distillation()(model, batch).item() == pytest.approx(0, abs=1e-5)
    change(model)
    loss = Distillation()(model, batch)
    loss.backward()
    assert loss.item() > 0.001
    gradients = [value.grad for value in trainable(model).values()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in gradients)


def test_the_kept_tokens_bound_the_full_divergence_from_below_and_meet_it_when_all_are_kept(model, batch, monkeypatch):
    with torch.no_grad(), model.disable_adapter():
        base = counted_logits(model, batch).log_softmax(-1)
    change(model)
    tuned = counted_logits(model, batch).log_softmax(-1)
    full = (base.exp() * (base - tuned)).sum(-1).mean().item()
    assert 0 < Distillation()(model, batch).item() <= full + 1e-6
    monkeypatch.setattr(distil, "KEPT", 299)  # and the rest is one token
    assert Distillation()(model, batch).item() == pytest.approx(full, rel=1e-4)


def test_the_base_is_asked_once_per_window_and_its_answers_go_with_their_windows(model, batch, monkeypatch):
    loss = Distillation()
    asked = []
    ask = loss._ask_base

    def counting(*given):
        asked.append(1)
        ask(*given)

    monkeypatch.setattr(loss, "_ask_base", counting)
    loss(model, batch)
    change(model)
    turned = {
        "encoded": batch["encoded"].flip(0), "inputs": batch["inputs"].flip(0), "labels": batch["labels"].flip(0),
        "windows": [9, 4],
    }  # fmt: skip
    assert loss(model, turned).item() == pytest.approx(loss(model, batch).item(), rel=1e-4)
    assert len(asked) == 1


def test_the_rest_of_a_distribution_completes_it():
    logs = torch.tensor([[0.5, 0.2]]).log()
    assert with_rest(logs).exp().sum().item() == pytest.approx(1)


def test_the_domain_loss_counts_the_labels_alone(model, batch):
    first = domain_loss(model, batch)
    batch["inputs"][1, 3] = 77  # behind the last counted label
    assert domain_loss(model, batch).item() == pytest.approx(first.item(), rel=1e-6)
    batch["labels"][0, 1] = 6
    assert domain_loss(model, batch).item() != pytest.approx(first.item(), rel=1e-6)
