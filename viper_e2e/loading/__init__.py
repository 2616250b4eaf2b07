"""loading: clips from shards and files to decoded batches, in the order of an epoch."""
