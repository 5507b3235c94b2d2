"""One training step, as a pure function.

The batch is `{"image": uint8 [B, H, W, 3], "index": int32 [B]}`; augmenting, masking
and normalizing happen in the step, on the device.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from ctx_encoder import augment as augmentation
from ctx_encoder import distributed, masks, pixels
from ctx_encoder.config import Config
from ctx_encoder.models import precision
from ctx_encoder.training import gradients, keys
from ctx_encoder.training.gradients import Metrics
from ctx_encoder.training.optimizer import Slices, map_slices, padded, trainable
from ctx_encoder.training.setup import Optimizers, Run
from ctx_encoder.training.state import NetworkState, PyTree, TrainState
from ctx_encoder.training.task import Examples

Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


class Gradients(NamedTuple):
  """Gradients and running statistics of both networks.

  Those of the discriminator are None where it is not trained. `updated` is the
  discriminator after its update where that came first.
  """

  generator: PyTree
  generator_stats: PyTree
  discriminator: PyTree | None
  discriminator_stats: PyTree | None
  metrics: Metrics
  updated: NetworkState | None = None


def make_train_step(
  run: Run,
  optimizers: Optimizers,
  *,
  axis_name: str | None = None,
  mesh: Mesh | None = None,
) -> TrainStep:
  """Returns `step(state, batch, key) -> (state, metrics)`, to be jitted or pmapped.

  With update_order=simultaneous both gradients are taken at the same parameters, from
  one pair of forward passes; with alternating the discriminator is updated first. With
  `accumulate` the gradients are means over parts of the batch.

  Args:
    run: networks, losses, holes, augmentation and configuration.
    optimizers: the update rules.
    axis_name: the axis of `jax.pmap`, if that runs the step. Gradients, statistics and
      metrics are averaged over it.
    mesh: the devices. With sharding=sharded each holds a part of the parameters, which
      the step gathers before it uses them.

  Returns:
    The step, whose `key` is always the same: the state's step is folded into it. The
    metrics are float32 scalars.
  """
  config = run.config
  if config.update_order == "alternating" and config.accumulate > 1:
    raise ValueError("accumulate above 1 needs update_order=simultaneous.")
  gather = _make_gather(run, mesh)
  if axis_name:
    run = run.over_axis(axis_name)
  step = precision.on_cpus(
    lambda run: _make_step(run, optimizers, axis_name, gather), run, run.in_float32()
  )
  return skip_nonfinite(step) if config.on_nonfinite == "skip" else step


def _make_step(
  run: Run,
  optimizers: Optimizers,
  axis_name: str | None,
  gather: Callable[[TrainState], TrainState],
) -> TrainStep:
  config = run.config

  def average(tree):
    return lax.pmean(tree, axis_name) if axis_name else tree

  def step(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    position = keys.positions(batch["image"].shape[0], axis_name)

    def update(grads: PyTree, stats: PyTree) -> NetworkState:
      own, rule = state.discriminator, optimizers.discriminator
      return apply_updates(own, average(grads), stats, rule)

    def whole_update(grads: PyTree, stats: PyTree) -> NetworkState:
      return gather(state.replace(discriminator=update(grads, stats))).discriminator

    if config.update_order == "alternating":
      found = both_grads(run, gather(state), batch, key, position, whole_update)
    else:
      found = _accumulated(run, gather(state), batch, key, position)
    grads = average(found.generator)
    generator = apply_updates(
      state.generator, grads, found.generator_stats, optimizers.generator
    )
    discriminator = found.updated or state.discriminator
    if found.discriminator is not None and not found.updated:
      discriminator = update(found.discriminator, found.discriminator_stats)
    measured = found.metrics
    if config.log.grad_norms:
      measured |= _grad_norms(grads, average(found.discriminator))
    return _after(config, state, generator, discriminator), average(measured)

  return step


def _make_gather(run: Run, mesh: Mesh | None) -> Callable[[TrainState], TrainState]:
  """Returns the function that gathers parameters that devices hold in parts.

  Left to itself XLA splits layers over the devices as their parameters are, and
  exchanges activations, which are larger. Of the generator's partly trained parameters
  only the trainable slices are gathered; the rest, which has no effect, is 0.
  """
  if mesh is None or run.config.sharding == "replicated":
    return lambda state: state

  def whole(tree: PyTree) -> PyTree:
    return lax.with_sharding_constraint(tree, distributed.replicated(mesh))

  def part(x: jax.Array, slices: Slices, sharded: jax.Array) -> jax.Array:
    if slices is None:
      return x
    return padded(whole(sharded[slices]), slices, sharded.shape)

  def gather(state: TrainState) -> TrainState:
    generator, discriminator = state.generator, state.discriminator
    params = generator.params
    params = map_slices(part, whole(params), trainable(run.generator), params)
    return state.replace(
      generator=generator.replace(params=params),
      discriminator=discriminator.replace(params=whole(discriminator.params)),
    )

  return gather


def _grad_norms(generator: PyTree, discriminator: PyTree | None) -> Metrics:
  """Returns the norms of both gradients, as metrics; None = not trained."""
  norms = {"grad_norm/generator": optax.tree.norm(generator)}
  if discriminator is not None:
    norms["grad_norm/discriminator"] = optax.tree.norm(discriminator)
  return norms


def _after(
  config: Config,
  state: TrainState,
  generator: NetworkState,
  discriminator: NetworkState,
) -> TrainState:
  """Returns the state after a step, of networks that are updated already."""
  return TrainState(
    step=state.step + 1,
    updates=state.updates + config.accumulate,
    generator=generator,
    discriminator=discriminator,
    average=_moved(state, generator.params, config.ema_decay),
  )


def apply_updates(
  network: NetworkState,
  grads: PyTree,
  batch_stats: PyTree,
  optimizer: optax.GradientTransformation,
) -> NetworkState:
  """Returns a network after one step of its optimizer."""
  updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return NetworkState(params, batch_stats, opt_state)


def both_grads(
  run: Run,
  state: TrainState,
  batch: Batch,
  key: jax.Array,
  position: jax.Array,
  update: Callable[[PyTree, PyTree], NetworkState] | None = None,
) -> Gradients:
  """Differentiates both losses.

  Args:
    run: networks and losses.
    state: the networks' states.
    batch: images and their indices.
    key: PRNG key of this step.
    position: `[B]` positions of the examples in the global batch.
    update: the discriminator's gradient and running statistics to its new state, which
      the generator's loss then uses; None = both gradients are taken at the same
      parameters, from one pair of forward passes.
  """
  examples = training_examples(run, batch, key, position)
  dropout_keys = keys.per_example(keys.stream(key, "dropout"), position)
  generated = gradients.generate(run.generator, state.generator, examples, dropout_keys)
  generator_grads = functools.partial(
    gradients.generator_grads,
    generated,
    run.objective,
    examples,
    state.step,
    gradients.features(run.discriminator, state.discriminator, examples.mask),
    norms=run.config.log.grad_norms,
  )
  if not run.objective.uses("adversarial"):
    grads, measured = generator_grads()
    return Gradients(grads, generated.batch_stats, None, None, measured)
  network, objective = run.discriminator, run.objective
  shown = gradients.show(objective, examples, generated.outputs, key, position)
  passes = gradients.discriminate(network, state.discriminator, shown, objective)
  slopes, own = gradients.discriminator_grads(
    network, state.discriminator, objective, passes, key, state.step
  )
  updated, stats = None, passes.batch_stats
  if update:
    updated = update(slopes, stats)
    passes = gradients.discriminate(network, updated, shown, objective)
  grads, measured = generator_grads(passes)
  measured = own | measured
  return Gradients(grads, generated.batch_stats, slopes, stats, measured, updated)


def skip_nonfinite(step: TrainStep) -> TrainStep:
  """Returns a step that changes nothing where its result is not finite.

  Where a metric or any value of the new state is infinite or NaN, only the step number
  changes. The metrics get "skipped", 0 or 1.
  """

  def guarded(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    after, measured = step(state, batch, key)
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((measured, after))]
    good = jnp.all(jnp.stack(finite))
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
    skipped = 1 - good.astype(jnp.float32)
    return kept.replace(step=after.step), measured | {"skipped": skipped}

  return guarded


def training_examples(
  run: Run, batch: Batch, key: jax.Array, position: jax.Array
) -> Examples:
  """Returns the batch augmented, masked and normalized."""
  images = augmentation.for_examples(
    run.augment,
    keys.stream(key, "augment"),
    position,
    pixels.from_uint8(batch["image"]),
  )
  mask = masks.for_examples(run.sample_mask, keys.stream(key, "masks"), position)
  return run.view.examples(images, mask)


def _accumulated(
  run: Run, state: TrainState, batch: Batch, key: jax.Array, position: jax.Array
) -> Gradients:
  """Returns the mean over the parts of a batch, each with the statistics of the last.

  Parts are taken in strides, so that each is spread over all devices as the batch is.
  """
  size, parts = position.shape[0], run.config.accumulate
  if parts == 1:
    return both_grads(run, state, batch, key, position)
  if size % parts:
    raise ValueError(f"A batch of {size} cannot be split into {parts} equal parts.")

  def in_parts(x):
    return x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  def one(current: TrainState, part) -> tuple[TrainState, Gradients]:
    found = both_grads(run, current, part[0], key, part[1])
    discriminator = current.discriminator
    if found.discriminator is not None:
      discriminator = discriminator.replace(batch_stats=found.discriminator_stats)
    current = current.replace(
      generator=current.generator.replace(batch_stats=found.generator_stats),
      discriminator=discriminator,
    )
    return current, found._replace(generator_stats=None, discriminator_stats=None)

  def add(carry, part):
    current, total = carry
    current, found = one(current, part)
    return (current, jax.tree.map(jnp.add, total, found)), None

  split = jax.tree.map(in_parts, (dict(batch), position))
  current, total = one(state, jax.tree.map(lambda x: x[0], split))
  rest = jax.tree.map(lambda x: x[1:], split)

  def loop(unroll):
    return lambda carry, rest: lax.scan(add, carry, rest, unroll=unroll)[0]

  # XLA's CPU backend runs loops on one thread.
  current, total = lax.platform_dependent(
    (current, total), rest, cpu=loop(parts - 1), default=loop(1)
  )
  mean = jax.tree.map(lambda x: x / parts, total)
  return mean._replace(
    generator_stats=current.generator.batch_stats,
    discriminator_stats=current.discriminator.batch_stats,
  )


def _moved(state: TrainState, params: PyTree, decay: float) -> PyTree | None:
  """Returns the moving average after a step; its decay rises over the first steps."""
  if not decay:
    return state.average
  step = state.step
  rate = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, state.average, params)
