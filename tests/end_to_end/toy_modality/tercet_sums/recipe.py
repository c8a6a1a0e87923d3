"""What a recipe says about sums."""

from __future__ import annotations

from pydantic import Field

from tercet.recipe import Section


class AtMostGate(Section):
    """Rejects a sum whose answer is above the limit."""

    limit: int = Field(10, ge=0)


class TwiceGate(Section):
    """Rejects an answer that an earlier sum already has."""

    answers: int = Field(3, ge=1, description="how often one answer may occur")


class SumsGates(Section):
    """The gates of a sum; null switches one off."""

    at_most: AtMostGate | None = AtMostGate()
    twice: TwiceGate | None = TwiceGate()


class SumsRecipe(Section):
    """Sums of two numbers."""

    quota: int = Field(ge=1)
    gates: SumsGates = SumsGates()
