"""The benchmark of Whisper's training in its smallest form: both sides hear the same speech, counted alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "training" / "whisper_trainer.py"


@pytest.mark.slow  # a minute: three trainings' worth of start-up
def test_both_sides_train_on_the_same_speech_and_are_judged_on_the_same_clips(tmp_path):
    sizes = ["--pairs", "1", "--steps", "3", "--clips", "8", "--held-out", "4", "--threads", "1"]
    places = ["--data", str(tmp_path / "clips"), "--output", str(tmp_path / "result.json")]
    done = subprocess.run([sys.executable, str(SCRIPT), *sizes, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "clips" / "manifest.jsonl").read_text().splitlines()]
    assert all(2 <= row["seconds"] <= 6 for row in rows)
    phrases = [{row["phrase"] for row in rows if row["split"] == split} for split in ("train", "held_out")]
    assert not phrases[0] & phrases[1]
    speech = sum(row["seconds"] for row in rows if row["split"] == "train")
    for side in ("ours", "theirs"):  # thrice eight clips are six windows: three steps are whole passes
        heard = sum(segment["amount"] for segment in result["segments"][side])
        assert heard == pytest.approx(result["passes"][side] * speech, rel=1e-3)
    assert len(result["ratio"]["pairs"]) == 1
    assert result["wer"]["clips"] == 4
    assert "aim 2.5" in done.stdout
