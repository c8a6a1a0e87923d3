"""Train the small vision-language base from nothing, on scenes of our own renderer only.

First the vision tower learns what each patch shows (shape, size, colours drawn at random and never named); then the
whole model learns to answer and to describe, and each patch to stand near its words; last, mostly scenes of several
objects and questions that need one of them. Each step depends on its number alone, so a stopped training goes on as
if it had not stopped:

    python -m tools.bases.train_vlm --work runs/scenes_vlm --minutes 10    # again until it says that it has finished
    python -m tools.bases.train_vlm --work runs/scenes_vlm --write modalities/tercet_image/bases/scenes_vlm

Shapes: B pictures, P patches of a picture, C channels, D features.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bases.vlm_batch import pack, patch_words, to_pixel_values
from tools.bases.vlm_model import build_model, build_processor, build_tokenizer
from tools.bases.vlm_world import NOTHING, SEED, SIZES, corpus, patches, training_examples
from tools.bases.vlm_write import commit_here, write_base

from tercet.compat import prepare_torchaudio
from tercet.files import write_atomically

if TYPE_CHECKING:
    import torch

CORPUS_SCENES = 3000
NAMING = 0.5  # weight of the patches' words: without it 300 steps taught no colour of any shape
EMPTY_WEIGHT = 0.1  # of a patch that shows nothing: eight in ten do
LOG_EVERY, CHECKPOINT_EVERY = 20, 100


@dataclass(frozen=True)
class Stage:
    """One stage of the training; `slow` parameters learn at half the rate."""

    name: str
    steps: int
    pictures: int
    learning_rate: float
    warmup: int
    cooling: int
    slow: str = ""

    def rate(self, step: int) -> float:
        """Give a step's learning rate: linear warm-up, level, and at the end `cooling` steps of a cosine to 1%."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        cooled = max(0.0, 1 - (self.steps - step) / self.cooling)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * cooled)))


VISION = Stage("vision", steps=1200, pictures=48, learning_rate=1.5e-3, warmup=100, cooling=1100)
LANGUAGE = Stage("language", 400, pictures=16, learning_rate=1.2e-3, warmup=100, cooling=1, slow="vision_tower")
BINDING = Stage("binding", 240, pictures=16, learning_rate=1.2e-3, warmup=20, cooling=140, slow="vision_tower")


def vision_loss(tower: Any, heads: torch.nn.Module, step: int) -> torch.Tensor:
    """Ask the tower's last layer, patch by patch, for shape, size, colour and background."""
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    batch = patches(step, VISION.pictures)
    seen_BPD = tower(to_pixel_values(batch.pixels), output_hidden_states=True).hidden_states[-1]
    shape, size, colour, background = heads(seen_BPD).split([NOTHING + 1, len(SIZES), 3, 3], dim=-1)
    shape_BP = torch.from_numpy(batch.shape_BP)
    weights = torch.ones(NOTHING + 1)
    weights[NOTHING] = EMPTY_WEIGHT
    is_shown_BP = shape_BP != NOTHING
    background_BPC = torch.from_numpy(batch.background_BC)[:, None].expand_as(background)
    return (
        cross_entropy(shape.flatten(0, 1), shape_BP.flatten(), weights)
        + 0.3 * cross_entropy(size[is_shown_BP], torch.from_numpy(batch.size_BP)[is_shown_BP])
        + 5 * mse_loss(colour[is_shown_BP], torch.from_numpy(batch.colour_BPC)[is_shown_BP])
        + 5 * mse_loss(background, background_BPC)
    )


def language_loss(model: Any, tokenizer: Any, stage: Stage, step: int) -> torch.Tensor:
    """Ask for the answers, and of each patch, read as if it were the model's last layer, for the words it shows."""
    import torch
    from torch.nn.functional import cross_entropy

    examples = training_examples(stage.name, step, stage.pictures)
    read = model(**pack(tokenizer, examples))
    words_NV = patch_words(tokenizer, examples).flatten(0, 1)
    logits_NV = model.lm_head(model.model.language_model.norm(read.image_hidden_states))
    names = [(name, example.scene["background"]) for example in examples for name in example.names_P]
    weight_N = torch.tensor([EMPTY_WEIGHT if name == background else 1.0 for name, background in names])
    naming: torch.Tensor = (weight_N * cross_entropy(logits_NV.flatten(0, -2), words_NV, reduction="none")).sum()
    answers: torch.Tensor = read.loss
    return answers + NAMING * naming / weight_N.sum()


