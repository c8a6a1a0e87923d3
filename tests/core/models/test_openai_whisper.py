"""openai-whisper's `.pt` becomes a base that hears the same; a file that isn't one is refused with its fault."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from tercet.errors import ModelError
from tercet.models import resolve
from tercet.models.convert_openai_whisper import convert
from tercet.models.convert_whisper import special_tokens
from tercet.models.openai_names import SIZES, to_openai, to_transformers
from tercet.models.whisper_tokenizer import build, suppressed

# openai-whisper leaves its vocabulary file open
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", r"ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"
)
TEXTS = (" Take metformin, 500 mg.", "Größe 12½ – naïve café?", " 東京へ行く", "don't  \n\t'll", "<|endoftext|> 3rd")


def dims(**changed: Any) -> dict[str, Any]:
    """Give the sizes of a model of 2 + 2 layers, 32 wide."""
    sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 4, "n_audio_layer": 2,
             "n_vocab": 51864, "n_text_ctx": 448, "n_text_state": 32, "n_text_head": 4, "n_text_layer": 2}  # fmt: skip
    return sizes | changed


def small(**changed: Any) -> dict[str, Any]:
    """Give a checkpoint as openai-whisper writes it, in fp16 as its releases are."""
    torch.manual_seed(5)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**dims(**changed))).half()
    torch.nn.init.normal_(model.decoder.positional_embedding, std=0.02)  # it is torch.empty
    return {"dims": dims(**changed), "model_state_dict": model.state_dict()}


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Any]:
    return small()


def test_every_name_goes_there_and_back(checkpoint: dict[str, Any]) -> None:
    config = WhisperConfig(**{ours: dims()[openai] for openai, ours in SIZES.items()}, **special_tokens(51864))
    with torch.device("meta"):
        names = set(WhisperForConditionalGeneration(config).state_dict()) - {"proj_out.weight"}
    assert {to_openai(name) for name in names} == set(checkpoint["model_state_dict"])
    assert all(to_transformers(to_openai(name)) == name for name in names)


@pytest.mark.parametrize(("vocabulary", "languages"), [(51864, 99), (51865, 99), (51866, 100)])
def test_every_token_has_openai_whispers_number(vocabulary: int, languages: int) -> None:
    is_multilingual = vocabulary != 51864
    ours = build(is_multilingual=is_multilingual, num_languages=languages)
    theirs = whisper.tokenizer.get_tokenizer(is_multilingual, num_languages=languages)
    for text in TEXTS:
        plain = text.replace("<|endoftext|>", "")
        assert ours(plain, add_special_tokens=False).input_ids == theirs.encode(plain)
        assert ours.decode(theirs.encode(plain), clean_up_tokenization_spaces=False) == plain
    named = {name: number for name, number in theirs.special_tokens.items() if "." not in name}
    assert {name: ours.convert_tokens_to_ids(name) for name in named} == named
    assert set(theirs.non_speech_tokens) < set(suppressed(ours))
    assert theirs.timestamp_begin == len(ours)  # a time has the number after the last token, up to the model's last one
    assert len(ours) + 1501 == vocabulary


def test_a_pt_is_a_base_with_the_same_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    torch.save(small(n_vocab=51866, n_mels=128), tmp_path / "large.pt")
    found = resolve("path:./large.pt", "whisper-tune", tmp_path)
    assert (found.licence, found.origin) == ("unknown", "local file large.pt, from openai-whisper's layout")
    assert found.path.parent == tmp_path / "cache" / "models"
    ours = WhisperForConditionalGeneration.from_pretrained(found.path).eval()
    theirs = whisper.load_model(str(tmp_path / "large.pt"), device="cpu").float()
    features, tokens = torch.randn(1, 128, 3000), torch.tensor([[50258, 50259, 50360, 50364, 400, 500]])
    with torch.inference_mode():
        expected = theirs(features, tokens)
        got = ours(input_features=features, decoder_input_ids=tokens).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # fp32, another order of sums
    processor = WhisperProcessor.from_pretrained(found.path)
    assert processor.feature_extractor.feature_size == 128
    settings = ours.generation_config
    assert settings.is_multilingual
    assert (settings.lang_to_id["<|yue|>"], settings.no_timestamps_token_id) == (50358, 50364)

    monkeypatch.setattr("subprocess.run", None)  # a second conversion would call it
    assert resolve("path:large.pt", "whisper-judge", tmp_path).digest == found.digest


def test_an_english_model_is_known_by_its_vocabulary(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "tiny.en.pt")
    convert(tmp_path / "tiny.en.pt", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["is_multilingual"] is False
    assert settings["begin_suppress_tokens"] == [220, 50256]
    assert settings["alignment_heads"] == [[1, 0], [1, 1], [1, 2], [1, 3]]  # the upper half of the layers
    assert (
        WhisperProcessor.from_pretrained(tmp_path / "out").tokenizer.convert_tokens_to_ids("<|notimestamps|>") == 50362
    )


class Hostile:
    """Runs a command where a pickle is read without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, (f"touch {self.mark}",)


