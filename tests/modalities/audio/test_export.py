"""A tuned adapter, merged and exported, hears the same in transformers and in openai-whisper."""

import pytest
import torch
from transformers import WhisperProcessor

from tercet.models import resolve
from tercet.recipe import Adapter
from tercet.train.adapters import attach, save, trainable
from tercet_audio.clip import finish
from tercet_audio.engines import ready_engine
from tercet_audio.export import WHISPER_FILE, export
from tercet_audio.task import DECODER
from tercet_audio.transcribe import Transcriber, load_processor, load_whisper


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
    torch.manual_seed(0)
    model = attach(load_whisper(base.path).requires_grad_(False), Adapter(rank=4, dropout=0), DECODER)
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
    options = {"language": "en", "fp16": False, "temperature": 0.0, "without_timestamps": True}  # as ours decodes
    assert whisper.transcribe(theirs, clip, **options)["text"].strip() == ours([clip])[0]


def test_the_exported_pt_is_a_base_again_with_the_very_same_logits(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    again = resolve(f"path:{WHISPER_FILE}", "whisper-tune", exported / "model")
    models = [load_whisper(folder) for folder in (exported / "model", again.path)]
    features, tokens = torch.randn(1, 80, 3000), torch.tensor([[50257, 50362, 383, 4512]])
    with torch.inference_mode():
        expected, got = (model(input_features=features, decoder_input_ids=tokens).logits for model in models)
    assert torch.equal(got, expected)
    written, read = (model.generation_config.to_dict() for model in models)
    differs = {name for name in written if written[name] != read.get(name)}
    assert differs <= {
        "alignment_heads",
        "transformers_version",
    }  # word times: a file that nobody released has no chosen heads
    processors = [load_processor(folder).tokenizer for folder in (exported / "model", again.path)]
    assert len({tuple(one(" Take metformin twice.").input_ids) for one in processors}) == 1


def test_the_exported_tokeniser_reads_times(exported):
    tokenizer = WhisperProcessor.from_pretrained(exported / "model").tokenizer
    assert tokenizer.decode([50363, 1002, 50463], decode_with_timestamps=True) == "<|0.00|> If<|2.00|>"
