"""Evaluation: base against tuned on the same frozen items, with intervals and a decision."""

from tercet.callable_module import make_callable

make_callable(__name__, "tercet.evaluate.run:evaluate_recipe")
