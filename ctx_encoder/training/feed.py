"""Feeds batches to the step, from images on the device or from the host."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ctx_encoder import data, distributed, xla
from ctx_encoder.config import Config
from ctx_encoder.training.gradients import Metrics
from ctx_encoder.training.state import TrainState
from ctx_encoder.training.step import TrainStep

# Share of a device's memory that images may take; larger sets are fed from the host.
_DEVICE_SHARE = 0.25
_DEVICE_BYTES = 16 * 2**30  # if the device does not report its memory

# Makes one or several steps; metrics are `[steps]` each. The state is donated.
Dispatch = Callable[[TrainState], tuple[TrainState, Metrics]]


def load_images(config: Config, say: Callable[[str], None]) -> data.Data:
  """Loads the training and validation images and reports what they are.

  Several processes share the work of decoding them.

  Raises:
    ValueError: too few images for a batch, or too many unusable ones.
    FileNotFoundError: there is no such folder or data set.
  """
  processes = None
  if (count := jax.process_count()) > 1:
    processes = data.Processes(jax.process_index(), count, distributed.gather)
  loaded = data.load(config.data, processes=processes)
  for line in (loaded.summary.notice, loaded.summary.skipped_line()):
    if line:
      say(line)
  say(
    f"{len(loaded.train)} training and {len(loaded.validation)} validation images"
    f" from {loaded.summary.where}{loaded.train.how}."
  )
  data.check_batch_size(len(loaded.train), config.batch_size)
  return loaded


def dispatches(
  config: Config,
  step_function: TrainStep,
  examples: data.Examples,
  key: jax.Array,
  mesh: Mesh,
  *,
  state_sharding: Any,
  start: int,
  stop: int,
) -> Generator[tuple[int, Dispatch], None, None]:
  """Yields (last step of the dispatch, dispatch) until `stop`.

  A step's batch depends only on (config.seed, step). Close the iterator to end its
  background threads.

  Args:
    config: batch size, seed, steps per dispatch and placement of the images.
    step_function: the training step.
    examples: the training images.
    key: PRNG key, replicated over the mesh.
    mesh: the devices.
    state_sharding: of the state that a dispatch takes and returns.
    start, stop: steps before and after.
  """
  feed = _from_device if on_device(config, examples) else _from_host
  place = mesh, state_sharding
  return feed(config, step_function, examples, key, *place, start, stop)


def on_device(config: Config, examples: data.Examples) -> bool:
  """Returns whether to keep the images on the device.

  Raises:
    ValueError: data.placement=device, but the images are not kept in memory.
  """
  placement = config.data.placement
  if placement == "device" and examples.images is None:
    raise ValueError("data.placement=device needs data.cache=memory.")
  if placement != "auto":
    return placement == "device"
  memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
  room = (memory or _DEVICE_BYTES) * _DEVICE_SHARE
  return examples.images is not None and examples.nbytes <= room


def make_one(step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns a step with metrics `[1]` each."""

  def one(state, batch, key):
    state, measured = step(state, batch, key)
    return state, {name: value[None] for name, value in measured.items()}

  return one


def make_dispatch(step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns a function that makes several steps with images on the device.

  `dispatch(state, images, ids, rows, key)` takes uint8 images `[N, H, W, 3]`, int32 ids
  `[N]` and the rows of each step's batch, int32 `[K, B]`; its metrics are `[K]` each.
  """

  def dispatch(state, images, ids, rows, key):
    def batch(rows):
      return {"image": images[rows], "index": ids[rows]}

    # Not a scan of length 1: XLA's CPU backend runs loops on one thread.
    if rows.shape[0] == 1:
      return make_one(step)(state, batch(rows[0]), key)
    return lax.scan(lambda state, rows: step(state, batch(rows), key), state, rows)

  return dispatch


def _from_device(
  config, step_function, examples, key, mesh, state_sharding, start, stop
):
  usual = 1 if distributed.platform(mesh) == "cpu" else 8
  per_call = config.steps_per_dispatch or usual
  compiled = jitted(make_dispatch(step_function), mesh, state_sharding)
  images, ids = distributed.put(mesh, (examples.images, examples.ids))
  epoch_steps = len(examples) // config.batch_size
  step = start
  while step < stop:
    # No call crosses the end of an epoch, so a resumed run makes the same calls. The
    # rest of an epoch goes step by step, since each length is compiled separately.
    end = min(step + per_call, stop, step - step % epoch_steps + epoch_steps)
    if end - step < per_call:
      end = step + 1
    rows = [
      data.batch_indices(len(examples), config.batch_size, config.seed, at)
      for at in range(step, end)
    ]
    mine = np.split(np.stack(rows), jax.process_count(), axis=1)[jax.process_index()]
    rows = distributed.put(mesh, mine, axis=1)
    yield end, lambda state, rows=rows: compiled(state, images, ids, rows, key)
    step = end


def _from_host(config, step_function, examples, key, mesh, state_sharding, start, stop):
  compiled = jitted(make_one(step_function), mesh, state_sharding)
  batches = data.train_batches(
    examples,
    batch_size=config.batch_size,
    seed=config.seed,
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  with contextlib.closing(batches):
    for step in range(start, stop):
      batch = distributed.put(mesh, next(batches), axis=0)
      yield step + 1, lambda state, batch=batch: compiled(state, batch, key)


def jitted(function: Callable, mesh: Mesh, state_sharding: Any) -> Any:
  """Returns a dispatch or a step jitted for the devices, with its state donated."""
  return jax.jit(
    function,
    donate_argnums=0,
    out_shardings=(state_sharding, None),
    compiler_options=xla.options(distributed.platform(mesh)),
  )
