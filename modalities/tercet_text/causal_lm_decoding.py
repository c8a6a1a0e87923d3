"""Greedy decoding in batches of one size, with what all prompts of a batch begin with computed once.

B: prompts, T: tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tercet_text.causal_lm_chat import ChatFormat

BATCH_SIZE = 16
LEAST_SHARED = 16  # tokens: below this, a forward for the common beginning costs more than it saves


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote; `is_whole` where it ended by itself, not at the most tokens that it was given."""

    text: str
    is_whole: bool = True


class Decoder:
    """Writes answers with a causal language model, bare or with an adapter."""

    def __init__(self, model: Any, form: ChatFormat) -> None:
        self.model, self.form = base_of(model), form

    def write(self, prompts: Sequence[Sequence[int]], most: int) -> list[Written]:
        """Answer at most `BATCH_SIZE` prompts with at most `most` tokens each.

        The batch is filled up with the last prompt, so that its size never depends on how many are left.
        """
        filled = [*prompts, *[prompts[-1]] * (BATCH_SIZE - len(prompts))]
        return [
            Written(self.form.read(ids), is_whole=not self.form.ends.isdisjoint(ids))
            for ids in self._decode(filled, most)[: len(prompts)]
        ]

    def _decode(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        import torch
        from transformers import DynamicCache

        model, device = self.model, self.model.device
        ends = torch.tensor(sorted(self.form.ends), device=device)
        written: list[torch.Tensor] = []
        with torch.no_grad():
            cache = DynamicCache(config=model.config)
            head = common(prompts)
            if head < LEAST_SHARED:
                head = 0
            else:
                ids_1T = torch.tensor([prompts[0][:head]], device=device)
                model.base_model(ids_1T, past_key_values=cache, use_cache=True)
                cache.batch_repeat_interleave(len(prompts))
            ids_BT, mask_BT = _padded([prompt[head:] for prompt in prompts], device)
            mask_BT = torch.cat([torch.ones(len(prompts), head, dtype=torch.long, device=device), mask_BT], 1)
            positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, head:]
            is_over_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
            for _ in range(most):
                hidden_BTD = model.base_model(
                    ids_BT,
                    attention_mask=mask_BT,
                    position_ids=positions_BT,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
                next_B = model.get_output_embeddings()(hidden_BTD[:, -1]).argmax(-1)
                next_B = torch.where(is_over_B, ends[0], next_B)
                written.append(next_B)
                is_over_B |= torch.isin(next_B, ends)
                if bool(is_over_B.all()):
                    break
                ids_BT, positions_BT = next_B[:, None], positions_BT[:, -1:] + 1
                mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(prompts), 1)], 1)
        result: list[list[int]] = torch.stack(written, 1).tolist()
        return result


def base_of(model: Any) -> Any:
    """Give the transformers model inside one with an adapter; its layers carry the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def common(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with; of each at least one is left."""
    most = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    return next((at for at in range(most) if any(prompt[at] != first[at] for prompt in prompts)), most)


def _padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """Pad on the left: ids_BT and the mask of what is no padding."""
    import torch

    longest = max(len(row) for row in rows)
    ids = [[*[0] * (longest - len(row)), *row] for row in rows]
    mask = [[*[0] * (longest - len(row)), *[1] * len(row)] for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
