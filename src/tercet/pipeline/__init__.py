"""From plan to shards: stages, workers, the run that resumes by itself, and the preview."""
