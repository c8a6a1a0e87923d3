"""Gates for speech (not yet written; the plan is in docs/status/2.md)."""
