"""One recipe gives the same records, whatever the number of workers, the size of the batches or an interruption.

The four generators whose output must be repeatable run together: grammar, espeak-ng, Pico and the renderer.
"""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.store.shards import read_records
from tercet_audio.speech import Speech
from tercet_image.renderer import Renderer
from tercet_text.grammar import GrammarDialogs

RECIPE = """
version: 1
name: same
seed: 3
sources: {terms: terms.txt}
modalities:
  text: {dialogs: 12}
  image: {pictures: 12, gates: {near_duplicates: null}}
  audio:
    clips: 12
    engines: {espeak: {}}
    held_out: {engine: pico, phrase_clips: 0, engine_clips: 12, term_clips: 0}
    general: {clips: 0, replay_clips: 0}
    gates: {round_trip: null}
"""
RUN = "import sys; from tercet.cli import main; sys.argv[0] = 'tercet'; main()"
Records = dict[str, list[str]]


def records_of(run_dir: Path) -> Records:
    return {name: [record.id for record in read_records(run_dir, name)] for name in ("audio", "image", "text")}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "terms.txt").write_text("metformin\nwarfarin\nsertraline\nramipril\nnaproxen\n")
    (tmp_path / "same.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "same.yaml")


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> Records:
    """What a run in this process gives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "terms.txt").write_text("metformin\nwarfarin\nsertraline\nramipril\nnaproxen\n")
    (folder / "same.yaml").write_text(RECIPE)
    found = records_of(run_recipe(load_recipe(folder / "same.yaml"), workers=0).run_dir)
    assert {name: len(ids) for name, ids in found.items()} == {"audio": 24, "image": 12, "text": 12}
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_record(recipe, expected, workers):
    assert records_of(run_recipe(recipe, workers=workers).run_dir) == expected


@pytest.mark.parametrize("size", [1, 5])
def test_the_size_of_the_batches_changes_no_record(recipe, expected, size, monkeypatch):
    for generator in (Speech, Renderer, GrammarDialogs):
        monkeypatch.setattr(generator, "batch_size", size)
    assert records_of(run_recipe(recipe, workers=0).run_dir) == expected


def made(run_dir: Path) -> int:
    """Count what the journal holds, from outside the run."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{run_dir / 'journal.sqlite'}?mode=ro", uri=True)) as journal:
            return int(journal.execute("SELECT count(*) FROM made").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


@pytest.mark.parametrize(("workers", "sent"), [(1, signal.SIGKILL), (2, signal.SIGINT)])
def test_interruptions_at_random_change_no_record(recipe, expected, workers, sent, tmp_path):
    run_dir = tmp_path / "out"
    command = [sys.executable, "-c", RUN, "run", str(recipe.path), "--out", str(run_dir), "--workers", str(workers)]
    draw = random.Random(workers)
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = made(run_dir) + draw.randint(1, 20)
        while process.poll() is None and made(run_dir) < wanted:
            time.sleep(0.02)
        process.send_signal(sent)
        process.wait(timeout=60)
        time.sleep(0.3)  # orphaned workers notice that their driver is gone
    assert records_of(run_recipe(recipe, run_dir, workers=workers).run_dir) == expected
