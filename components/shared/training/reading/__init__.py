"""How a batch is put together from shards: pixels, or random crops of pictures that are kept as JPEG."""
