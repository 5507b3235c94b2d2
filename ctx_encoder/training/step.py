"""One training step and one evaluation step, as pure functions.

The batch is `{"image": uint8 [B, H, W, 3], "index": int32 [B]}`; augmenting, masking
and normalising happen here, on the device.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ctx_encoder import augment as augmentation
from ctx_encoder import losses, masks, metrics, pixels
from ctx_encoder.models import Generator, PatchGAN
from ctx_encoder.training.state import NetworkState, TrainState
from ctx_encoder.training.task import Examples, Task

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]

# Each use of randomness has a stream of its own: what one draws never moves another.
_STREAMS = {"masks": 0, "augment": 1, "dropout": 2, "evaluation": 3}


def make_train_step(
  generator: Generator,
  discriminator: PatchGAN,
  generator_optimizer: optax.GradientTransformation,
  discriminator_optimizer: optax.GradientTransformation,
  task: Task,
  *,
  update_order: str = "simultaneous",
  ema_decay: float = 0.0,
  grad_norms: bool = False,
  accumulate: int = 1,
  axis_name: str | None = None,
) -> TrainStep:
  """Returns `step(state, batch, key) -> (state, metrics)`, to be jitted or pmapped.

  The discriminator descends -log D(x) - log(1 - D(F(x))), or the task's other game, the
  generator the weighted sum of the task's terms, -log D(F(x)) among them. Real and
  completed images pass the discriminator as separate batches.

  Args:
    generator, discriminator: the networks.
    generator_optimizer, discriminator_optimizer: their update rules.
    task: what is asked for.
    update_order: "simultaneous" takes both gradients at the same point, from one pair
      of forward passes; "alternating" updates the discriminator first, and the
      generator against the new one.
    ema_decay: decay of `state.average`; 0 = it is None.
    grad_norms: whether to measure the gradients' norms.
    accumulate: parts that a batch is worked off in, one after the other, for batches
      that are larger than memory; it must divide their size. The gradients are those of
      the whole, but batch statistics are each part's own.
    axis_name: the axis of `jax.pmap`, if that is what runs the step. Gradients,
      statistics and metrics are averaged over it.

  Returns:
    The step. `key` is the same at every step; the state's own step number is folded
    into it. The metrics are float32 scalars.
  """
  if update_order not in ("simultaneous", "alternating"):
    raise ValueError(
      f"update_order must be simultaneous or alternating, not {update_order!r}."
    )
  if accumulate > 1 and update_order == "alternating":
    raise ValueError(
      "Gradients are accumulated with update_order=simultaneous alone: the generator's"
      " gradient would need the discriminator's update of all parts."
    )
  adversarial = task.uses("adversarial")
  if axis_name:
    generator = with_axis_name(generator, axis_name)
    discriminator = with_axis_name(discriminator, axis_name)

  def average(tree):
    return lax.pmean(tree, axis_name) if axis_name else tree

  def descend(network: NetworkState, grads, stats, optimizer) -> NetworkState:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    return NetworkState(params, stats, opt_state)

  def judge(params, stats, images):
    logits, changed = discriminator.apply(
      {"params": params, "batch_stats": stats},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    return logits, changed["batch_stats"]

  def differentiate(
    state: TrainState, batch: Batch, key: jax.Array, position: jax.Array
  ) -> _Gradients:
    examples = _training_examples(task, batch, key, position)
    dropout_keys = _example_keys(_stream(key, "dropout"), position)

    def generate(params):
      outputs, changed = generator.apply(
        {"params": params, "batch_stats": state.generator.batch_stats},
        examples.inputs,
        train=True,
        keys=dropout_keys,
        mutable=["batch_stats"],
      )
      return outputs, changed["batch_stats"]

    def shown(outputs):
      return task.judged(outputs, examples)

    def judge_features(images):
      (_, features), _ = discriminator.apply(
        state.discriminator.variables,
        images,
        train=True,
        features=True,
        mutable=["batch_stats"],
      )
      return features

    outputs, pull_generator, generator_stats = jax.vjp(
      generate, state.generator.params, has_aux=True
    )

    def objective(outputs, logits_fake):
      terms = task.terms(outputs, examples, judge_features)
      if adversarial:
        terms["adversarial"] = lambda: task.generator_loss(logits_fake, examples)
      return losses.combine(terms, task.loss_weights, state.step)

    measured: Metrics = {}
    judged, grads_judge, stats = state.discriminator, None, None
    logits_fake = None
    if adversarial:
      # The discriminator's update: the outputs are constants to it.
      images_fake, pull_shown = jax.vjp(shown, outputs)
      images_real = task.judged_real(examples)
      params, stats = judged.params, judged.batch_stats
      logits_real, pull_real, stats = jax.vjp(
        lambda p: judge(p, stats, images_real), params, has_aux=True
      )
      logits_fake, pull_fake, stats = jax.vjp(
        lambda p, images: judge(p, stats, images), params, images_fake, has_aux=True
      )

      def discrimination(logits_real, logits_fake):
        return jnp.mean(task.discriminator_loss(logits_real, logits_fake, examples))

      loss, (to_real, to_fake) = jax.value_and_grad(discrimination, (0, 1))(
        logits_real, logits_fake
      )
      (grads_real,), (grads_fake, _) = pull_real(to_real), pull_fake(to_fake)
      grads_judge = jax.tree.map(jnp.add, grads_real, grads_fake)
      if task.r1:

        def penalty(params):
          stats = state.discriminator.batch_stats
          return jnp.mean(
            losses.r1_penalty(lambda x: judge(params, stats, x)[0], images_real)
          )

        measured["loss/r1"], slopes = jax.value_and_grad(penalty)(params)
        grads_judge = jax.tree.map(
          lambda g, slope: g + task.r1 * slope, grads_judge, slopes
        )
      measured["loss/discriminator"] = loss
      for name, logits in (("real", logits_real), ("fake", logits_fake)):
        if task.game == "bce":
          measured[f"probability/{name}"] = jnp.mean(jax.nn.sigmoid(logits))
        else:  # no other game's logits are those of a probability
          measured[f"logits/{name}"] = jnp.mean(logits)
      if update_order == "alternating":
        grads_judge = average(grads_judge)
        judged = descend(judged, grads_judge, stats, discriminator_optimizer)
        logits_fake, pull_images, _ = jax.vjp(
          lambda images: judge(judged.params, judged.batch_stats, images),
          images_fake,
          has_aux=True,
        )
      else:

        def pull_images(to_fake):
          return pull_fake(to_fake)[1:]

      def pull_logits(to_logits) -> jax.Array:
        (to_images,) = pull_images(to_logits)
        return pull_shown(to_images)[0]

    else:

      def pull_logits(to_logits) -> jax.Array:
        return jnp.zeros_like(outputs)  # no discriminator, no gradient from it

    # The generator's update: the discriminator's parameters are constants to it.
    (total, terms), (to_outputs, to_logits) = jax.value_and_grad(
      objective, argnums=(0, 1), has_aux=True
    )(outputs, logits_fake)
    (grads,) = pull_generator(to_outputs + pull_logits(to_logits))
    completed = task.completed(outputs, examples)
    psnr = metrics.psnr(
      completed, examples.scale.restore(examples.targets), examples.mask
    )
    measured |= terms | {"loss/total": total, "psnr_hole": jnp.mean(psnr)}
    return _Gradients(grads, generator_stats, grads_judge, stats, judged, measured)

  def step(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    position = _positions(batch["image"].shape[0], axis_name)
    if accumulate == 1:
      found = differentiate(state, batch, key, position)
    else:
      found = _accumulated(differentiate, state, batch, key, position, accumulate)
    grads, grads_judge = average((found.generator, found.discriminator))
    generating = descend(
      state.generator, grads, found.generator_stats, generator_optimizer
    )
    judged, measured = found.judged, found.measured
    if adversarial and update_order == "simultaneous":
      judged = descend(
        judged, grads_judge, found.discriminator_stats, discriminator_optimizer
      )
    if grad_norms:
      measured["grad_norm/generator"] = optax.tree.norm(grads)
      if adversarial:
        measured["grad_norm/discriminator"] = optax.tree.norm(grads_judge)
    after = TrainState(
      step=state.step + 1,
      generator=generating,
      discriminator=judged,
      average=_move(state.average, generating.params, state.step, ema_decay),
    )
    return after, average(measured)

  return step


class _Gradients(NamedTuple):
  """What one pass over a batch, or a part of it, gives.

  generator, discriminator: gradients of the two networks' parameters; those of the
    discriminator, and its statistics, are None where it is not trained.
  generator_stats, discriminator_stats: running statistics after it.
  judged: the discriminator that the generator was held against: before its update, or
    with update_order=alternating behind it.
  measured: metrics.
  """

  generator: Any
  generator_stats: Any
  discriminator: Any
  discriminator_stats: Any
  judged: NetworkState
  measured: Metrics


def _accumulated(
  differentiate: Callable[..., _Gradients],
  state: TrainState,
  batch: Batch,
  key: jax.Array,
  position: jax.Array,
  parts: int,
) -> _Gradients:
  """Returns the mean over the parts of a batch, each seeing the last one's statistics.

  Parts are taken in strides, so that each is spread over all devices as the whole is.
  """
  size = position.shape[0]
  if size % parts:
    raise ValueError(f"A batch of {size} cannot be worked off in {parts} equal parts.")

  def in_parts(x):
    return x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1)

  def one(statistics, part):
    generator_stats, discriminator_stats = statistics
    current = state.replace(
      generator=state.generator.replace(batch_stats=generator_stats),
      discriminator=state.discriminator.replace(batch_stats=discriminator_stats),
    )
    found = differentiate(current, part[0], key, part[1])
    if found.discriminator is not None:
      discriminator_stats = found.discriminator_stats
    grads = found.generator, found.discriminator, found.measured
    return (found.generator_stats, discriminator_stats), grads

  statistics = state.generator.batch_stats, state.discriminator.batch_stats
  split = jax.tree.map(in_parts, (dict(batch), position))
  first = jax.tree.map(lambda x: x[0], split)
  rest = jax.tree.map(lambda x: x[1:], split)
  statistics, total = one(statistics, first)

  def add(carry, part):
    statistics, total = carry
    statistics, found = one(statistics, part)
    return (statistics, jax.tree.map(jnp.add, total, found)), None

  # XLA's CPU backend runs loops on one thread.
  unroll = parts - 1 if jax.default_backend() == "cpu" else 1
  (statistics, total), _ = lax.scan(add, (statistics, total), rest, unroll=unroll)
  generator, discriminator, measured = jax.tree.map(lambda x: x / parts, total)
  return _Gradients(
    generator,
    statistics[0],
    discriminator,
    statistics[1],
    state.discriminator,
    measured,
  )


def skip_nonfinite(step: TrainStep) -> TrainStep:
  """Returns a step that changes nothing where its outcome would not be finite.

  Where a metric or an updated parameter would be infinite or not a number, all stays as
  it was but the step's number. Its metrics have "skipped", 0 or 1, beside them.
  """

  def guarded(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    after, measured = step(state, batch, key)
    outcome = (measured, after.generator.params, after.discriminator.params)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(outcome)]
    good = jnp.all(jnp.stack(finite))
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
    skipped = 1 - good.astype(jnp.float32)
    return kept.replace(step=after.step), measured | {"skipped": skipped}

  return guarded


def make_eval_step(
  generator: Generator, task: Task
) -> Callable[[Any, Batch, jax.Array], tuple[Metrics, dict[str, jax.Array]]]:
  """Returns `step(variables, batch, key) -> (metrics, images)`, to be jitted.

  The mask is a function of (key, the example's index) alone, so the same images get the
  same holes at any batch size.

  Args:
    generator: the network.
    task: what is asked for; the augmentation is not used.

  Returns:
    The step. Its metrics are `[B]` each: those of `metrics.by_region`, and the
    reconstruction loss. Its images are `[B, S, S, 3]` in [0, 1]: "original", "masked",
    "completed"; and "mask" `[B, S, S, 1]`.
  """

  def step(variables, batch: Batch, key: jax.Array):
    key = _stream(key, "evaluation")
    images = augmentation.center_crop(
      pixels.from_uint8(batch["image"]), task.image_size
    )
    mask = masks.for_examples(task.sample_mask, key, batch["index"])
    examples = task.see(images, mask)
    keys = _example_keys(_stream(key, "dropout"), batch["index"])
    outputs = cast(
      jax.Array, generator.apply(variables, examples.inputs, train=False, keys=keys)
    )
    completed = task.completed(outputs, examples)
    measured = metrics.by_region(completed, images, mask)
    measured["loss/reconstruction"] = task.reconstruction(outputs, examples)
    shown = {
      "original": images,
      "mask": mask,
      # Black where the task's own fill would hide where the hole is.
      "masked": masks.masked_image(images, mask, jnp.asarray(task.fill or 0.0)),
      "completed": completed,
    }
    return measured, shown

  return step


def make_dispatch(step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns a function that makes several steps on images that lie on the device.

  `dispatch(state, images, ids, rows, key)` takes uint8 images `[N, H, W, 3]`, int32 ids
  `[N]` and the rows of each step's batch, int32 `[K, B]`; its metrics are `[K]` each.
  """

  def dispatch(state, images, ids, rows, key):
    def one(state, rows):
      return step(state, {"image": images[rows], "index": ids[rows]}, key)

    if rows.shape[0] > 1:
      return lax.scan(one, state, rows)
    # Not a scan of length 1: XLA's CPU backend runs loops on one thread.
    state, measured = one(state, rows[0])
    return state, {name: value[None] for name, value in measured.items()}

  return dispatch


def with_axis_name(network, axis_name: str):
  """Returns the network with batch statistics averaged over a named axis."""
  changes = {}
  for field in dataclasses.fields(network):
    if field.name == "settings":
      changes["settings"] = dataclasses.replace(network.settings, axis_name=axis_name)
    elif field.name in ("encoder", "bottleneck", "decoder"):
      part = getattr(network, field.name)
      changes[field.name] = with_axis_name(part, axis_name)
  return network.clone(**changes)


def _stream(key: jax.Array, name: str) -> jax.Array:
  return jax.random.fold_in(key, _STREAMS[name])


def _positions(batch_size: int, axis_name: str | None) -> jax.Array:
  """Returns the examples' places in the global batch, int32 `[B]`."""
  positions = jnp.arange(batch_size)
  if axis_name:
    positions = positions + lax.axis_index(axis_name) * batch_size
  return positions


def _example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def _training_examples(task: Task, batch: Batch, key, position) -> Examples:
  images = augmentation.for_examples(
    task.augment, _stream(key, "augment"), position, pixels.from_uint8(batch["image"])
  )
  mask = masks.for_examples(task.sample_mask, _stream(key, "masks"), position)
  return task.see(images, mask)


def _move(average, params, step: jax.Array, decay: float):
  """Returns the moving average after a step; it starts fast, to forget the start."""
  if not decay:
    return average
  rate = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
