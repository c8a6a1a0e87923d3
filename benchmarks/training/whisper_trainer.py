"""Whisper's fine-tuning in tercet against transformers' Seq2SeqTrainer with PEFT, as its guides write it.

    python benchmarks/training/whisper_trainer.py --pairs 6 --steps 20 --clips 240

Both train Whisper tiny.en in fp32 on the same clips of 2 to 6 s, without augmentation, with the same adapter, optimiser
and schedule, and as many clips per optimiser step on average, so that equal steps are equal passes. Each side is a
process of its own. They take turns in segments of `--steps` steps, in ABBA order, after one segment to warm up. A rate
is seconds of speech (without padding and gaps) per second, the side's preparation (features; ours also packs every clip
three times in other company, and runs the frozen encoder over that once) spread over its steps. The result is the ratio
within each pair, ours / theirs, with the bootstrap's 95 % of its median. Then both write down clips of the sentences in
held_out.txt, whose intervals resample sentences. Writes benchmarks/results/training-whisper.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import Side, compared, take_turns

from tercet.compat import prepare_torchaudio
from tercet.evaluate.statistics import Counts, compare
from tercet.machine import describe_machine, say_machine
from tercet.sources import read_phrases, read_terms

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "recipes" / "pharmacy"
RESULTS = REPOSITORY / "benchmarks" / "results" / "training-whisper.json"
VOICES = (("hibari", "heart"), ("pico", "en-US"), ("hibari", "heart-gb"), ("pico", "en-GB"))
SHORTEST, LONGEST = 2.0, 6.0  # seconds
SIDES, HELD_OUT = (Path(__file__).with_name(name) for name in ("whisper_sides.py", "held_out.txt"))
TARGET, MARGIN = 2.5, 1.0  # audio-seconds per second, ours / theirs; points of WER


def make_clips(folder: Path, num_train: int, num_held_out: int) -> None:
    """Let our engines say the sample recipe's sentences, and those that judge; the terms in them are the same."""
    import soundfile

    from tercet_audio.clip import finish
    from tercet_audio.engines import ready_engine

    draw = random.Random(1)
    terms = [term.text for term in read_terms(SAMPLE / "terms.csv")]
    wanted = {"held_out": (HELD_OUT, num_held_out), "train": (SAMPLE / "phrases.txt", num_train)}
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for split, (source, count) in wanted.items():
        some = read_phrases(source)
        draw.shuffle(some)
        made = tried = 0
        while made < count:
            engine, voice = VOICES[(tried + tried // len(some)) % len(VOICES)]  # a sentence's next clip, another voice
            phrase, term = some[tried % len(some)], draw.choice(terms)
            text = phrase.replace("{term}", term)
            text = text[0].upper() + text[1:]
            tried += 1
            speech = ready_engine(engine).speak(text, voice, draw.uniform(0.9, 1.1), tried)
            clip = finish(speech.samples, speech.rate)
            seconds = len(clip) / 16_000
            if not SHORTEST <= seconds <= LONGEST:
                continue
            name = f"{split}-{made:04}.flac"
            soundfile.write(folder / name, clip, 16_000)
            rows.append({"file": name, "split": split, "text": text, "phrase": phrase, "seconds": round(seconds, 4)})
            made += 1
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def word_errors(rows: list[dict[str, Any]], answers: list[str]) -> list[Counts]:
    from tercet_audio.metrics import TermErrors, normaliser

    count = TermErrors([], normaliser("en"))
    found = [count(row["text"], said) for row, said in zip(rows, answers, strict=True)]
    return [Counts(row["phrase"], one.errors, one.words) for row, one in zip(rows, found, strict=True)]


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run both trainings in turns."""
    num_segments = asked.pairs + 1  # the first warms up
    steps = num_segments * asked.steps
    options = {"data": asked.data, "steps": steps, "segment": asked.steps}
    sides = {"ours": Side(SIDES, "ours", asked.threads, **options)}
    prepared = {"ours": sides["ours"].hear()}
    clips_per_step = prepared["ours"]["clips_per_step"]
    batch = max(1, round(clips_per_step))
    sides["theirs"] = Side(SIDES, "theirs", asked.threads, batch=batch, **options)
    prepared["theirs"] = sides["theirs"].hear()
    segments, ended = take_turns(sides, num_segments, "s of speech")
    rows = [json.loads(line) for line in (asked.data / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "held_out"]
    errors = {name: word_errors(rows, ended[name]["answers"]["tuned"]) for name in sides}
    change = compare(errors["theirs"], errors["ours"])
    untrained = word_errors(rows, ended["ours"]["answers"]["base"])
    assert change is not None
    return {
        **compared(segments, {name: said["prepare_seconds"] for name, said in prepared.items()}),
        "peak_memory_gib": {name: round(said["memory_gib"], 3) for name, said in ended.items()},
        "steps": steps,
        "clips_per_step": {"ours": clips_per_step, "theirs": batch},
        "passes": {
            "ours": steps * clips_per_step / asked.clips, "theirs": steps * batch / asked.clips,
        },
        "base": prepared["ours"]["base"],
        "our_data": prepared["ours"]["data"],
        "wer": {
            "untrained": 100 * sum(one.errors for one in untrained) / sum(one.units for one in untrained),
            "theirs": change.base, "ours": change.tuned, "change": change.change,
            "low": change.low, "high": change.high, "clips": change.items, "sentences": change.sources,
        },
        "segments": segments,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print the figures with what was aimed at."""
    ratio, alone, wer, memory = (result[name] for name in ("ratio", "ratio_of_steps_alone", "wer", "peak_memory_gib"))
    speeds = result["per_second"]

    def verdict(*, is_met: bool) -> str:
        return "met" if is_met else "missed"

    print(
        f"speech per second: {speeds['ours']:.1f} against {speeds['theirs']:.1f} s; ratio {ratio['median']:.2f} "
        f"({ratio['low']:.2f} to {ratio['high']:.2f}), steps alone {alone['median']:.2f}; "
        f"aim {TARGET}: {verdict(is_met=ratio['low'] >= TARGET)}\n"
        f"peak memory: {memory['ours']:.2f} against {memory['theirs']:.2f} GiB; aim no higher: "
        f"{verdict(is_met=memory['ours'] <= memory['theirs'])}\n"
        f"WER on {wer['clips']} clips of {wer['sentences']} held-out sentences, after {result['passes']['ours']:.1f} "
        f"and {result['passes']['theirs']:.1f} passes: {wer['ours']:.2f} against {wer['theirs']:.2f} (untrained "
        f"{wer['untrained']:.2f}), change {wer['change']:+.2f} ({wer['low']:+.2f} to {wer['high']:+.2f}); "
        f"aim at most +{MARGIN}: {verdict(is_met=wer['high'] <= MARGIN)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of segments")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps of one segment")
    parser.add_argument("--clips", type=int, default=240, help="clips to train on")
    parser.add_argument("--held-out", type=int, default=360, help="clips to judge with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of the clips; made on first use")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    asked.data = asked.data or REPOSITORY / ".cache" / f"whisper-trainer-{asked.clips}-{asked.held_out}"
    prepare_torchaudio()
    if not (asked.data / "manifest.jsonl").exists():
        make_clips(asked.data, asked.clips, asked.held_out)
    load = os.getloadavg()[0]
    result = {
        "command": f"python benchmarks/training/whisper_trainer.py --pairs {asked.pairs} --steps {asked.steps} "
        f"--clips {asked.clips} --held-out {asked.held_out} --threads {asked.threads}",
        "machine": say_machine(describe_machine()), "threads": asked.threads,
        **{name: version(name) for name in ("torch", "transformers", "peft", "datasets")},
        "load_before": round(load, 1), **measure(asked),
    }  # fmt: skip
    asked.output.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
