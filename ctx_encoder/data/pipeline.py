"""Batches made in the background: by tf.data, or by threads where it is missing."""

import atexit
import collections
import contextlib
import functools
import itertools
import os
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ctx_encoder.data.examples import Examples
from ctx_encoder.data.order import batch_indices, check_batch_size
from ctx_encoder.data.tensorflow_import import find_tensorflow

Batch = dict[str, np.ndarray]
Fetched = tuple[np.ndarray, np.ndarray]  # uint8 [K, S, S, 3], positions int32 [K]


def train_batches(
  examples: Examples,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  loader: str = "auto",
) -> Iterator[Batch]:
  """Yields the batches of steps `start_step`, `start_step` + 1, ... without end.

  What a step gets is a function of (seed, step) alone, see `batch_indices`: a run that
  is resumed sees what it would have seen. Background threads end when the iterator is
  closed.

  Args:
    examples: the training examples.
    batch_size: images a step, over all processes.
    seed: seed of the order.
    start_step: step of the first batch.
    process_index: this process, whose contiguous slice of each batch is made.
    process_count: number of processes that share a batch.
    loader: tf, pillow, or auto = as the examples were loaded.
  Returns:
    Iterator of `{"image": uint8 [B, S, S, 3], "index": int32 [B]}`, where B is
    `batch_size / process_count` and index the id of each example.
  Raises:
    ValueError: the batch is larger than the data set or cannot be shared.
  """
  check_batch_size(len(examples), batch_size)
  mine = _process_slice(batch_size, process_index, process_count)

  def plan(step: int) -> np.ndarray:
    return batch_indices(len(examples), batch_size, seed, step)[mine]

  def batches() -> Iterator[Batch]:
    steps = _stream(examples, plan, start_step, None, _loader(examples, loader))
    for images, positions in steps:
      yield {"image": images, "index": examples.ids[positions]}

  return batches()


def validation_batches(
  examples: Examples,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  loader: str = "auto",
) -> Iterator[Batch]:
  """Yields every example once, in order; the last batch is filled with weight 0.

  All processes make the same number of steps. A picture that cannot be decoded is
  there with another one's pixels and weight 0.

  Args:
    examples: the validation examples.
    batch_size: images a step, over all processes.
    process_index: this process, whose contiguous slice of each batch is made.
    process_count: number of processes that share a batch.
    loader: tf, pillow, or auto = as the examples were loaded.
  Returns:
    Iterator of `{"image": uint8 [B, S, S, 3], "index": int32 [B],
    "weight": float32 [B]}`, where B is `batch_size / process_count`.
  Raises:
    ValueError: the batch cannot be shared by the processes.
  """
  mine = _process_slice(batch_size, process_index, process_count)
  num_steps = -(-len(examples) // batch_size)

  def wanted(step: int) -> np.ndarray:
    return np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int32)[mine]

  def plan(step: int) -> np.ndarray:
    return np.minimum(wanted(step), len(examples) - 1).astype(np.int32)

  def batches() -> Iterator[Batch]:
    steps = _stream(examples, plan, 0, num_steps, _loader(examples, loader))
    for step, (images, positions) in enumerate(steps):
      # Filling repeats the last example, so that it stands where it does not belong.
      weight = (positions == wanted(step)).astype(np.float32)
      yield {"image": images, "index": examples.ids[positions], "weight": weight}

  return batches()


