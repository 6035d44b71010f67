"""From shards on disk to batches of images, captions, boxes and phrases."""
