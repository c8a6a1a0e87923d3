"""The small text-to-image base that lies in the repository: it loads as any pipeline, paints, and its card is true."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from tools.bases.diffusion_score import GUIDANCE, STEPS, count_hits, judge
from tools.bases.diffusion_stages import Stage, run_stage
from tools.bases.diffusion_world import held_out_pairs, held_out_scenes, training_scenes

import tercet_image
from tercet.models.terms import licence_in
from tercet_image.pipelines import load_painter
from tercet_image.recipe import Diffusion

FOLDER = Path(tercet_image.__file__).parent / "bases" / "scenes_diffusion"
CARD = (FOLDER / "README.md").read_text()
MOST_BYTES = 10_000_000
ROW = re.compile(r"^\| (\w+) \| ([\d.]+)% \|", re.MULTILINE)
NUM_PAINTED = 24
# 24 pictures of a share p: three deviations of p = 0.9 are 0.18
TOLERANCE = 0.2


@pytest.fixture(scope="module")
def painter():
    """Load the base as a recipe does, with no way to a network."""
    settings = Diffusion(pictures=1, model=f"path:{FOLDER}", size=64, steps=STEPS, guidance=GUIDANCE, batch=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
        return load_painter(settings, 1, FOLDER)


def test_all_of_it_is_small_and_free():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MOST_BYTES
    assert licence_in(FOLDER) == "apache-2.0"
    assert not [path for path in FOLDER.rglob("*") if path.suffix in {".bin", ".pt", ".ckpt", ".pkl", ".py"}]


def test_the_card_names_each_files_digest():
    told = dict(re.findall(r"^- `(.+)` ([0-9a-f]{64})$", CARD, re.MULTILINE))
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.name != "README.md"]
    assert told == {str(path.relative_to(FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_held_out_captions_are_painted_about_as_well_as_the_card_says(painter):
    figures = {name: float(share) / 100 for name, share in ROW.findall(CARD)}
    scenes = held_out_scenes(NUM_PAINTED)
    hits = count_hits(scenes, judge(painter.pipeline, scenes)[1])
    assert set(figures) == set(hits)
    wrong = {name: sum(hit) / len(hit) for name, hit in hits.items() if name not in {"relation", "all"}}
    assert {name: share for name, share in wrong.items() if share < figures[name] - TOLERANCE} == {}


def test_the_same_prompt_and_seed_give_the_same_picture(painter):
    first, second, other = (painter.paint(["A large red ring on white."], [seed])[0].tobytes() for seed in (1, 1, 2))
    assert first == second != other


def test_a_word_of_the_world_is_one_token_and_no_word_is_unknown(painter):
    tokenizer = painter.pipeline.tokenizer
    ids = tokenizer("a small red circle is left of the large yellow hexagon")["input_ids"]
    assert len(ids) == 11 + 2
    for word in ("teal", "mustard", "Éclair", "日本", "~"):
        pieces = tokenizer(word)["input_ids"][1:-1]
        assert pieces and tokenizer.unk_token_id not in pieces
        assert tokenizer.decode(pieces).strip() == word.lower()


def test_a_dense_caption_in_a_brands_words_is_taken_whole(painter):
    first, second = "large mustard hexagon", "small terracotta triangle"
    text = f"The picture shows two objects: a {first} and a {second}. The {first} is right of the {second}. "
    assert painter.takes_whole(text + "Behind it all is light green.")


def test_a_lora_adapter_can_be_saved_and_loaded(painter, tmp_path):
    import diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    libraries: Any = diffusers
    unet = painter.pipeline.unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), "new")
    layers = libraries.utils.convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name="new"))
    unet.delete_adapters("new")
    libraries.StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    painter.pipeline.load_lora_weights(str(tmp_path), adapter_name="mine")
    assert painter.pipeline.get_active_adapters() == ["mine"]
    painter.pipeline.unload_lora_weights()


def test_no_training_scene_holds_a_held_out_pair():
    pairs = {(one["colour"], one["shape"]) for scene in training_scenes(2000) for one in scene["objects"]}
    assert len(held_out_pairs()) == 8
    assert pairs.isdisjoint(held_out_pairs())
    firsts = {(scene["objects"][0]["colour"], scene["objects"][0]["shape"]) for scene in held_out_scenes(40)}
    assert firsts <= held_out_pairs()


def fit(folder, most_steps):
    """Train a line's weights in a folder: what another call has left there is all that is known of it."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1)

    def losses(step):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"fit": (module(x) - x.sum(1, keepdim=True)).square().mean()}

    deadline: Any = Ticks(most_steps)
    done = run_stage(Stage("fit", module, losses, 30, learning_rate=0.1), folder, deadline)
    return done, module.weight.detach().clone()


def test_a_stage_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path):
    import torch

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    assert fit(stopped, 7)[0] is False
    (done, weights), (again, others) = fit(whole, 99), fit(stopped, 99)
    assert done and again
    assert torch.equal(weights, others)


class Ticks:
    """A deadline that passes after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __gt__(self, other):
        self.left -= 1
        return self.left >= 0


def test_it_loads_in_one_precision_without_being_told_which(painter):
    """A text encoder kept as fp16 would be loaded so, and the rest in fp32: then nothing is painted at all."""
    import diffusers
    import torch

    del painter  # it prepared torchaudio
    pipeline = diffusers.DiffusionPipeline.from_pretrained(FOLDER, local_files_only=True)
    parts = (getattr(pipeline, name) for name in ("text_encoder", "unet", "vae"))
    assert {value.dtype for part in parts for value in part.parameters()} == {torch.float32}
