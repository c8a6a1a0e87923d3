"""Early stop on the decoded metric: the loss of a forced answer says little about what a model writes by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tercet.errors import UsageError
from tercet.recipe import EarlyStop
from tercet.train.task import Example, OnUnits, Task, rate

if TYPE_CHECKING:
    import torch


def spread_out(examples: Sequence[Example], early_stop: EarlyStop) -> list[Example]:
    """Keep at most `examples` of them, spread evenly."""
    total, limit = len(examples), early_stop.examples
    return list(examples) if total <= limit else [examples[number * total // limit] for number in range(limit)]


@dataclass
class Watch:
    """Decodes the watched examples every so many steps and remembers the best adapter; lower is better."""

    task: Task
    settings: EarlyStop
    examples: Sequence[Example]
    best_step: int = 0
    best_score: float | None = None
    bad_looks: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.examples:
            raise UsageError(
                f"train.early_stop: share {self.settings.share:g} keeps no training record to watch; raise it, "
                "or make more records"
            )

    @property
    def is_over(self) -> bool:
        """Say whether `patience` looks in a row found nothing better."""
        return self.bad_looks >= self.settings.patience

    def look(self, model: Any, step: int, parameters: Mapping[str, torch.Tensor], on_units: OnUnits) -> float:
        """Decode, and return the primary metric per 100 units."""
        model.eval()
        answers = list(self.task.answer(model, self.examples, on_units))
        model.train()
        counted = [self.task.measure(one, said) for one, said in zip(self.examples, answers, strict=True)]
        score = rate(counted, self.task.primary_metric)
        if score is None:
            raise UsageError(f"train.early_stop: no watched example has units of {self.task.primary_metric}")
        if self.best_score is None or score < self.best_score:
            self.best_step, self.best_score, self.bad_looks = step, score, 0
            self.best = {name: value.detach().clone() for name, value in parameters.items()}
        else:
            self.bad_looks += 1
        return score

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint keeps, beside the best parameters."""
        return {"best_step": self.best_step, "best_score": self.best_score, "bad_looks": self.bad_looks}

    def restore(self, state: Mapping[str, Any], best: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self.best_step, self.best_score, self.bad_looks = (
            state[name] for name in ("best_step", "best_score", "bad_looks")
        )
        self.best = best
