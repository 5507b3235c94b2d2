"""Batches of images from folders, TFRecords, TFDS or the embedded photographs.

    config.data.path = "photos"
    data = load(config.data)
    for batch in train_batches(data.train, batch_size=32, seed=0):
      batch["image"]  # uint8 [32, 128, 128, 3]
      batch["index"]  # int32 [32], a hash of each image's name

Nothing here uses the network unless data.download is set.
"""

from ctx_encoder.data.batches import decode_all, train_batches, validation_batches
from ctx_encoder.data.examples import Examples, MissingData, Skipped, TooManyBadImages
from ctx_encoder.data.load import (
  Data,
  Processes,
  Summary,
  evaluation_settings,
  from_arrays,
  load,
)
from ctx_encoder.data.order import batch_indices, check_batch_size

__all__ = [
  "Data",
  "Examples",
  "MissingData",
  "Processes",
  "Skipped",
  "Summary",
  "TooManyBadImages",
  "batch_indices",
  "check_batch_size",
  "decode_all",
  "evaluation_settings",
  "from_arrays",
  "load",
  "train_batches",
  "validation_batches",
]
