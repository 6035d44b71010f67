"""From shards on disk to batches of pictures, captions, boxes and phrases."""
