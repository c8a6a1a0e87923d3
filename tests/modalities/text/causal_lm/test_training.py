"""Training `causal-lm`: a packed row is the dialogs it holds, and it's said which are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.modalities.text.causal_lm.conftest import DIALOGS, MARKED, plain_model, prepared, record

from tercet.errors import NothingSurvived
from tercet.recipe import Adapter, Train
from tercet.train.adapters import attach
from tercet_text import causal_lm, lm_data
from tercet_text.causal_lm import CausalLm
from tercet_text.causal_lm_decoding import Written
from tercet_text.causal_lm_packing import Layout, batch
from tercet_text.general import judging


def logits_apart(folder: Path, data: lm_data.PackedData) -> dict[tuple[str, int], torch.Tensor]:
    """Compute each label's logits with each dialog alone, by transformers' own forward and attention."""
    model = plain_model(folder)
    found: dict[tuple[str, int], torch.Tensor] = {}
    for dialog in data.dialogs:
        logits = model(torch.tensor([dialog.tokens.ids])).logits[0]
        found |= {(dialog.record, place): logits[place - 1] for place in dialog.tokens.counted}
    return found


def logits_packed(model: Any, data: lm_data.PackedData, **changed: Any) -> dict[tuple[str, int], torch.Tensor]:
    """Compute each label's logits in its packed row."""
    found: dict[tuple[str, int], torch.Tensor] = {}
    for pack in data.packs:
        tensors = batch([Layout(pack, data.dialogs)], model.device) | changed
        hidden = model.base_model(
            tensors["ids_BT"], attention_mask=tensors["mask_B1TT"], position_ids=tensors["positions_BT"],
            use_cache=False, segments=tensors["segments"],
        ).last_hidden_state  # fmt: skip
        logits = model.lm_head(hidden[0][tensors["sources_N"]])
        names = [(data.dialogs[at].record, place) for at in pack.dialogs for place in data.dialogs[at].tokens.counted]
        found |= dict(zip(names, logits, strict=True))
    return found


