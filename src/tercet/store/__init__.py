"""What a run keeps on disk: the journal, staged blobs, shards, the manifest, and the lock."""
