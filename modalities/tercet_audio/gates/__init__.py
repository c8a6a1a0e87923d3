"""The gates of a clip, on clean audio before any augmentation: they find broken clips, and say nothing of beauty."""
