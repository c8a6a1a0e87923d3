"""A tuned adapter, merged and exported, hears the same in transformers and in openai-whisper."""

import pytest
import torch

from tercet.models import resolve
from tercet.recipe import Adapter
from tercet.train.adapters import attach, save, trainable
from tercet_audio.clip import finish
from tercet_audio.engines import ready_engine
from tercet_audio.export import WHISPER_FILE, export
from tercet_audio.task import DECODER
from tercet_audio.transcribe import Transcriber, load_whisper


@pytest.fixture(scope="module")
def base():
    return resolve("auto", "whisper-tune")


@pytest.fixture(scope="module")
def clip():
    speech = ready_engine("hibari").speak("The train to Boston leaves at half past nine.", "heart", 1.0, 1)
    return finish(speech.samples, speech.rate)


@pytest.fixture(scope="module")
def exported(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = attach(load_whisper(base.path).requires_grad_(False), Adapter(rank=4, dropout=0), DECODER)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in trainable(model).items():
            if "lora_B" in name:
                value.normal_(std=0.01)
    save(model, folder / "adapter", {"base": base.reference, "base_digest": base.digest})
    export(load_whisper(base.path), base.path, folder / "adapter", folder / "model")
    return folder


# openai-whisper leaves its vocabulary file open
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_merged_model_loads_in_openai_whisper_with_the_same_logits_and_transcript(exported, base, clip):
    import whisper

    ours = Transcriber.load(exported / "model")
    theirs = whisper.load_model(str(exported / "model" / WHISPER_FILE), device="cpu")
    padded = whisper.pad_or_trim(clip)
    mel = whisper.log_mel_spectrogram(padded).unsqueeze(0)
    tokens = torch.tensor([[50257, 50362, 383, 4512]])
    with torch.inference_mode():
        got = theirs.logits(tokens, theirs.embed_audio(mel))
        expected = ours.model(encoder_outputs=ours.encode([clip]), decoder_input_ids=tokens).logits
        plain = Transcriber.load(base.path)
        before = plain.model(encoder_outputs=plain.encode([clip]), decoder_input_ids=tokens).logits
    assert (got - expected).abs().max() < 2e-2  # two implementations of the features, in fp32
    assert (got - before).abs().max() > 0.2  # and the adapter is in it
    heard = whisper.transcribe(theirs, clip, language="en", fp16=False, temperature=0.0)["text"].strip()
    assert heard == ours([clip])[0]