def farthest(one: dict[Any, torch.Tensor], other: dict[Any, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_a_packed_row_gives_what_each_dialog_gives_alone(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    data = prepared(model, task._form, DIALOGS)
    assert len(data.rows) == 1  # all four together, three of them behind one head
    assert data.describe()["tokens"] < data.describe()["tokens_apart"]
    with torch.no_grad():
        apart = logits_apart(folder, data)
        assert farthest(apart, logits_packed(model, data)) < 1e-4
        assert farthest(apart, logits_packed(model, data, segments=None)) < 1e-4  # by the mask, as on a GPU
        # a plain causal mask lets dialogs see one another: the check above can fail
        assert farthest(apart, logits_packed(model, data, segments=None, mask_B1TT=None)) > 1e-2


def test_padding_changes_no_loss_and_a_loss_is_the_mean_over_labels(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    lm = [prepared(model, task._form, [one]) for one in DIALOGS[:2]]
    with torch.no_grad():
        losses = [float(task.loss(model, data.collate([0], []))) for data in lm]
        layouts = [Layout(data.packs[0], data.dialogs) for data in lm]
        both = float(task.loss(model, [batch(layouts, model.device)]))
        masked = float(task.loss(model, [batch(layouts, model.device) | {"segments": None}]))
    units = [data.rows[0].units for data in lm]
    expected = sum(loss * count for loss, count in zip(losses, units, strict=True)) / sum(units)
    assert both == pytest.approx(expected, rel=1e-5)
    assert masked == pytest.approx(expected, rel=1e-5)


def test_a_gradient_goes_through_an_adapter_and_equals_that_of_dialogs_alone(task: CausalLm, folder: Path) -> None:
    base: Any = task.load_base(folder)
    torch.manual_seed(1)
    model: Any = attach(base, Adapter(rank=2, dropout=0.0), task.defaults.targets)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert parameters
    for value in parameters.values():
        torch.nn.init.normal_(value, std=0.1)
    data = prepared(base, task._form, DIALOGS)
    task.loss(model, data.collate([0], [])).backward()
    packed = {name: value.grad.clone() for name, value in parameters.items()}
    model.zero_grad()
    alone = [prepared(base, task._form, [one]) for one in DIALOGS]
    total = data.rows[0].units
    for one in alone:
        (task.loss(model, one.collate([0], [])) * one.rows[0].units / total).backward()
    for name, value in parameters.items():
        torch.testing.assert_close(packed[name], value.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_phrases", [2, 20])
def test_no_dialog_is_trained_on_that_begins_in_a_watched_phrase(
    num_phrases: int, task: CausalLm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(f"{at}", f"Is {at} open?", "Yes.", "Or not?", "No.") for at in range(60)]
    for at, one in enumerate(records):
        one.lineage["parameters"]["asked"] = [f"Is <{at % num_phrases}> open?", "Or not?"]
    phrase_of = {one.id: one.lineage["parameters"]["asked"][0] for one in records}
    monkeypatch.setattr(causal_lm, "read_records", lambda *_: iter(records))
    task.recipe = task.recipe.replaced(train={"task": "causal-lm", "replay": 0, "early_stop": {"share": 0.2}})
    watched = {phrase_of[example.id.split("/")[0]] for example in task.validation(folder)}
    data = task.prepare(task.load_base(folder), folder, 1, lambda *_: None)
    trained = {phrase_of[dialog.record] for dialog in data.dialogs}
    assert len(watched) >= 1  # of two phrases a share of 0.2 may hold none: one is watched all the same
    assert not watched & trained
    assert len(watched | trained) == num_phrases


def test_replay_is_what_the_base_says_and_counts_by_its_labels(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    answered = [
        ("What is the opposite of hot?", Written("Cold, of course.")),
        ("Which day follows Monday?", Written("Tuesday.")),
    ]
    data = lm_data.prepare(
        task._form, 512, model.device, DIALOGS, Train(task="causal-lm"), 1, lambda *_: None, answered
    )
    (held,) = [row.records for row in data.replay]
    assert set(held) == {f"general/{text}" for text, _ in answered}
    own, both = (data.collate(*numbers) for numbers in (([0], []), ([0], [0])))
    assert task._form.tokenizer.decode(both[1]["targets_N"]).count("<|im_end|>") == 2
    with torch.no_grad():
        alone = [float(task.loss(model, [some])) for some in both]
        assert float(task.loss(model, own)) == pytest.approx(alone[0])
        units = (data.rows[0].units, data.replay[0].units)
        expected = (alone[0] * units[0] + alone[1] * units[1]) / sum(units)
        assert float(task.loss(model, both)) == pytest.approx(expected)


def test_replay_of_an_answer_that_was_cut_teaches_its_words_and_no_end(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    answered = [
        ("Who was he?", Written("He was a painter, and", is_whole=False)),
        ("What is it?", Written("A star \ufffd", is_whole=False)),
        ("Say it.", Written("\ufffd", is_whole=False)),  # nothing is left to learn
    ]
    for template in ("", MARKED):
        if template:
            task._form.tokenizer.chat_template = template
        data = lm_data.prepare(
            task._form, 512, model.device, DIALOGS, Train(task="causal-lm"), 1, lambda *_: None, answered
        )
        assert [
            task._form.tokenizer.decode([one.tokens.ids[at] for at in one.tokens.counted]) for one in data.general
        ] == ["He was a painter, and", "A star"]


def test_the_base_answers_replay_whatever_the_adapter(task: CausalLm, folder: Path) -> None:
    model: Any = attach(task.load_base(folder), Adapter(rank=2, dropout=0.0), task.defaults.targets).eval()
    first = task._base_answers(model, lambda *_: None)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_()
    assert task._base_answers(model, lambda *_: None) == first
    judged = {one.text for one in judging()}
    assert first
    assert not judged & {question for question, _ in first}


def test_dialogs_over_the_context_are_left_out_and_counted(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    long = record("long", "word " * 600, "Yes.")
    data = prepared(model, task._form, [*DIALOGS, long])
    assert data.describe()["left_out"] == {"over_context": 1}
    assert data.describe()["dialogs"] == 4
    with pytest.raises(NothingSurvived, match=r"none of 1 dialogs can be trained on \(1 over_context\); .* 512 tokens"):
        prepared(model, task._form, [long])


def test_dialogs_that_the_template_does_not_fit_are_named_with_its_fault(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    task._form.tokenizer.chat_template = "{{ raise_exception('no more than two') if messages | length > 3 }}" + MARKED
    data = prepared(model, task._form, DIALOGS)
    assert data.describe()["left_out"] == {"unfit_for_template: no more than two": 1}
    long = record("long", "word " * 600, "Yes.")
    more = [record(name, "Hi.", "Yes?", "No.", "Well.") for name in ("six", "seven")]
    with pytest.raises(
        NothingSurvived, match=r"2 unfit_for_template: no more .* 1 over_context\); the base's chat temp"
    ):
        prepared(model, task._form, [*more, long])


def test_an_empty_data_set_is_an_error(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    with pytest.raises(NothingSurvived, match="no accepted dialog to train on"):
        prepared(model, task._form, [])


def test_every_dialog_is_in_exactly_one_row_within_its_size(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    many = [record(f"{at}", "word " * (at % 40 + 1), "fine " * (at % 23 + 1)) for at in range(120)]
    data = lm_data.prepare(task._form, 512, model.device, many, Train(task="causal-lm", budget=200), 1, lambda *_: None)
    assert sorted(name for row in data.rows for name in row.records) == sorted(one.id for one in many)
    assert all(row.size <= 200 for row in data.rows)
    for row, packed in zip(data.rows, data.packs, strict=True):
        layout = Layout(packed, data.dialogs)
        assert (len(layout.ids), len(layout.targets)) == (row.size, row.units)
    assert sum(row.size for row in data.rows) > 0.9 * 200 * len(data.rows)


def test_activations_may_be_computed_twice(task: CausalLm, folder: Path) -> None:
    base: Any = task.load_base(folder)
    torch.manual_seed(1)
    model: Any = attach(base, Adapter(rank=2, dropout=0.0), task.defaults.targets).train()
    data = prepared(base, task._form, DIALOGS)
    gradients = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            base.activation_checkpointing_enable()
        model.zero_grad()
        task.loss(model, data.collate([0], [])).backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


def test_a_template_that_rewrites_past_turns_gives_a_packed_piece_per_answer(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    task._form.tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    data = prepared(model, task._form, DIALOGS)
    assert data.describe()["dialogs"] == len(DIALOGS)
    assert [dialog.record for dialog in data.dialogs] == ["one", "one", "two", "three", "four"]  # one answers twice
    with torch.no_grad():
        assert farthest(logits_apart(folder, data), logits_packed(model, data)) < 1e-4
