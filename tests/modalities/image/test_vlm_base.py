"""The stored vision-language base: it loads without tercet, sees what it is asked, and takes words it never read."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tercet_image.caption import questions
from tercet_image.plan import Scenes, palette
from tercet_image.recipe import ImageRecipe, SceneAttributes
from tercet_image.renderer import draw_scene

BASE = Path(__file__).parents[3] / "modalities/tercet_image/bases/scenes_vlm"
MOST_BYTES = 10_000_000
TRAINED_SEED = 4  # the seed whose held-out pairs the base never saw
ASKED = 96  # a 95% interval of about 8 points on either side at 80%
SECTION = ImageRecipe(size=64, scene=SceneAttributes(packages=(), label_share=0))
# what a user's script does, in a process that has not imported tercet; a blind run sees grey
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

torch.set_num_threads(1)
folder, work = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder)
model = LlavaForConditionalGeneration.from_pretrained(folder)
asked = json.loads((Path(work) / "asked.json").read_text())
turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in asked]
prompts = processor.apply_chat_template(turns, add_generation_prompt=True)
pictures = [Image.open(Path(work) / f"{at}.png") for at in range(len(asked))]
inputs = processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
answers = {}
for run in ("seeing", "blind"):
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    texts = processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    answers[run] = [text.strip() for text in texts]
    inputs["pixel_values"].zero_()
assert not [name for name in sys.modules if name.split(".")[0].startswith("tercet")]
(Path(work) / "answers.json").write_text(json.dumps(answers))
"""


def held_out_questions(folder: Path) -> list[dict[str, str]]:
    """Draw a new picture of a held-out pair for each question and put it into `folder`."""
    scenes = Scenes(SECTION, (), TRAINED_SEED)
    asked: list[dict[str, str]] = []
    number = 90_000_000  # far beyond the scenes of training
    while len(asked) < ASKED:
        number += 1
        if scenes.pair(number) not in scenes.held_out:
            continue
        scene, draw = scenes.item(number, number).spec["scene"], random.Random(number)
        draw_scene(scene, *palette(SECTION, scene), 64, draw).save(folder / f"{len(asked)}.png")
        asked += questions(scene, 1, list(SECTION.scene.colours), list(SECTION.scene.shapes), draw)
    return asked


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(BASE)


def test_the_base_without_tercet_answers_what_it_sees_of_held_out_pairs(tmp_path: Path) -> None:
    asked = held_out_questions(tmp_path)
    (tmp_path / "asked.json").write_text(json.dumps([one["question"] for one in asked]))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(BASE), str(tmp_path)]

    script = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    assert script.returncode == 0, script.stderr
    answers = json.loads((tmp_path / "answers.json").read_text())
    truth = [one["answer"] for one in asked]
    seeing, blind = (
        sum(said == true for said, true in zip(answers[run], truth, strict=True)) / ASKED for run in ("seeing", "blind")
    )
    assert abs(seeing - claimed("all")) <= 0.1  # the interval of ASKED answers
    assert seeing >= max(0.6, blind + 0.2)


def test_the_base_takes_less_than_its_room_and_is_what_its_card_says() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < MOST_BYTES
    card = (BASE / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest() in card


def claimed(kind: str) -> float:
    """Read the held-out accuracy of a kind of question out of the card."""
    row = re.search(rf"^\| {kind} \| \d+ \| ([\d.]+)% ", (BASE / "README.md").read_text(), re.MULTILINE)
    assert row
    return float(row[1]) / 100


@pytest.mark.parametrize("text", ["teal", "a hexagon-like Tofuquarz 500", "Ünï  漢字\t🙂\n", "What is mid-teal?"])
def test_words_the_base_never_read_come_back_from_the_tokenizer_unchanged(tokenizer: Any, text: str) -> None:
    tokens = tokenizer.encode(text, add_special_tokens=False)

    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("word", [*SECTION.scene.colours, *SECTION.scene.shapes, "yes", "no", "one", "two", "three"])
def test_each_word_of_the_bases_world_is_one_token(tokenizer: Any, word: str) -> None:
    assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1


def test_the_template_marks_the_answer_and_its_end_for_the_loss(tokenizer: Any) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(BASE)
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "What colour is the star?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "light green"}]},
    ]

    made = processor.tokenizer.apply_chat_template(
        turns, chat_template=processor.chat_template, return_dict=True, return_assistant_tokens_mask=True
    )

    answer = [token for token, is_answer in zip(made["input_ids"], made["assistant_masks"], strict=True) if is_answer]
    assert tokenizer.decode(answer) == " light green</s>"
