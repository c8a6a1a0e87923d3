"""What a person reads of a run. The page's template and the dataset card are not written yet (docs/status/2.md)."""
