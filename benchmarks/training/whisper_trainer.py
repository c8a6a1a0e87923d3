"""Whisper's fine-tuning in tercet against transformers' Seq2SeqTrainer with PEFT, as its guides write it.

    python benchmarks/training/whisper_trainer.py --pairs 6 --steps 10 --clips 240

Both train Whisper tiny.en in fp32 on the same clips of 2 to 6 s, without augmentation, with the same adapter, optimiser
and schedule, and as many clips per optimiser step on average, so that equal steps are equal passes. Each side is a
process of its own. They take turns in segments of `--steps` steps, in ABBA order, after one segment to warm up. A rate
is seconds of speech (without padding and gaps) per second, the side's preparation (features; ours also packs, and runs
the frozen encoder once) spread over its steps. The result is the ratio within each pair, ours / theirs, with the
bootstrap's 95 % of its median. Then both write down clips of held-out sentences. Writes
benchmarks/results/training-whisper.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tercet.compat import prepare_torchaudio
from tercet.evaluate.statistics import Counts, compare
from tercet.machine import describe_machine, say_machine
from tercet.sources import read_terms

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "recipes" / "pharmacy"
RESULTS = REPOSITORY / "benchmarks" / "results" / "training-whisper.json"
VOICES = (("hibari", "heart"), ("pico", "en-US"), ("hibari", "heart-gb"), ("pico", "en-GB"))
SHORTEST, LONGEST = 2.0, 6.0  # seconds
HELD_OUT_PHRASES = 20
TARGET, MARGIN = 2.5, 1.0  # audio-seconds per second, ours / theirs; points of WER


def make_clips(folder: Path, num_train: int, num_held_out: int) -> None:
    """Let our engines say the sample recipe's sentences; some sentences are held out."""
    import soundfile

    from tercet_audio.clip import finish
    from tercet_audio.engines import ready_engine

    lines = (SAMPLE / "phrases.txt").read_text().splitlines()
    phrases = [line for line in lines if line and not line.startswith("#")]
    draw = random.Random(1)
    draw.shuffle(phrases)
    terms = [term.text for term in read_terms(SAMPLE / "terms.csv")]
    wanted = {"held_out": (phrases[:HELD_OUT_PHRASES], num_held_out), "train": (phrases[HELD_OUT_PHRASES:], num_train)}
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for split, (some, count) in wanted.items():
        made = tried = 0
        while made < count:
            engine, voice = VOICES[tried % len(VOICES)]
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


class Side:
    """One training in its own process; it goes on only when asked."""

    def __init__(self, name: str, data: Path, steps: int, segment: int, threads: int, batch: int = 0) -> None:
        command = [sys.executable, str(Path(__file__).with_name("whisper_sides.py")), name, "--data", str(data)]
        command += ["--steps", str(steps), "--segment", str(segment), "--threads", str(threads), "--batch", str(batch)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def hear(self) -> dict[str, Any]:
        """Wait for what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with {self.process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def go(self) -> dict[str, Any]:
        """Let it go on, and wait."""
        self.leave()
        return self.hear()

    def leave(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


def rate(segment: dict[str, Any], prepare_seconds: float, share: float) -> float:
    """Give seconds of speech per second, with the segment's share of the preparation."""
    return float(segment["audio"] / (segment["seconds"] + prepare_seconds * share))


def summed_up(ratios: list[float]) -> dict[str, Any]:
    """Give the median of paired ratios with the bootstrap's 95 %."""
    held = np.array(ratios)
    draws = np.random.default_rng(0).integers(0, len(held), (4000, len(held)))
    low, high = np.quantile(np.median(held[draws], axis=1), (0.025, 0.975))
    return {"median": float(np.median(held)), "low": float(low), "high": float(high), "pairs": ratios}


def word_errors(rows: list[dict[str, Any]], answers: list[str]) -> list[Counts]:
    from tercet_audio.metrics import TermErrors, normaliser

    count = TermErrors([], normaliser("en"))
    found = [count(row["text"], said) for row, said in zip(rows, answers, strict=True)]
    return [Counts(row["phrase"], one.errors, one.words) for row, one in zip(rows, found, strict=True)]


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run both trainings in turns."""
    num_segments = asked.pairs + 1  # the first warms up
    steps = num_segments * asked.steps
    own = Side("ours", asked.data, steps, asked.steps, asked.threads)
    prepared = {"ours": own.hear()}
    clips_per_step = prepared["ours"]["clips_per_step"]
    batch = max(1, round(clips_per_step))
    other = Side("theirs", asked.data, steps, asked.steps, asked.threads, batch)
    prepared["theirs"] = other.hear()
    sides = {"ours": own, "theirs": other}
    segments: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for number in range(num_segments):
        for name in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
            segments[name].append(sides[name].go())
            print(
                f"{name:6} {segments[name][-1]['audio'] / segments[name][-1]['seconds']:7.2f} s of speech per s",
                flush=True,
            )
    ended = {name: side.go() for name, side in sides.items()}
    for side in sides.values():
        side.leave()
        side.process.wait()
    timed = list(zip(segments["ours"][1:], segments["theirs"][1:], strict=True))
    took = {name: prepared[name]["prepare_seconds"] for name in sides}
    share = 1 / num_segments
    rates = [(rate(a, took["ours"], share), rate(b, took["theirs"], share)) for a, b in timed]
    rows = [json.loads(line) for line in (asked.data / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "held_out"]
    errors = {name: word_errors(rows, ended[name]["answers"]["tuned"]) for name in sides}
    change = compare(errors["theirs"], errors["ours"])
    untrained = word_errors(rows, ended["ours"]["answers"]["base"])
    assert change is not None
    return {
        "ratio": summed_up([a / b for a, b in rates]),
        "ratio_of_steps_alone": summed_up([rate(a, 0, 0) / rate(b, 0, 0) for a, b in timed]),
        "speech_seconds_per_second": {
            name: float(np.median([pair[at] for pair in rates])) for at, name in enumerate(sides)
        },
        "prepare_seconds": took,
        "peak_memory_gib": {name: round(ended[name]["memory_gib"], 3) for name in sides},
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
    speeds = result["speech_seconds_per_second"]

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
    parser.add_argument("--steps", type=int, default=10, help="optimiser steps of one segment")
    parser.add_argument("--clips", type=int, default=240, help="clips to train on")
    parser.add_argument("--held-out", type=int, default=240, help="clips to judge with")
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
