"""Pictures from folders, TFRecords, TFDS or the embedded photographs, as batches.

    data = load(path="photos", image_size=128)
    for batch in train_batches(data.train, batch_size=32, seed=0):
      batch["image"]  # uint8 [32, 128, 128, 3]
      batch["index"]  # int32 [32], an id of each picture: a hash of its name

Nothing here touches the network unless `download` is asked for.
"""

from ctx_encoder.data.batches import decode_all, train_batches, validation_batches
from ctx_encoder.data.examples import Examples, Skipped, TooManyBadImages
from ctx_encoder.data.load import Data, Processes, Summary, from_arrays, load
from ctx_encoder.data.order import batch_indices, check_batch_size

__all__ = [
  "Data",
  "Examples",
  "Processes",
  "Skipped",
  "Summary",
  "TooManyBadImages",
  "batch_indices",
  "check_batch_size",
  "decode_all",
  "from_arrays",
  "load",
  "train_batches",
  "validation_batches",
]