def test_a_hostile_pickle_is_refused_in_the_worker_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran"), protocol=2))
    with pytest.raises(ModelError) as refused:
        resolve("path:evil.pt", "whisper-tune", tmp_path)
    assert "evil.pt: not a file of tensors and plain values alone (it asks for posix.system)" in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache" / "models").glob("openai-whisper*"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'path:\./absent\.pt': no file .*absent\.pt; paths start at the recipe's"):
        resolve("path:./absent.pt", "whisper-tune", tmp_path)
    with pytest.raises(ModelError, match="no folder"):  # for another task it is no model at all
        resolve("path:./absent.pt", "chat", tmp_path)


def without(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    state = {key: value for key, value in checkpoint["model_state_dict"].items() if key != name}
    return {"dims": checkpoint["dims"], "model_state_dict": state}


def with_part(checkpoint: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {"dims": checkpoint["dims"], "model_state_dict": checkpoint["model_state_dict"] | {name: value}}


CONV = "encoder.conv1.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda held: held["model_state_dict"], "no dims and model_state_dict in it, but decoder.blocks.0"),
        (lambda held: [1, 2], "no dims and model_state_dict in it, but list"),
        (lambda held: {"dims": dims()}, "no dims and model_state_dict in it, but dims"),
        (lambda held: without(held, "decoder.ln.bias"), r"model_state_dict misses decoder\.ln\.bias \(1 in all\)"),
        (
            lambda held: with_part(held, "model.encoder.conv1.weight", torch.ones(1)),
            r"holds the unknown model\.encoder\.conv1\.weight",
        ),
        (lambda held: with_part(held, CONV, torch.ones(2, 3)), r"encoder\.conv1\.weight has shape \(2, 3\); dims ask"),
        (
            lambda held: with_part(held, CONV, torch.ones(1).half().expand(1 << 24, 1 << 24)),  # 0.5 PB, were it made
            r"conv1\.weight has shape \(16777216, 16777216\)",
        ),
        (lambda held: with_part(held, CONV, "weights"), r"'encoder\.conv1\.weight' is no tensor of floats"),
        (lambda held: with_part(held, CONV, torch.ones(2, dtype=torch.int8)), "is no tensor of floats"),
        (lambda held: held | {"dims": {"n_mels": 80}}, "not openai-whisper's ten sizes: n_audio_ctx"),
        (lambda held: held | {"dims": dims(n_vocab=50257)}, "n_vocab is 50257; Whisper has 51864, 51865, 51866"),
        (lambda held: held | {"dims": dims(n_text_layer=10**9)}, "n_text_layer is 1000000000; it must lie between"),
        (lambda held: held | {"dims": dims(n_mels="80")}, "n_mels is '80'"),
        (lambda held: held | {"dims": dims(n_text_state=64)}, "n_audio_state 32 isn't n_text_state"),
        (lambda held: held | {"dims": dims(n_text_head=5)}, "n_text_head is 5; it doesn't divide 32"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(
    checkpoint: dict[str, Any], tmp_path: Path, spoil: Callable[[Any], Any], message: str
) -> None:
    torch.save(spoil(checkpoint), tmp_path / "mine.pt")
    with pytest.raises(ModelError, match=rf"^mine\.pt: .*{message}"):
        convert(tmp_path / "mine.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "data", [b"", b"nothing", b"PK\x03\x04" + b"\0" * 99, pickle.dumps({"dims": 1}, protocol=2)[:9]]
)
def test_a_file_of_other_bytes_is_refused_with_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mine.pt").write_bytes(data)
    with pytest.raises(ModelError, match=r"^mine\.pt: not a file of tensors and plain values alone") as refused:
        convert(tmp_path / "mine.pt", tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_torch_load_stands_in_one_converter_and_lets_tensors_alone_through() -> None:
    root = Path(__file__).parents[3]
    calls = [
        (path.name, {word.arg: ast.unparse(word.value) for word in node.keywords}.get("weights_only"))
        for part in ("src", "kernels", "modalities")
        for path in (root / part).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls == [("convert_openai_whisper.py", "True")]