def decode_all(examples: Examples, chunk: int = 64) -> Iterator[Fetched]:
  """Decodes every example once, in order, in the background.

  Shows a progress bar on a terminal, where it takes more than a second.

  Yields:
    uint8 `[K, S, S, 3]` and int32 `[K]`, the pictures that could be decoded and their
    positions; the others are put down in `examples.skipped`.
  """
  from tqdm import tqdm

  blank = np.zeros((examples.image_size, examples.image_size, 3), np.uint8)

  def fetch_one(index: int) -> tuple[np.ndarray, int]:
    image = examples.try_decode(index) if index < len(examples) else None
    return (blank, -1) if image is None else (image, index)

  def plan(step: int) -> np.ndarray:
    return np.arange(step * chunk, (step + 1) * chunk, dtype=np.int32)

  num_steps = -(-len(examples) // chunk)
  stream = _stream(examples, plan, 0, num_steps, examples.loader, fetch_one)
  with tqdm(
    total=len(examples),
    desc="Decoding",
    unit="image",
    delay=1,
    disable=None,
    leave=False,
  ) as progress:
    for images, positions in stream:
      good = positions >= 0
      yield images[good], positions[good]
      progress.update(min(chunk, len(examples) - progress.n))


def resolve_loader(loader: str) -> str:
  """Returns tf or pillow; raises ValueError for tf where it is not installed."""
  if loader not in ("auto", "tf", "pillow"):
    raise ValueError(f"data.loader must be auto, tf or pillow, not {loader!r}.")
  if loader == "tf" and find_tensorflow() is None:
    raise ValueError(
      "data.loader=tf needs TensorFlow: pip install tensorflow-cpu, or use"
      " data.loader=pillow."
    )
  if loader == "auto":
    return "pillow" if find_tensorflow() is None else "tf"
  return loader


def _loader(examples: Examples, loader: str) -> str:
  return examples.loader if loader == "auto" else resolve_loader(loader)


def _process_slice(batch_size: int, index: int, count: int) -> slice:
  if batch_size < 1 or batch_size % count:
    raise ValueError(
      f"batch_size={batch_size} must be a positive multiple of the number of processes"
      f" ({count})."
    )
  local = batch_size // count
  return slice(index * local, (index + 1) * local)


def _stream(
  examples: Examples,
  plan: Callable[[int], np.ndarray],
  start: int,
  stop: int | None,
  loader: str,
  fetch_one: Callable[[int], tuple[np.ndarray, int]] | None = None,
) -> Iterator[Fetched]:
  """Yields the pictures that `plan(step)` names, for step from `start` to `stop`."""
  if stop is not None and start >= stop:
    return iter(())
  arguments = (examples, plan, start, stop, fetch_one or examples.fetch_one)
  if loader == "pillow":
    return _thread_stream(*arguments)
  stream = _tf_stream(*arguments)
  _open_tf_streams().add(stream)
  return stream


@functools.cache
def _open_tf_streams() -> weakref.WeakSet:
  """Returns the streams to be closed before Python ends.

  TensorFlow's threads call Python. One that does so while Python shuts down never
  returns, and TensorFlow would wait for it.
  """
  find_tensorflow()  # its own exit functions are registered first, and so run later
  streams = weakref.WeakSet()

  def close() -> None:
    for stream in list(streams):
      with contextlib.suppress(ValueError):  # another thread is at work in it
        stream.close()

  atexit.register(close)
  return streams


def _tf_stream(examples, plan, start, stop, fetch_one) -> Iterator[Fetched]:
  """Reads and decodes one picture a call, in parallel and in order, then batches."""
  tf = find_tensorflow()
  shape = (examples.image_size, examples.image_size, 3)
  batch_size = len(plan(start))
  failures: list[Exception] = []

  def python(function, types):
    """Wraps a Python function; its exception shall not drown in TensorFlow's."""

    def call(argument):
      try:
        return function(argument)
      except Exception as error:
        failures.append(error)
        raise

    return lambda argument: tf.numpy_function(call, [argument], types)

  def indices(step):
    return tf.ensure_shape(python(lambda s: plan(int(s)), tf.int32)(step), [batch_size])

  def picture(index):
    def fetch(i):
      image, position = fetch_one(int(i))
      return image, np.int32(position)

    image, position = python(fetch, (tf.uint8, tf.int32))(index)
    return tf.ensure_shape(image, shape), tf.ensure_shape(position, [])

  last = np.iinfo(np.int64).max if stop is None else stop
  dataset = tf.data.Dataset.range(start, last).map(indices)
  if examples.images is not None:
    dataset = dataset.map(python(examples.fetch, (tf.uint8, tf.int32)))
  else:
    dataset = dataset.unbatch().map(picture, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size)
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = os.cpu_count() or 1
  options.threading.max_intra_op_parallelism = 1
  try:
    yield from dataset.with_options(options).prefetch(2).as_numpy_iterator()
  except BaseException as error:
    # Frames of a traceback would keep the iterator, and with it TensorFlow's threads,
    # after a failure or Ctrl-C: see `_open_tf_streams`.
    traceback.clear_frames(error.__traceback__)
    if failures and isinstance(error, tf.errors.OpError):
      raise failures[0] from None
    raise


def _thread_stream(examples, plan, start, stop, fetch_one) -> Iterator[Fetched]:
  """Does the same with threads, a batch each: the decoder releases Python's lock."""

  def produce(step: int) -> Fetched:
    if examples.images is not None:
      return examples.fetch(plan(step))
    images, positions = zip(*map(fetch_one, map(int, plan(step))), strict=True)
    return np.stack(images), np.array(positions, np.int32)

  workers = min(os.cpu_count() or 1, 8)
  steps = itertools.count(start) if stop is None else range(start, stop)
  pool = ThreadPoolExecutor(workers, thread_name_prefix="data")
  ahead = collections.deque()
  try:
    for step in steps:
      ahead.append(pool.submit(produce, step))
      if len(ahead) > workers:
        yield ahead.popleft().result()
    while ahead:
      yield ahead.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
