"""One side of lm_trainer.py, in a process of its own; turns.py says how it is talked to."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from turns import Segments

from tercet.compat import prepare_torchaudio
from tercet.models import resolve
from tercet.recipe import Adapter, load_recipe
from tercet.store.shards import read_records
from tercet.train.adapters import attach
from tercet_text import lm_data
from tercet_text.causal_lm import CausalLm, context_of
from tercet_text.causal_lm_chat import ChatFormat
from tercet_text.causal_lm_decoding import base_of

RECIPE = Path(__file__).parents[2] / "recipes" / "support.yaml"
ADAPTER = Adapter(dropout=0.0)  # rank 16, alpha 32: the same on both sides
RATE, DECAY, WARMUP = 1e-3, 0.01, 0.1  # learning rate; share of the steps
IGNORED = -100


def prepared(task: CausalLm, model: Any, run: Path, split: str) -> lm_data.PackedData:
    """Turn a split into packed rows, as the task does."""
    train = task.recipe.sections.train
    records, context = read_records(run, "text", split), context_of(model.config)
    return lm_data.prepare(task._form, context, model.device, records, train, 1, lambda *_: None)


def ours(asked: argparse.Namespace, task: CausalLm, segments: Segments, cache: Path) -> Any:
    """Train by tercet's loop: packed rows with shared heads, LoRA layers fused, one row per step."""
    from tercet.train.loop import Callbacks, LoopSettings, train
    from tercet.train.order import Order

    settings = LoopSettings(asked.steps, RATE, seed=1, warmup_fraction=WARMUP, weight_decay=DECAY, micro_batch=1)
    torch.manual_seed(1)
    base: Any = task.load_base(resolve(asked.base, "chat").path)
    model = attach(base, ADAPTER, task.defaults.targets, "auto")
    started = time.perf_counter()
    data = prepared(task, base, asked.run, "train")
    took = time.perf_counter() - started
    order = Order(data, micro_batch=1, budget=None, accumulate=1, replay=0, seed=settings.seed)

    def on_step(done: int, *_: Any) -> None:
        numbers = [at for part in order.step(done - 1) for row in part.rows for at in data.packs[row].dialogs]
        segments.stepped(sum(len(data.dialogs[at].tokens.ids) for at in numbers))

    per_step = len(data.dialogs) / len(data.rows)
    segments.say(prepare_seconds=took, dialogs_per_step=per_step, dialogs=len(data.dialogs), data=data.describe())
    train(model, task, data, settings, cache, Callbacks(on_step))
    return model


def theirs(asked: argparse.Namespace, task: CausalLm, segments: Segments, cache: Path) -> Any:
    """Train as Hugging Face's guides do: our tokens and labels, a collator that pads, a Trainer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

    path = resolve(asked.base, "chat").path
    task._form = ChatFormat.of(path)  # as load_base does
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(1)
    lora = LoraConfig(
        r=ADAPTER.rank, lora_alpha=2 * ADAPTER.rank, lora_dropout=0.0, target_modules=task.defaults.targets
    )
    model = get_peft_model(model, lora)
    model.config.use_cache = False
    started = time.perf_counter()
    rows = []
    for dialog in prepared(task, model, asked.run, "train").dialogs:
        labels = [IGNORED] * len(dialog.tokens.ids)
        for at in dialog.tokens.counted:
            labels[at] = dialog.tokens.ids[at]
        rows.append({"input_ids": list(dialog.tokens.ids), "labels": labels})
    took = time.perf_counter() - started
    pad = DataCollatorForSeq2Seq(task._form.tokenizer, label_pad_token_id=IGNORED)
    tokens: list[int] = []

    def collate(batch: Sequence[dict[str, Any]]) -> Any:
        tokens.append(sum(len(row["input_ids"]) for row in batch))
        return pad([dict(row) for row in batch])

    class Report(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            segments.stepped(tokens[state.global_step - 1])

    arguments = TrainingArguments(
        output_dir=str(cache), per_device_train_batch_size=asked.batch, max_steps=asked.steps, learning_rate=RATE,
        warmup_steps=WARMUP, lr_scheduler_type="cosine", weight_decay=DECAY, use_cpu=True, seed=1,
        remove_unused_columns=False, label_names=["labels"], save_strategy="no", logging_strategy="no",
        report_to=[], dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Report()])
    segments.say(prepare_seconds=took)
    trainer.train()
    return model


def held_out_loss(task: CausalLm, model: Any, run: Path) -> float:
    """Give the mean loss over the labels of held-out dialogs."""
    data = prepared(task, base_of(model), run, "held_out")
    with torch.no_grad():
        losses = [float(task.loss(model, data.collate([at], []))) for at in range(len(data.rows))]
    units = [row.units for row in data.rows]
    return sum(loss * count for loss, count in zip(losses, units, strict=True)) / sum(units)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished `tercet run`")
    parser.add_argument("--base", default="auto")
    parser.add_argument("--steps", type=int, required=True, help="of the whole training")
    parser.add_argument("--segment", type=int, required=True, help="steps of one segment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=0, help="dialogs per step, of theirs")
    asked = parser.parse_args()
    prepare_torchaudio()
    torch.set_num_threads(asked.threads)
    segments = Segments(asked.segment)
    task = CausalLm(load_recipe(RECIPE).replaced(train={"task": "causal-lm"}))
    with tempfile.TemporaryDirectory() as cache:
        model = (ours if asked.side == "ours" else theirs)(asked, task, segments, Path(cache))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before anything is judged
    segments.say(memory_gib=memory, loss=held_out_loss(task, model.eval(), asked.run))


if __name__ == "__main__":
    main()
