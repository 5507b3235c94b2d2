"""Batches for training and validation, pure functions of the step."""

from collections.abc import Generator, Iterator

import numpy as np

from ctx_encoder.data.examples import Examples
from ctx_encoder.data.order import batch_indices, check_batch_size
from ctx_encoder.data.streams import Fetched, stream

Batch = dict[str, np.ndarray]


def train_batches(
  examples: Examples,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """Yields the batches of steps `start_step`, `start_step` + 1, ... without end.

  A step's batch depends on (seed, step) only, see `batch_indices`, so a resumed run
  gets the same batches. Closing the iterator ends its background threads.

  Args:
    examples: the training examples.
    batch_size: images per step, over all processes.
    seed: seed of the order.
    start_step: step of the first batch.
    process_index: this process; it gets its contiguous slice of each batch.
    process_count: number of processes that share a batch.
  Returns:
    Iterator of `{"image": uint8 [B, S, S, 3], "index": int32 [B]}`, where B is
    `batch_size / process_count` and `index` the ids of the examples.
  Raises:
    ValueError: the batch is larger than the data set or not divisible by the processes.
  """
  check_batch_size(len(examples), batch_size)
  mine = _process_slice(batch_size, process_index, process_count)

  def plan(step: int) -> np.ndarray:
    return batch_indices(len(examples), batch_size, seed, step)[mine]

  def batches() -> Generator[Batch, None, None]:
    steps = stream(examples, plan, start=start_step)
    for images, positions in steps:
      yield {"image": images, "index": examples.ids[positions]}

  return batches()


def validation_batches(
  examples: Examples,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """Yields every example once, in order; the last batch is padded with weight 0.

  All processes make the same number of steps. An undecodable image is replaced by
  another one with weight 0.

  Args:
    examples: the validation examples.
    batch_size: images per step, over all processes.
    process_index: this process; it gets its contiguous slice of each batch.
    process_count: number of processes that share a batch.
  Returns:
    Iterator of `{"image": uint8 [B, S, S, 3], "index": int32 [B],
    "weight": float32 [B]}`, where B is `batch_size / process_count`.
  Raises:
    ValueError: the batch is not divisible by the number of processes.
  """
  mine = _process_slice(batch_size, process_index, process_count)
  num_steps = -(-len(examples) // batch_size)

  def wanted(step: int) -> np.ndarray:
    return np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int32)[mine]

  def plan(step: int) -> np.ndarray:
    return np.minimum(wanted(step), len(examples) - 1).astype(np.int32)

  def batches() -> Generator[Batch, None, None]:
    steps = stream(examples, plan, stop=num_steps)
    for step, (images, positions) in enumerate(steps):
      # Padding and replacements are examples at a position that is not theirs.
      weight = (positions == wanted(step)).astype(np.float32)
      yield {"image": images, "index": examples.ids[positions], "weight": weight}

  return batches()


def decode_all(examples: Examples, chunk: int = 64) -> Iterator[Fetched]:
  """Decodes every example once, in order, in the background.

  Shows a progress bar on a terminal if it takes more than a second.

  Yields:
    uint8 `[K, S, S, 3]` and int32 `[K]`, the decodable images and their positions; the
    others are recorded in `examples.skipped`.
  """
  from tqdm import tqdm

  if examples.images is not None:
    yield examples.images, np.arange(len(examples), dtype=np.int32)
    return
  blank = np.zeros((examples.image_size, examples.image_size, 3), np.uint8)

  def fetch_one(index: int) -> tuple[np.ndarray, int]:
    image = examples.try_decode(index) if index < len(examples) else None
    return (blank, -1) if image is None else (image, index)

  def plan(step: int) -> np.ndarray:
    return np.arange(step * chunk, (step + 1) * chunk, dtype=np.int32)

  num_steps = -(-len(examples) // chunk)
  chunks = stream(examples, plan, stop=num_steps, fetch_one=fetch_one)
  with tqdm(
    total=len(examples),
    desc="Decoding",
    unit="image",
    delay=1,
    disable=None,
    leave=False,
  ) as progress:
    for images, positions in chunks:
      good = positions >= 0
      yield images[good], positions[good]
      progress.update(min(chunk, len(examples) - progress.n))


def _process_slice(batch_size: int, index: int, count: int) -> slice:
  if batch_size < 1 or batch_size % count:
    raise ValueError(
      f"batch_size={batch_size} must be a positive multiple of the number of processes"
      f" ({count})."
    )
  local = batch_size // count
  return slice(index * local, (index + 1) * local)
