"""Images decoded in the background, by tf.data or by threads."""

import atexit
import collections
import contextlib
import functools
import itertools
import os
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ctx_encoder.data.examples import Examples
from ctx_encoder.data.tensorflow_import import INSTALL, find_tensorflow

Plan = Callable[[int], np.ndarray]  # step to positions, int32 [K]
FetchOne = Callable[[int], tuple[np.ndarray, int]]  # position to image and position
Fetched = tuple[
  np.ndarray, np.ndarray
]  # images uint8 [K, S, S, 3], positions int32 [K]


def resolve_loader(loader: str) -> str:
  """Returns tf or pillow; raises ValueError if tf is requested but not installed."""
  if loader not in ("auto", "tf", "pillow"):
    raise ValueError(f"data.loader must be auto, tf or pillow, not {loader!r}.")
  if loader == "tf" and find_tensorflow() is None:
    raise ValueError(
      f"data.loader=tf needs TensorFlow: {INSTALL}, or use data.loader=pillow."
    )
  if loader == "auto":
    return "pillow" if find_tensorflow() is None else "tf"
  return loader


def stream(
  examples: Examples,
  plan: Plan,
  *,
  start: int = 0,
  stop: int | None = None,
  fetch_one: FetchOne | None = None,
) -> Iterator[Fetched]:
  """Yields the images of each step, decoded ahead of time.

  Args:
    examples: the images; both their loaders give the same result.
    plan: step to the positions of its images, the same number at every step; called
      ahead of time and from other threads.
    start: first step.
    stop: step to stop before; None = never.
    fetch_one: reads one image that is not in memory; default `examples.fetch_one`.
  Returns:
    Iterator of images, uint8 `[K, S, S, 3]`, and their actual positions, int32 `[K]`.
    Closing it ends its threads.
  """
  if stop is not None and start >= stop:
    return iter(())
  fetch_one = fetch_one or examples.fetch_one
  if examples.loader == "pillow":
    return _thread_stream(examples, plan, start, stop, fetch_one)
  tf_stream = _tf_stream(examples, plan, start, stop, fetch_one)
  _open_tf_streams().add(tf_stream)
  return tf_stream


@functools.cache
def _open_tf_streams() -> weakref.WeakSet[Generator]:
  """Returns the set of streams that are closed at interpreter exit.

  TensorFlow's threads call Python. A call made during interpreter shutdown never
  returns, and TensorFlow would wait for it forever.
  """
  find_tensorflow()  # registers its exit functions first, so they run later
  streams: weakref.WeakSet[Generator] = weakref.WeakSet()

  def close() -> None:
    for open_stream in list(streams):
      with contextlib.suppress(ValueError):  # it is running in another thread
        open_stream.close()

  atexit.register(close)
  return streams


def _tf_stream(
  examples: Examples, plan: Plan, start: int, stop: int | None, fetch_one: FetchOne
) -> Generator[Fetched, None, None]:
  """Decodes single images in parallel and in order, then batches them."""
  tf = find_tensorflow()
  shape = (examples.image_size, examples.image_size, 3)
  batch_size = len(plan(start))
  failures: list[Exception] = []

  def python(function, types):
    """Wraps a Python function and keeps its exception, which TensorFlow replaces."""

    def call(argument):
      try:
        return function(argument)
      except Exception as error:
        failures.append(error)
        raise

    return lambda argument: tf.numpy_function(call, [argument], types)

  def indices(step):
    return tf.ensure_shape(python(lambda s: plan(int(s)), tf.int32)(step), [batch_size])

  def image(index):
    def fetch(i):
      pixels, position = fetch_one(int(i))
      return pixels, np.int32(position)

    pixels, position = python(fetch, (tf.uint8, tf.int32))(index)
    return tf.ensure_shape(pixels, shape), tf.ensure_shape(position, [])

  last = np.iinfo(np.int64).max if stop is None else stop
  dataset = tf.data.Dataset.range(start, last).map(indices)
  if examples.images is not None:
    dataset = dataset.map(python(examples.fetch, (tf.uint8, tf.int32)))
  else:
    dataset = dataset.unbatch().map(image, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size)
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = os.cpu_count() or 1
  options.threading.max_intra_op_parallelism = 1
  try:
    yield from dataset.with_options(options).prefetch(2).as_numpy_iterator()
  except BaseException as error:
    # The frames of the traceback would keep the iterator and TensorFlow's threads alive
    # after a failure or Ctrl-C: see `_open_tf_streams`.
    traceback.clear_frames(error.__traceback__)
    if failures and isinstance(error, tf.errors.OpError):
      raise failures[0] from None
    raise


def _thread_stream(
  examples: Examples, plan: Plan, start: int, stop: int | None, fetch_one: FetchOne
) -> Generator[Fetched, None, None]:
  """Decodes one batch per thread; the decoder releases the interpreter lock."""

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
