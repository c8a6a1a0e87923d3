"""Pictures with questions as a vision-language model reads them, through its own processor and chat template.

B: rows of a batch, T: tokens, N: tokens whose loss counts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tercet.errors import CorruptError, ModelError
from tercet_image.photo import FORMATS

if TYPE_CHECKING:
    import torch

TOKENS = ("input_ids", "attention_mask")
PROBE_SIZE = (64, 64)


class Reader:
    """A model's processor, with what the model itself expects of it."""

    def __init__(self, model: Any, path: Path) -> None:
        from jinja2 import TemplateError
        from transformers import AutoProcessor

        self.model, self.name, self.path = model, path.name, path
        try:
            self.processor = AutoProcessor.from_pretrained(path)
            self.processor.tokenizer.padding_side = "left"
            self.prompt("")
        except (OSError, ValueError, KeyError, AttributeError, TypeError, TemplateError) as error:
            raise ModelError(
                f"{path}: no processor with a chat template: {str(error)[:200]}; name a base whose folder holds "
                "preprocessor, tokenizer and chat template"
            ) from error
        config = model.config
        image_token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        self.image_token = self._needed(image_token, "image token", "image_token_id into config.json")
        text = config.get_text_config()
        self.context = int(text.max_position_embeddings)
        ends = model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        tokenizer = self.processor.tokenizer
        self.end = self._needed(tokenizer.eos_token_id, "end token", "eos_token into tokenizer_config.json")
        self._needed(tokenizer.pad_token_id, "pad token", "pad_token into tokenizer_config.json")
        self.ends = {self.end, *(int(one) for one in listed if one is not None)}
        self._picture_tokens: dict[tuple[int, int], tuple[int, int]] = {}

    def _needed(self, token: int | None, name: str, entry: str) -> int:
        if token is None:
            raise ModelError(f"{self.path}: no {name}; write {entry}, or name another train.base")
        return int(token)

    def try_asking(self) -> None:
        """Ask and answer once, so that an odd processor shows before any training.

        Raises:
            ModelError: it can't be asked about a picture; the text says why.
        """
        from jinja2 import TemplateError

        try:
            self.ask([Image.new("RGB", PROBE_SIZE)], ["What?"])
            self.answer_tokens("What?", "yes")
        except (ValueError, KeyError, AttributeError, TypeError, TemplateError) as error:
            raise ModelError(
                f"{self.path}: it can't be asked about a picture: {str(error)[:200]}; name another train.base"
            ) from error

    def prompt(self, question: str) -> str:
        """Write a question about a picture, up to where the answer begins."""
        text: str = self.processor.apply_chat_template([_asked(question)], add_generation_prompt=True, tokenize=False)
        return text

    def answer_tokens(self, question: str, answer: str) -> list[int]:
        """Give the tokens that the model is to write: the answer and one end token."""
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole: str = self.processor.apply_chat_template([_asked(question), said], tokenize=False)
        prompt = self.prompt(question)
        if not whole.startswith(prompt):
            raise ModelError(f"{self.name}: its chat template doesn't put an answer behind its prompt: {whole[:120]!r}")
        tokens = self._plain(whole.removeprefix(prompt))
        ends = [at for at, token in enumerate(tokens) if token in self.ends]
        return tokens[: ends[0] + 1] if ends else [*tokens, self.end]

    def size(self, picture: Image.Image, question: str) -> int:
        """Count the tokens of a prompt, the picture's among them.

        Raises:
            ModelError: the processor gives the picture more or fewer tokens than the model has features for it.
        """
        return len(self._plain(self.prompt(question))) + self._measured(picture)[1]

    def ask(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], multiple: int = 1
    ) -> dict[str, torch.Tensor]:
        """Make the model's inputs for questions, each about one picture, padded on the left to a multiple of tokens.

        Raises:
            ModelError: there are no pixel values, or not one image token for each of the model's features.
        """
        prompts = [self.prompt(question) for question in questions]
        found = self.processor(
            images=[[one] for one in pictures],
            text=prompts,
            padding=True,
            pad_to_multiple_of=multiple,
            return_tensors="pt",
        )
        inputs = {name: value.to(self.model.device) for name, value in found.items()}
        self._check(inputs, [self._measured(picture)[0] for picture in pictures])
        return inputs

    def teach(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Make a training batch: `inputs`, padded on the right, where the counted tokens are predicted, and which."""
        import torch

        asked = self.ask(pictures, questions)
        shape = asked["input_ids"].shape
        is_real_BT = asked["attention_mask"].bool()
        rows = [[*asked["input_ids"][at][is_real_BT[at]].tolist(), *answer] for at, answer in enumerate(answers)]
        longest = max(len(row) for row in rows)
        inputs = {name: value for name, value in asked.items() if name not in TOKENS}
        for name, value in asked.items():
            if name not in TOKENS and value.shape == shape:  # what kind of token each is: an answer's are text, 0
                inputs[name] = _right([value[at][is_real_BT[at]].tolist() for at in range(len(rows))], longest, value)
        inputs["input_ids"] = _right(rows, longest, asked["input_ids"])
        inputs["attention_mask"] = _right([[1] * len(row) for row in rows], longest, asked["attention_mask"])
        sources = [
            at * longest + place - 1
            for at, (row, answer) in enumerate(zip(rows, answers, strict=True))
            for place in range(len(row) - len(answer), len(row))
        ]
        targets = [token for answer in answers for token in answer]
        device = self.model.device
        return {
            "inputs": inputs,
            "sources_N": torch.tensor(sources, device=device),
            "targets_N": torch.tensor(targets, device=device),
        }

    def read(self, tokens_BT: torch.Tensor) -> list[str]:
        """Turn what was generated into text."""
        texts = self.processor.batch_decode(tokens_BT, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _plain(self, text: str) -> list[int]:
        """Tokenise without the processor: a picture is one token."""
        found: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _measured(self, picture: Image.Image) -> tuple[int, int]:
        """Give a picture's features in the model, and what it adds to a prompt's tokens: a matter of its size alone."""
        import torch

        if picture.size in self._picture_tokens:
            return self._picture_tokens[picture.size]
        prompt = self.prompt("")
        found = self.processor(images=[[picture]], text=[prompt], return_tensors="pt")
        inputs = {name: value.to(self.model.device) for name, value in found.items()}
        of_picture = {
            name: value
            for name, value in inputs.items()
            if name not in TOKENS and value.shape != found["input_ids"].shape
        }
        self._check(inputs, None)
        with torch.no_grad():
            features = self.model.get_image_features(**of_picture).pooler_output
        count = sum(len(one) for one in features)
        self._check(inputs, [count])
        result = (count, inputs["input_ids"].shape[1] - len(self._plain(prompt)))
        self._picture_tokens[picture.size] = result
        return result

    def _check(self, inputs: Mapping[str, torch.Tensor], expected: Sequence[int] | None) -> None:
        if inputs.get("pixel_values") is None:
            raise ModelError(
                f"{self.name}: its processor gives no pixel_values, so the model would answer without the picture; "
                "name a base with an image processor"
            )
        if expected is None:
            return
        counted = (inputs["input_ids"] == self.image_token).sum(1).tolist()
        for held, wanted in zip(counted, expected, strict=True):
            if held != wanted:
                raise ModelError(
                    f"{self.name}: its processor gives a picture {held} image tokens, and the model has {wanted} "
                    "features for it; mend patch_size and vision_feature_select_strategy in its processor's files"
                )


def open_picture(data: bytes | None, name: str) -> Image.Image:
    """Decode a record's picture.

    Raises:
        CorruptError: there is none, or it can't be decoded; `name` says whose it is.
    """
    if not data:
        raise CorruptError(f"record {name}: it holds no picture, so there are no pixel values; make the data again")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's for broken bytes
        raise CorruptError(f"record {name}: its picture can't be decoded ({error}); make the data again") from error


def base_of(model: Any) -> Any:
    """Give the model inside one with an adapter; its layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _asked(question: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}


def _right(rows: Sequence[Sequence[int]], longest: int, like: torch.Tensor) -> torch.Tensor:
    """Pad rows with zeros on the right."""
    import torch

    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=like.dtype, device=like.device)