def run_stage(
    stage: Stage, module: torch.nn.Module, loss_of: Callable[[int], torch.Tensor], work: Path, deadline: float
) -> bool:
    """Train `module` until the stage's last step or the deadline, from its checkpoint on; say whether it finished."""
    import torch

    named = dict(module.named_parameters())
    groups = [
        {"params": [value for name, value in named.items() if is_slow == bool(stage.slow and stage.slow in name)]}
        for is_slow in (False, True)
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint = work / f"{stage.name}.safetensors"
    done = restore(checkpoint, named, optimiser)
    started, losses = time.monotonic(), []
    module.train()
    while done < stage.steps and time.monotonic() < deadline:
        for group, share in zip(optimiser.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = share * stage.rate(done)
        loss = loss_of(done)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        done += 1
        if done % LOG_EVERY == 0:
            row = {"stage": stage.name, "step": done, "loss": round(sum(losses) / len(losses), 4)}
            seconds = round(time.monotonic() - started, 1)
            append(work / "log.jsonl", row | {"rate": round(stage.rate(done - 1), 6), "seconds": seconds})
            losses = []
        if done % CHECKPOINT_EVERY == 0:
            save(checkpoint, named, optimiser, done)
    save(checkpoint, named, optimiser, done)
    return done == stage.steps


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row to the log; `seconds` counts from this process's start of the stage."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def save(path: Path, named: dict[str, torch.nn.Parameter], optimiser: Any, done: int) -> None:
    """Write parameters, optimiser state and the count of steps in one file."""
    import torch
    from safetensors.torch import save as to_bytes

    state = {f"parameter/{name}": value.detach() for name, value in named.items()}
    for name, value in named.items():
        state |= {f"{key}/{name}": kept for key, kept in optimiser.state.get(value, {}).items()}
    write_atomically(path, to_bytes(state | {"done": torch.tensor(done)}))


def restore(path: Path, named: dict[str, torch.nn.Parameter], optimiser: Any) -> int:
    """Read a checkpoint back; 0 steps without one."""
    if not path.exists():
        return 0
    import torch
    from safetensors.torch import load_file

    state = load_file(path)
    with torch.no_grad():
        for name, value in named.items():
            value.copy_(state[f"parameter/{name}"])
            if f"step/{name}" in state:  # the tower's last norm lies behind the layer that is read, and never learns
                optimiser.state[value] = {key: state[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return int(state["done"])


def train(work: Path, minutes: float) -> tuple[Any, Any] | None:
    """Train both stages; returns the model and its processor, or None where the time ran out before the end."""
    prepare_torchaudio()
    import torch

    deadline = time.monotonic() + 60 * minutes
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer(corpus(CORPUS_SCENES))
    model = build_model(tokenizer)
    tower = model.model.vision_tower
    heads = torch.nn.Linear(tower.config.hidden_size, NOTHING + 1 + len(SIZES) + 3 + 3)
    taught = torch.nn.ModuleDict({"vision_tower": tower, "heads": heads})
    if not run_stage(VISION, taught, lambda step: vision_loss(tower, heads, step), work, deadline):
        return None

    for stage in (LANGUAGE, BINDING):
        if not run_stage(stage, model, partial(language_loss, model, tokenizer, stage), work, deadline):
            return None
    return model.eval(), build_processor(tokenizer)


def main() -> None:
    """Train, or go on training; with `--write`, write the finished base and measure it."""
    parser = argparse.ArgumentParser(description="Train the small vision-language base on our renderer's scenes.")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=60, help="stop after so many; run again to go on")
    parser.add_argument("--write", type=Path, help="folder for the finished base")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    trained = train(arguments.work, arguments.minutes)
    if trained is None:
        print("not finished; run the same command again to go on")
    elif arguments.write is None:
        print("finished; write it with --write FOLDER")
    else:
        write_base(*trained, arguments.write, arguments.work / "log.jsonl", commit_here())


if __name__ == "__main__":
    main()
