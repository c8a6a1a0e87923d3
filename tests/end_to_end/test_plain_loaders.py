"""What tercet saves is used without tercet: plain PEFT, transformers and openai-whisper give the same outputs.

Each loads in a process that never imported tercet. The adapters of pictures have such tests beside their task.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tercet.models import resolve
from tercet.recipe import Adapter, load_recipe
from tercet.train.adapters import attach, save, trainable
from tercet_audio.export import WHISPER_FILE
from tercet_audio.task import SpeechToText
from tercet_text.causal_lm import CausalLm

RECIPE = """
version: 1
name: plain
modalities: {audio: {clips: 1}, text: {dialogs: 1}}
train: {task: TASK}
"""
TOKENS = [50257, 50362, 383, 4512]  # <|startoftranscript|><|notimestamps|> and two words
BEGINNING = """
import json, sys
import numpy as np, torch
base, adapter, merged, given, out = sys.argv[1:]
given = {name: torch.from_numpy(value) for name, value in np.load(given).items()}
found = {}
torch.set_grad_enabled(False)
"""
END = """
np.savez(out, **{name: value.numpy() for name, value in found.items()})
print(json.dumps([name for name in sys.modules if name.split(".")[0].startswith("tercet")]))
"""
SCRIPTS = {
    "speech-to-text": """
from peft import PeftModel
from transformers import WhisperForConditionalGeneration
model = WhisperForConditionalGeneration.from_pretrained(base)
found["adapter"] = PeftModel.from_pretrained(model, adapter).eval()(**given).logits
found["merged"] = WhisperForConditionalGeneration.from_pretrained(merged).eval()(**given).logits
""",
    "openai-whisper": """
import whisper
model = whisper.load_model(merged, device="cpu")
found["merged"] = model.logits(given["decoder_input_ids"], model.embed_audio(given["input_features"]))
""",
    "causal-lm": """
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)  # its file holds bfloat16
found["adapter"] = PeftModel.from_pretrained(model, adapter).eval()(**given).logits
found["merged"] = AutoModelForCausalLM.from_pretrained(merged).eval()(**given).logits
assert AutoTokenizer.from_pretrained(merged).chat_template
""",
}


def without_tercet(script, *arguments):
    """Run a user's script; it must not have imported tercet."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGINNING + script + END, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
    return {name: torch.from_numpy(value) for name, value in np.load(arguments[-1]).items()}


def adapted(task, base, folder):
    """Save an adapter that does something, and the merged model; give the model with it."""
    torch.manual_seed(0)
    model = attach(task.load_base(base.path), Adapter(rank=4, dropout=0), task.defaults.targets)
    with torch.no_grad():
        for name, value in trainable(model).items():
            if "lora_B" in name:
                value.normal_(std=0.01)
    save(model, folder / "adapter", {"base": base.reference, "base_digest": base.digest})
    task.export(base.path, folder / "adapter", folder / "merged")
    return model.eval()


@pytest.fixture
def recipe(tmp_path):
    def of(task):
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace("TASK", task))
        return load_recipe(tmp_path / "recipe.yaml")

    return of


def test_a_whisper_adapter_and_the_merged_model(recipe, tmp_path):
    base = resolve("auto", "whisper-tune")
    model = adapted(SpeechToText(recipe("speech-to-text")), base, tmp_path)
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    given = {"input_features": features, "decoder_input_ids": torch.tensor([TOKENS])}
    np.savez(tmp_path / "given.npz", **{name: value.numpy() for name, value in given.items()})  # type: ignore[arg-type]
    with torch.no_grad():
        expected = model(**given).logits
        with model.disable_adapter():
            before = model(**given).logits
    assert (expected - before).abs().max() > 0.2  # the adapter is in it
    places = (base.path, tmp_path / "adapter", tmp_path / "merged", tmp_path / "given.npz")
    found = without_tercet(SCRIPTS["speech-to-text"], *places, tmp_path / "found.npz")
    for logits in found.values():
        torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-4)
    merged = (base.path, tmp_path / "adapter", tmp_path / "merged" / WHISPER_FILE, tmp_path / "given.npz")
    found = without_tercet(SCRIPTS["openai-whisper"], *merged, tmp_path / "found.npz")
    torch.testing.assert_close(found["merged"], expected, atol=2e-2, rtol=1e-3)


def test_a_chat_adapter_and_the_merged_model(recipe, tmp_path):
    base = resolve("auto", "chat")
    task = CausalLm(recipe("causal-lm"))
    model = adapted(task, base, tmp_path)
    given = {"input_ids": torch.tensor([task._form.tokenizer("Where is my order, and when?")["input_ids"]])}
    np.savez(tmp_path / "given.npz", **{name: value.numpy() for name, value in given.items()})  # type: ignore[arg-type]
    with torch.no_grad():
        expected = model(**given).logits
        with model.disable_adapter():
            before = model(**given).logits
    assert (expected - before).abs().max() > 0.2
    places = (base.path, tmp_path / "adapter", tmp_path / "merged", tmp_path / "given.npz", tmp_path / "found.npz")
    for logits in without_tercet(SCRIPTS["causal-lm"], *places).values():
        torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-4)
