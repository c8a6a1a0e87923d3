"""Answer in this process, with a causal language model that transformers loads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tercet.backends.chat import ChatRequest, Completion
from tercet.compat import prepare_torchaudio
from tercet.errors import BackendError, MissingExtra, ModelError
from tercet.models import resolve
from tercet.records import ModelUse

TAIL_TOKENS = 16  # a stop string is looked for in so many last tokens: each has at least one character


class TransformersBackend:
    """Loads a chat model once; the same request gives the same text whatever was asked before.

    Text may differ between machines, thread counts and versions of torch, whose sums run in another order.
    """

    def __init__(self, reference: str = "auto", cores: int = 1, root: str | Path = ".") -> None:
        self.resolved = resolve(reference, "chat", root)
        self._torch, self._tokenizer, self._net = _load(self.resolved.path, self.resolved.reference, cores)
        self._num_tokens, self._seconds = 0, 0.0

    @property
    def model(self) -> ModelUse:
        """What answers, for the lineage."""
        return self.resolved.use

    @property
    def tokens_per_second(self) -> float:
        """Tokens written so far per second of decoding, prompts included; 0 before the first answer."""
        return self._num_tokens / self._seconds if self._seconds else 0.0

    def complete(self, request: ChatRequest) -> Completion:
        """Answer one request.

        Raises:
            BackendError: the prompt leaves no room in the model's context, or decoding failed.
        """
        prompt_1T = self._encode(request)
        started = time.perf_counter()
        try:
            written = self._generate(prompt_1T, request)
        except RuntimeError as error:
            raise BackendError(f"{self.resolved.reference}: decoding failed: {str(error)[:200]}") from error
        self._seconds += time.perf_counter() - started
        self._num_tokens += len(written)
        text, stopped = _cut(self._tokenizer.decode(written, skip_special_tokens=True), request.stop)
        ended = stopped or (bool(written) and written[-1] in self._ends)
        return Completion(text, "stop" if ended else "length", prompt_1T.shape[1], len(written), self.model)

    @property
    def _ends(self) -> set[int]:
        """Tokens that end an answer: the tokenizer's, and those of the model's own settings."""
        named = self._net.generation_config.eos_token_id
        more = named if isinstance(named, list) else [named]
        return {token for token in (*more, self._tokenizer.eos_token_id) if token is not None}

    def _encode(self, request: ChatRequest) -> Any:
        messages = [dict(message) for message in request.messages]
        prompt = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        room = self._net.config.max_position_embeddings - prompt.shape[1]
        if room < request.max_tokens:
            raise BackendError(
                f"{self.resolved.reference}: prompt of {prompt.shape[1]} tokens and max_tokens {request.max_tokens} "
                f"exceed the context of {self._net.config.max_position_embeddings}; shorten the prompt"
            )
        return prompt.to(self._net.device)

    def _generate(self, prompt_1T: Any, request: ChatRequest) -> list[int]:
        from transformers import GenerationConfig, StoppingCriteriaList

        torch = self._torch
        sampling = {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1.0}
        settings = GenerationConfig(
            max_new_tokens=request.max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._tokenizer.pad_token_id or min(self._ends),
            **(sampling if request.temperature > 0 else {"do_sample": False}),
        )
        # forked: the seed is the request's own, and the process's random state is left as it was
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(request.seed)
            output_1T = self._net.generate(
                prompt_1T,
                attention_mask=torch.ones_like(prompt_1T),
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([self._stopper(prompt_1T.shape[1], request.stop)]),
            )
        return [int(token) for token in output_1T[0, prompt_1T.shape[1] :]]

    def _stopper(self, prompt_length: int, stops: Any) -> Any:
        """Give the check that ends an answer at a stop string.

        transformers' own `stop_strings` took 28 ms a token here, of 90: it matches all 49,152 tokens of the vocabulary.
        """
        torch, decode = self._torch, self._tokenizer.decode

        def is_stopped(output_1T: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG001 - transformers calls it so
            text = decode(output_1T[0, max(prompt_length, output_1T.shape[1] - TAIL_TOKENS) :])
            return torch.tensor([any(stop in text for stop in stops)], device=output_1T.device)

        return is_stopped


def _load(path: Path, reference: str, cores: int) -> tuple[Any, Any, Any]:
    prepare_torchaudio()
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise MissingExtra(f"a model in this process needs {error.name!r}; run: pip install 'tercet[text]'") from error
    torch.set_num_threads(max(1, cores))
    logging.disable_progress_bar()
    has_gpu = torch.cuda.is_available()
    # a CPU without matrix units runs bf16 slower than fp32
    dtype = torch.bfloat16 if has_gpu else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        net = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model '{reference}': can't be loaded as a chat model: {str(error)[:200]}") from error
    if not tokenizer.chat_template:
        raise ModelError(f"model '{reference}': has no chat template; name an instruction-tuned model")
    return torch, tokenizer, net.to("cuda" if has_gpu else "cpu").eval()


def _cut(text: str, stops: Any) -> tuple[str, bool]:
    """Cut `text` at the first of the stop strings; say whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
