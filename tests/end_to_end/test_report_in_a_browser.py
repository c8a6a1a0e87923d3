"""The page of a run in three modalities with an evaluation, opened in headless Chromium."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
from PIL import Image

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.report import write_report
from tercet.testing import require_program

REPOSITORY = Path(__file__).parents[2]
RECIPE = """
version: 1
name: shown
sources: {terms: terms.txt}
modalities:
  text: {dialogs: 12}
  image: {pictures: 12}
  audio:
    clips: 6
    engines: {pico: {}}
    held_out: {engine: null, phrase_clips: 0, engine_clips: 0, term_clips: 0}
    general: {clips: 0, replay_clips: 0}
    gates: {round_trip: null}
"""
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    (folder / "terms.txt").write_text("metformin\nwarfarin\nsertraline\nramipril\nnaproxen\n")
    (folder / "shown.yaml").write_text(RECIPE)
    run_dir = run_recipe(load_recipe(folder / "shown.yaml"), workers=0).run_dir
    shutil.copy(REPOSITORY / "benchmarks" / "results" / "demo-evaluation.json", run_dir / "evaluation.json")
    return write_report(run_dir)


@pytest.fixture(scope="module")
def dom(page, tmp_path_factory):
    chromium = require_program("chromium")
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    command = [chromium, *OPTIONS, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    return done.stdout


def test_players_hold_sound_that_can_be_decoded(dom):
    players = re.findall(r"<audio[^>]*controls[^>]*src=\"data:audio/flac;base64,([^\"]+)\"", dom)
    assert len(players) >= 3
    for data in players:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 16_000
        assert len(samples) > 8_000


def test_thumbnails_hold_pictures_that_can_be_decoded(dom):
    pictures = re.findall(r"<img[^>]*src=\"data:image/png;base64,([^\"]+)\"", dom)
    assert len(pictures) >= 3
    for data in pictures:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert min(picture.size) >= 32


def test_the_decision_and_the_lift_stand_in_the_page(dom):
    assert re.search(r"Decision:\s*(promote|hold|decline)", dom)
    for name in ("B-WER", "U-WER", "a speech engine never trained on"):
        assert name in dom


def test_at_phone_width_nothing_sticks_out(page, tmp_path):
    """What is wider than the window would be cut off in a picture of the window: compare it with a wider one."""
    chromium = require_program("chromium")
    shots = {}
    for width in (500, 900):
        shot = tmp_path / f"{width}.png"
        size = [f"--window-size={width},2400", "--hide-scrollbars", f"--screenshot={shot}"]
        command = [chromium, *OPTIONS, f"--user-data-dir={tmp_path / str(width)}", *size, page.as_uri()]
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        with Image.open(shot) as picture:
            shots[width] = picture.convert("RGB").crop((picture.width - 6, 0, picture.width, picture.height))
    for width, edge in shots.items():  # the outermost pixels are background alone
        colours = edge.getcolors(100)
        assert colours, width
        assert max(count for count, _ in colours) > 0.97 * edge.width * edge.height, width
