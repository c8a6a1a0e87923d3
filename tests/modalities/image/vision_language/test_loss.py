"""The loss of `vision-language`: over answers alone, of the picture seen, through the language model's adapter."""

from __future__ import annotations

import re

import pytest
from tests.modalities.image.conftest import quietly

from tercet.recipe import Adapter
from tercet.train.adapters import attach, trainable
from tercet.train.task import Validates
from tercet_image.vision_language import LANGUAGE, VisionLanguage
from tercet_image.vl_data import DESCRIBE, described
from tercet_image.vl_reader import open_picture


def test_pixels_reach_the_loss(task, model, data):
    batch = data.collate([0, 1, 2, 3], [])
    loss = float(task.loss(model, batch))
    pixels = batch["inputs"]["pixel_values"]
    batch["inputs"]["pixel_values"] = pixels.flip(0)  # each question about another one's picture
    assert abs(float(task.loss(model, batch)) - loss) > 1e-4
    batch["inputs"]["pixel_values"] = pixels
    assert float(task.loss(model, batch)) == loss


def test_the_loss_is_that_of_transformers_over_answer_and_end_alone(task, model, data):
    batch = data.collate([0, 5, 7], [1])
    rows = [data.own[at] for at in (0, 5, 7)] + [data.general[1]]
    labels = batch["inputs"]["input_ids"].clone().fill_(-100)
    for label, row in zip(labels, rows, strict=True):
        label[row.size - len(row.answer) : row.size] = label.new_tensor(row.answer)
        assert row.answer[-1] == 2 and 2 not in row.answer[:-1]
    expected = model(**batch["inputs"], labels=labels).loss
    assert float(task.loss(model, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_a_row_stands_alone_whatever_is_beside_it(task, model, data):
    short, long = sorted(range(len(data.rows)), key=lambda at: data.rows[at].size)[:: len(data.rows) - 1]
    assert data.rows[short].size < data.rows[long].size
    losses = [float(task.loss(model, data.collate([at], []))) for at in (short, long)]
    both = float(task.loss(model, data.collate([short, long], [])))
    units = [data.rows[at].units for at in (short, long)]
    assert both == pytest.approx(sum(x * n for x, n in zip(losses, units, strict=True)) / sum(units), rel=1e-4)
    assert data.collate([short], [])["inputs"]["input_ids"].shape[1] == data.rows[short].size


def test_what_is_trained_is_what_is_decoded(task, model, data, root):
    reader = data.reader
    asked = data.own[0]
    picture = open_picture(asked.picture, "")
    prompt = reader.ask([picture], [asked.question])["input_ids"][0].tolist()
    whole = data.collate([0], [])["inputs"]["input_ids"][0].tolist()
    assert whole == [*prompt, *asked.answer]
    assert prompt.count(3) == 16


def test_the_adapter_leaves_the_vision_tower_alone(task, model):
    names = list(trainable(attach(model, Adapter(rank=2), task.defaults.targets)))
    assert not [name for name in names if "vision" in name]
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "projector.linear_1"):
        assert any(part in name for name in names), part


def test_fused_layers_give_the_loss_of_peft(task, root, run_dir):
    import torch

    losses = []
    for kernels in ("peft", "fused"):
        model = task.load_base(root / "base")
        torch.manual_seed(0)
        wrapped = attach(model, Adapter(rank=2, dropout=0), task.defaults.targets, kernels)
        with torch.no_grad():
            for value in trainable(wrapped).values():
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        batch = task.prepare(wrapped, run_dir, 3, quietly).collate([0, 1], [0])
        loss = task.loss(wrapped, batch)
        loss.backward()
        losses.append(
            [
                loss.item(),
                *(value.grad.norm().item() for value in trainable(wrapped).values() if value.grad is not None),
            ]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_picture_without_questions_gives_its_caption():
    payload = {"image": b"x", "caption": "A star.", "questions": []}
    assert described("1", payload, describe=False).turns == ((DESCRIBE, "A star."),)
    asked = {**payload, "questions": [{"question": "What?", "answer": "the star", "attribute": "shape"}]}
    assert described("1", asked, describe=False).turns == (("What?", "the star"),)
    assert described("1", asked, describe=True).turns == (("What?", "the star"), (DESCRIBE, "A star."))


@pytest.mark.parametrize(
    ("name", "is_adapted"),
    [
        ("model.language_model.layers.0.self_attn.q_proj", True),
        ("model.language_model.layers.0.mlp.gate_proj", True),
        ("model.multi_modal_projector.linear_1", True),
        ("model.visual.blocks.0.mlp.gate_proj", False),
        ("model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", False),
        ("model.vision_model.encoder.layers.0.self_attn.q_proj", False),
    ],
)
def test_no_kind_of_vision_tower_is_adapted(name, is_adapted):
    assert bool(re.fullmatch(LANGUAGE, name)) is is_adapted


def test_what_is_watched_is_not_trained_on(recipe, model, run_dir, root):
    watching = recipe.replaced(train={**recipe.data["train"], "early_stop": {"share": 0.3}})
    task = VisionLanguage(watching)
    assert isinstance(task, Validates)
    task.load_base(root / "base")
    watched = {one.source for one in task.validation(run_dir)}
    trained = {one.record for one in task.prepare(model, run_dir, 3, quietly).own}
    assert watched and trained and not watched & trained
