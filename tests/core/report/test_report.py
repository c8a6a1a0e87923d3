import re
import subprocess
from pathlib import Path

import pytest

from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.report import write_card, write_report
from tercet.report.figures import grid
from tercet.report.sanitise import sanitise
from tercet.testing import require_program

HOSTILE = '<img src=x onerror="console.error(1)">'
RECIPE = """
version: 1
name: shown
sources: {terms: terms.txt}
modalities:
  text: {dialogs: 30}
  image: {pictures: 30, scene: {label_share: 1.0, objects: [2, 3]}}
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "terms.txt").write_text(f"aspirin\n<script>x()</script>\n{HOSTILE}\n")
    (folder / "shown.yaml").write_text(RECIPE)
    return run_recipe(load_recipe(folder / "shown.yaml"), workers=0).run_dir


def test_the_page_stands_alone_and_terms_stay_inert(run_dir):
    page = write_report(run_dir).read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "<script" not in page.lower()
    assert "onerror=" not in page.replace("&#34;", '"').split("<style")[0]
    assert not re.search(r"<[^>]*onerror", page)
    assert "default-src 'none'" in page
    assert page.count("data:image/png") >= 4
    assert len(page) < 3_000_000


def test_a_browser_shows_thumbnails_without_a_console_error(run_dir, tmp_path):
    chromium = require_program("chromium")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = [str(chromium or "chromium"), *options.split(), *more.split(), f"--user-data-dir={tmp_path}"]
    done = subprocess.run([*command, write_report(run_dir).as_uri()], capture_output=True, text=True, check=True)
    assert done.stdout.count("<img ") >= 4
    assert "aspirin" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_the_card_names_a_configuration_per_modality(run_dir):
    card = write_card(run_dir).read_text()
    assert card.startswith("---\n")
    assert "config_name: text" in card
    assert "config_name: image" in card


@pytest.mark.parametrize(
    ("hostile", "gone"),
    [
        ("<script>alert(1)</script>", "alert"),
        ('<b onclick="x()">bold</b>', "onclick"),
        ('<a href="javascript:x()">a</a>', "javascript"),
        ('<img src="https://example.org/x.png">', "example.org"),
        ('<iframe src="data:text/html,x"></iframe>', "iframe"),
        ("<style>body{}</style>", "body{}"),
    ],
)
def test_what_a_plug_in_shows_is_cleaned(hostile, gone):
    assert gone not in sanitise(f"<p>kept</p>{hostile}")
    assert "kept" in sanitise(f"<p>kept</p>{hostile}")


def cells(count, planned, kept):
    return [
        {"cell": {"a": str(n % 10), "b": str(n % 2)}, "planned": planned, "made": planned, "kept": kept}
        for n in range(count)
    ]


def test_a_sparse_grid_is_folded_and_its_numbers_add_up():
    drawn = grid(cells(20, 1, 1), is_over=True)
    assert drawn is not None
    everything = [cell for _, row in drawn.rows for cell in row]
    assert sum(cell.planned for cell in everything) == 20
    assert len(everything) == 2


def test_a_cell_that_fails_the_run_is_never_folded_away():
    drawn = grid([*cells(20, 1, 1), {"cell": {"a": "x", "b": "y"}, "planned": 4, "made": 4, "kept": 0}], is_over=True)
    assert drawn is not None
    assert drawn.num_empty == 1
