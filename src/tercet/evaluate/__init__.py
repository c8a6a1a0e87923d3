"""Evaluation: base against tuned on the same frozen items, with intervals and a decision."""
