"""SIGKILL at random moments of a real training of Whisper: it resumes each time to the adapter of an undisturbed one.

Three kills by default, twenty with TERCET_LONG; the moments are drawn anew each time and printed.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.train import adapters
from tercet.train.checkpoints import reached
from tercet.train.log import read_log

KILLS = 20 if os.environ.get("TERCET_LONG") else 3
STEPS = 100 if os.environ.get("TERCET_LONG") else 24
RECIPE = f"""
version: 1
name: killed
sources: {{terms: terms.txt}}
modalities:
  audio:
    clips: 24
    engines: {{pico: {{}}}}
    held_out: {{engine: null, phrases: 0, terms: 0, phrase_clips: 0, engine_clips: 0, term_clips: 0}}
    general: {{clips: 0, replay_clips: 8}}
    gates: {{round_trip: null}}
    training: {{variants: 1}}
train:
  task: speech-to-text
  steps: {STEPS}
  micro_batch: 1
  checkpoint_every: 3
  early_stop: {{every: 12, examples: 2, share: 0.2, patience: 9}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "terms.txt").write_text("metformin\nwarfarin\nlisinopril\n")
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


def start(folder):
    command = [sys.executable, "-m", "tercet", "train", "recipe.yaml", "--threads", "1"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights(folder):
    return hashlib.sha256((folder / "runs/killed/adapters/killed" / adapters.WEIGHTS).read_bytes()).hexdigest()


def finish(folder):
    process = start(folder)
    _, said = process.communicate(timeout=1200)
    assert process.returncode == 0, said[-2000:]


def kill(process, training, steps, seconds):
    """Kill a training when it has done so many more steps, and then some seconds; or let it end before."""
    log, began = training / "log.jsonl", time.time()
    goal = reached(training).steps + steps
    while process.poll() is None and steps:
        rows = read_log(training) if log.exists() and log.stat().st_mtime > began else []  # else a former call's
        if rows and rows[-1]["step"] >= goal:
            break
        time.sleep(0.02)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.timeout(3600)
def test_a_training_killed_at_random_moments_ends_in_the_same_adapter(made, tmp_path):
    whole, killed = shutil.copytree(made, tmp_path / "whole"), shutil.copytree(made, tmp_path / "killed")
    began = time.monotonic()
    finish(whole)
    work = sum(row.get("seconds", 0.0) for row in read_log(whole / "runs/killed/training"))
    preparing = time.monotonic() - began - work
    draw, training = random.Random(), killed / "runs/killed/training"
    moments = []
    for _ in range(KILLS):
        process = start(killed)
        # by steps, not by the clock, so that a machine that is busy now and idle then is killed within the training too
        steps = draw.randint(0, round(1.4 * STEPS / KILLS))
        seconds = draw.uniform(0, work / STEPS if steps else preparing)
        kill(process, training, steps, seconds)
        how = "ended" if process.returncode == 0 else "killed"
        moments.append(f"{steps} steps and {seconds:.1f} s: step {reached(training).steps}, {how}")
    finish(killed)
    print("\n".join(moments))  # noqa: T201 - random: shown where it fails
    assert weights(killed) == weights(whole), moments
    assert any("killed" in moment for moment in moments)
