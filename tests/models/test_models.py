"""Parts of the networks: sizes, dropout, noise, precision, receptive field, options."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctx_encoder.models import (
  GENERATORS,
  MultiScale,
  PatchGAN,
  Settings,
  Stage,
  bottleneck,
  decoder,
  encoder,
  fold_batch_norm,
  layers,
  patchgan,
  probabilities,
  receptive_field,
)

BOTTLENECKS = ("dense", "conv", "channelwise")
NARROW = Settings(width=1 / 32)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def example_keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def shapes_of(module, *shape, **kwargs):
  """Returns the shapes and types of a module's variables and output."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  init = functools.partial(module.init_with_output, **kwargs)
  output, variables = jax.eval_shape(init, jax.random.key(0), x)
  return variables, output


def random_variables(module, *shape, seed=0, **kwargs):
  """Variables for an input of the shape, drawn by NumPy: nothing to compile."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":  # about the square root of the number of products summed
      return rng.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.normal(0, 0.2, leaf.shape)

  variables, _ = shapes_of(module, *shape, **kwargs)
  variables = jax.tree_util.tree_map_with_path(draw, variables)
  return jax.tree.map(jnp.float32, variables)


def fresh_variables(module, *shape):
  key = jax.random.key(0, impl="rbg")  # compiles faster than the default
  return jax.jit(module.init)(key, jnp.zeros(shape))


def random_images(*shape, seed=1):
  return jnp.float32(np.random.default_rng(seed).uniform(-1, 1, shape))


# Generators and their parts


@pytest.mark.parametrize("name", ["photos", slow("monet")])
def test_codes_have_one_shape_for_all_image_sizes(name):
  code = {"photos": (2, 2, 256), "monet": (4, 4, 512)}[name]
  for size in (16, 64, 1024):
    generator = GENERATORS[name](size)
    variables, output = shapes_of(generator, 2, size, size, 3)
    assert output.shape == (2, size, size, 3)
    assert output.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert shapes_of(generator.encoder, 2, size, size, 3)[1].shape == (2, *code)


@pytest.mark.parametrize("name", [slow("photos"), "monet"])
def test_bottlenecks_output_sizes_and_upsampling(name):
  for kind, size, upsample in itertools.product(
    BOTTLENECKS, (32, 64, 128), ("transposed", "resize")
  ):
    generator = GENERATORS[name](
      64, bottleneck=kind, output_size=size, upsample=upsample
    )
    _, output = shapes_of(generator, 2, 64, 64, 4)  # with the mask as fourth channel
    assert output.shape == (2, size, size, 3)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("photos", {"bottleneck": "conv", "upsample": "resize"}),
    slow("photos", {}),
    slow("monet", {}),
    ("monet", {"skips": True}),
  ],
)
def test_folding_batch_norm_keeps_the_outputs(name, options):
  generator = GENERATORS[name](16, settings=NARROW, **options)
  variables = random_variables(generator, 2, 16, 16, 3)
  images = random_images(2, 16, 16, 3)
  folded, folded_variables = fold_batch_norm(generator, variables)
  assert folded_variables["batch_stats"] == {}
  assert not any("norm" in path for path in flatten_dict(folded_variables["params"]))
  np.testing.assert_allclose(
    jax.jit(folded.apply)(folded_variables, images),
    jax.jit(generator.apply)(variables, images),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("name", [slow("photos"), "monet"])
@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_noise_depends_on_the_key_of_its_example(name, kind):
  generator = GENERATORS[name](16, bottleneck=kind, noise_dim=3, settings=NARROW)
  keys = example_keys(2)
  variables = random_variables(generator, 2, 16, 16, 3, keys=keys)
  images = jnp.tile(random_images(1, 16, 16, 3), (2, 1, 1, 1))

  @jax.jit
  def complete(keys):
    return generator.apply(variables, images, keys=keys)

  first, second = complete(keys)
  assert np.abs(first - second).max() > 1e-3
  # Not exactly: a matrix product may sum its last rows in another order.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(complete(keys[::-1]), [second, first])
  close(*complete(keys[jnp.array([0, 0])]))
  with pytest.raises(ValueError, match="bottleneck with noise needs `keys`"):
    shapes_of(generator, 2, 16, 16, 3)


def test_a_generator_composes_its_three_parts():
  generator = GENERATORS["monet"](16, settings=NARROW)
  variables = random_variables(generator, 2, 16, 16, 3)
  images = random_images(2, 16, 16, 3)

  @jax.jit
  def together(variables):
    code = generator.apply(variables, images, method="encode")
    return code, generator.apply(variables, images)

  @jax.jit
  def one_by_one(variables):
    x, outputs = images, []
    for part in ("encoder", "bottleneck", "decoder"):
      own = {kind: tree[part] for kind, tree in variables.items()}
      x = getattr(generator, part).apply(own, x)
      outputs.append(x)
    return outputs[1:]

  code, output = together(variables)
  actual_code, actual_output = one_by_one(variables)
  np.testing.assert_allclose(actual_code, code, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(actual_output, output, rtol=1e-5, atol=1e-6)
  assert code.std() > 0.1
  assert 0.01 < np.abs(output).max() < 1


@pytest.mark.parametrize(
  ("name", "depth"), [("photos", 3), ("photos", -1), ("photos", -2), ("monet", 2)]
)
def test_depth_adds_stages_that_keep_the_size(name, depth):
  usual = GENERATORS[name](64, settings=NARROW).encoder
  deeper = GENERATORS[name](64, depth=depth, settings=NARROW)
  assert len(deeper.encoder.stages) == len(usual.stages) + depth
  codes = [shapes_of(each, 2, 64, 64, 3)[1].shape for each in (usual, deeper.encoder)]
  assert codes[0] == codes[1]
  added = set(deeper.encoder.stages) - set(usual.stages)
  assert not added
  _, output = shapes_of(deeper, 2, 64, 64, 3)
  assert output.shape == (2, 64, 64, 3)


def test_an_encoder_cannot_lose_more_stages_than_it_has():
  with pytest.raises(ValueError, match=r"has 1 stages .*; 2 cannot be removed"):
    GENERATORS["monet"](64, depth=-2)


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_skips_give_the_decoder_every_map_of_its_size(kind):
  generator = GENERATORS["monet"](64, bottleneck=kind, skips=True, settings=NARROW)
  plain = GENERATORS["monet"](64, bottleneck=kind, settings=NARROW)
  joined, alone = (
    shapes_of(each, 1, 64, 64, 3)[0]["params"]["decoder"] for each in (generator, plain)
  )
  channels = {
    side: stage.features
    for side, stage in zip((32, 16, 8, 4, 4), plain.encoder.stages, strict=True)
  }
  side = plain.bottleneck.side
  for name in [*(f"stage{i + 1}" for i in range(len(alone) - 1)), "output"]:
    kernels = [part[name].get("conv", part[name])["kernel"] for part in (joined, alone)]
    more = kernels[0].shape[3] - kernels[1].shape[3]
    assert more == (NARROW.channels(channels[side]) if side in channels else 0), name
    side *= 2
  assert side == 64


@pytest.mark.slow
def test_skips_carry_details_past_the_bottleneck():
  generator = GENERATORS["monet"](64, skips=True, settings=NARROW)
  variables = random_variables(generator, 1, 64, 64, 3)
  images = random_images(1, 64, 64, 3)
  changed = images.at[:, :8, :8].set(0)
  silent = jax.tree.map(jnp.zeros_like, variables["params"]["bottleneck"])
  params = variables["params"] | {"bottleneck": silent}
  complete = jax.jit(lambda x: generator.apply(variables | {"params": params}, x))
  difference = np.abs(complete(images) - complete(changed)).max((0, 3))
  assert difference[:16, :16].max() > 1e-3


def test_channelwise_is_a_dense_layer_for_each_channel():
  module = bottleneck.Channelwise(side=3, features=5)
  variables = random_variables(module, 2, 2, 4, 6)
  x = np.asarray(random_images(2, 2, 4, 6))
  params = jax.tree.map(np.asarray, variables["params"])
  mapped = np.zeros((2, 9, 6), np.float32)
  for channel in range(6):
    pixels = x[..., channel].reshape(2, 8)
    mapped[..., channel] = pixels @ params["kernel"][channel] + params["bias"][channel]
  mapped = np.maximum(mapped, 0).reshape(2, 3, 3, 6)
  mixed = mapped @ params["conv"]["kernel"][0, 0] + params["conv"]["bias"]
  expected = np.maximum(mixed, 0)
  np.testing.assert_allclose(
    module.apply(variables, jnp.asarray(x)), expected, atol=1e-6
  )
  assert expected.std() > 0.05


def test_width_multiplies_channels_and_leaves_at_least_one():
  settings = Settings(width=0.5)
  assert [settings.channels(count) for count in (1, 3, 96, 4000)] == [1, 2, 48, 2000]
  assert Settings(width=0.001).channels(64) == 1
  double = shapes_of(PatchGAN(settings=Settings(width=2)), 1, 64, 64, 3)[0]["params"]
  assert double["stage4"]["conv"]["kernel"].shape == (4, 4, 512, 1024)
  assert double["output"]["conv"]["kernel"].shape == (4, 4, 1024, 1)  # still one logit


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: GENERATORS["photos"](100), "power of two of at least 16, not 100"),
    (lambda: GENERATORS["monet"](8), "power of two of at least 16, not 8"),
    (lambda: GENERATORS["monet"](bottleneck="fc"), "channelwise, not 'fc'"),
    (lambda: patchgan.stages(0), "depth of at least 1, not 0"),
    (
      lambda: shapes_of(PatchGAN(depth=4), 1, 40, 64, 3),
      "depth 4 needs images of at least 48 pixels a side, not 40x64",
    ),
    (
      lambda: shapes_of(layers.ConvStage(Stage(4, then=("gelu",))), 1, 8, 8, 3),
      "no layer 'gelu'",
    ),
    (
      lambda: shapes_of(GENERATORS["photos"](16), 1, 16, 16, 3, train=True),
      "Dropout in training mode needs `keys`",
    ),
  ],
)
def test_error_messages(build, message):
  with pytest.raises(ValueError, match=message):
    build()


# Dropout


def test_dropout_rate_and_scale():
  rate, x = 0.3, jnp.ones((64, 20, 25))
  dropped = np.asarray(layers.dropout(x, rate, example_keys(64)))
  zeros = dropped == 0
  deviation = math.sqrt(rate * (1 - rate) / dropped.size)
  assert abs(zeros.mean() - rate) < 5 * deviation
  np.testing.assert_array_equal(dropped[~zeros], np.float32(1) / np.float32(1 - rate))
  assert (
    layers.dropout(x.astype(jnp.bfloat16), rate, example_keys(64)).dtype == "bfloat16"
  )


def test_dropout_depends_only_on_the_keys_of_the_examples():
  keys, x = example_keys(4), random_images(4, 6, 6, 8)
  drop = jax.jit(functools.partial(layers.dropout, rate=0.5))
  whole = drop(x, keys=keys)
  np.testing.assert_array_equal(whole, drop(x, keys=keys))
  halves = [drop(x[i : i + 2], keys=keys[i : i + 2]) for i in (0, 2)]
  np.testing.assert_array_equal(whole, np.concatenate(halves))
  assert not np.array_equal(whole[0] == 0, whole[1] == 0)


@pytest.mark.parametrize(("setting", "rate"), [(None, 0.5), (0.2, 0.2)])
def test_dropout_layers_have_independent_masks_and_own_rates(setting, rate):
  dropped = [stage for stage in encoder.monet_stages(128) if "dropout" in stage.then]
  module = encoder.Encoder(tuple(dropped), Settings(width=1 / 8, dropout=setting))
  variables = random_variables(module, 1, 16, 16, 3)
  images, keys = random_images(8, 16, 16, 3), example_keys(8)

  @jax.jit
  def train(keys):
    _, state = module.apply(
      variables,
      images,
      train=True,
      keys=keys,
      mutable="batch_stats",
      capture_intermediates=True,
    )
    return state["intermediates"]

  outputs = train(keys)
  stages = [outputs[f"stage{i}"]["__call__"][0] for i in (1, 2, 3)]
  assert [stage.shape[1:] for stage in stages] == [(8, 8, 32), (4, 4, 64), (4, 4, 64)]
  zeros = [np.asarray(stage) == 0 for stage in stages]
  for mask in zeros:
    assert abs(mask.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / mask.size)
  both = (zeros[1] & zeros[2]).mean()  # rate^2 where masks are independent
  assert abs(both - rate**2) < 5 * math.sqrt(rate**2 * (1 - rate**2) / zeros[1].size)


def test_dropout_of_the_dense_bottleneck():
  module = bottleneck.Dense(side=3, features=32)
  variables = random_variables(module, 8, 2, 2, 4)
  variables["params"]["dense"]["bias"] += 10  # no zeros from the ReLU
  x, keys = random_images(8, 2, 2, 4), example_keys(8)
  plain = np.asarray(module.apply(variables, x))
  np.testing.assert_array_equal(module.apply(variables, x, keys=keys), plain)
  dropped = np.asarray(module.apply(variables, x, train=True, keys=keys))
  zeros = dropped == 0
  assert abs(zeros.mean() - 0.4) < 5 * math.sqrt(0.24 / zeros.size)
  np.testing.assert_allclose(dropped[~zeros], plain[~zeros] / 0.6, rtol=1e-6)
  none = bottleneck.Dense(3, 32, settings=Settings(dropout=0.0))
  np.testing.assert_array_equal(none.apply(variables, x, train=True), plain)


# Precision, statistics, initial weights


@pytest.mark.parametrize(
  "build",
  [
    lambda settings: GENERATORS["photos"](16, settings=settings),
    slow(lambda settings: GENERATORS["monet"](16, settings=settings), id="monet"),
    slow(lambda settings: PatchGAN(settings=settings), id="patchgan"),
    pytest.param(
      lambda settings: GENERATORS["photos"](16, settings=settings), id="photos"
    ),
  ],
)
def test_bfloat16_is_close_to_float32(build):
  exact, rough = (
    build(Settings(width=1 / 8, dtype=t)) for t in ("float32", "bfloat16")
  )
  size = 32 if isinstance(exact, PatchGAN) else 16
  shape = (4, size, size, 3)
  variables, output = shapes_of(rough, *shape)
  assert output.dtype == jnp.float32
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  variables, images = random_variables(exact, *shape), random_images(*shape)

  @jax.jit
  def both(variables, images):
    output, state = rough.apply(variables, images, capture_intermediates=True)
    return exact.apply(variables, images), output, state["intermediates"]

  expected, actual, intermediates = both(variables, images)
  error = np.abs(actual - expected)
  # bfloat16 has 8 bits: 0.2 % per rounding, about ten layers.
  assert 1e-4 < error.max() / expected.std() < 0.05
  convolved = {
    path: output[0].dtype
    for path, output in flatten_dict(intermediates, sep="/").items()
    if "conv" in path or "norm" in path
  }
  assert set(convolved.values()) == {jnp.dtype(jnp.bfloat16)}, convolved


@pytest.mark.slow
def test_batch_statistics_are_averaged_over_devices():
  """`jax.vmap` with an axis name averages as `jax.pmap` does, on one device."""
  shape = (4, 16, 16, 3)
  images, keys = random_images(*shape), example_keys(4)
  images = images.at[2:].add(1.0)  # halves so unlike that either's statistics are wrong
  whole, split = (
    GENERATORS["monet"](16, settings=Settings(width=1 / 32, axis_name=axis))
    for axis in (None, "devices")
  )
  variables = random_variables(whole, *shape)
  assert shapes_of(split, *shape)[0] == shapes_of(whole, *shape)[0]

  def train(module, images, keys):
    return module.apply(variables, images, train=True, keys=keys, mutable="batch_stats")

  expected, statistics = jax.jit(functools.partial(train, whole))(images, keys)
  mapped = jax.vmap(functools.partial(train, split), axis_name="devices")
  actual, averaged = jax.jit(mapped)(
    images.reshape(2, 2, *shape[1:]), keys.reshape(2, 2)
  )
  np.testing.assert_allclose(actual.reshape(shape), expected, atol=2e-5)
  for path, value in flatten_dict(averaged, sep="/").items():
    whole_batch = flatten_dict(statistics, sep="/")[path]
    np.testing.assert_array_equal(value[0], value[1], err_msg=path)
    np.testing.assert_allclose(value[0], whole_batch, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [slow("dense"), "channelwise"])
def test_dcgan_weights(kind):
  settings = Settings(width=1 / 8, init="dcgan")
  module = GENERATORS["monet"](16, bottleneck=kind, settings=settings)
  variables = fresh_variables(module, 1, 16, 16, 3)
  scales = []
  for path, value in flatten_dict(variables["params"], sep="/").items():
    if path.endswith("kernel"):
      assert np.std(value) == pytest.approx(0.02, rel=5 / math.sqrt(value.size)), path
      assert abs(np.mean(value)) < 5 * 0.02 / math.sqrt(value.size), path
    elif path.endswith("scale"):
      scales.append(value)
    else:
      assert not value.any(), path
  scales = np.concatenate(scales)
  assert np.std(scales) == pytest.approx(0.02, rel=5 / math.sqrt(scales.size))
  assert np.mean(scales) == pytest.approx(1, abs=5 * 0.02 / math.sqrt(scales.size))


def test_channelwise_weights_are_glorot_over_space():
  module = bottleneck.Channelwise(side=6, features=8)
  params = fresh_variables(module, 1, 2, 2, 64)["params"]
  assert params["kernel"].shape == (64, 4, 36)
  limit = math.sqrt(6 / (4 + 36))
  assert np.abs(params["kernel"]).max() == pytest.approx(limit, rel=0.01)


# The discriminator


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_depth_and_its_smallest_image(depth):
  for size in (3 * 2**depth, 128):
    _, logits = shapes_of(PatchGAN(depth=depth), 2, size, size, 3)
    side = size // 2**depth - 2
    assert (logits.shape, logits.dtype) == ((2, side, side, 1), jnp.float32)
    assert side >= 1


def test_receptive_field_of_every_layer():
  table = patchgan.kernels_and_strides()
  fields = [receptive_field(table[i:]) for i in reversed(range(len(table)))]
  assert fields == [4, 7, 16, 34, 70]
  assert receptive_field([]) == 1
  assert receptive_field([(11, 4), (3, 2)]) == 11 + 4 * 2


@pytest.mark.parametrize(("depth", "field"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_depends_on_exactly_its_receptive_field(depth, field):
  assert receptive_field(patchgan.kernels_and_strides(depth)) == field
  size = 256 if depth == 4 else 128
  discriminator = PatchGAN(depth=depth, settings=Settings(width=1 / 64))
  shapes, logits = shapes_of(discriminator, 1, size, size, 3)
  # All weights are positive, so no gradients cancel.
  variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
  middle = logits.shape[1] // 2

  @jax.jit
  def gradient(image):
    return jax.grad(lambda x: discriminator.apply(variables, x)[0, middle, middle, 0])(
      image
    )

  seen = np.asarray(gradient(jnp.ones((1, size, size, 3)))[0] != 0).all(axis=2)
  rows, columns = seen.any(axis=1), seen.any(axis=0)
  assert seen.sum() == field**2
  assert rows.sum() == columns.sum() == field
  assert np.ptp(np.flatnonzero(rows)) == np.ptp(np.flatnonzero(columns)) == field - 1


def test_probabilities_are_the_sigmoid_of_the_logits():
  logits = np.linspace(-30, 30, 13, dtype=np.float32)
  exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
  np.testing.assert_allclose(probabilities(jnp.asarray(logits)), exact, rtol=1e-6)


# Bias correction of running statistics


@pytest.mark.parametrize("name", [slow("photos"), "monet"])
def test_unbiased_statistics_equal_those_of_the_batches(name):
  """After updates on one batch they are its statistics, so both modes agree."""
  generator = GENERATORS[name](16, settings=Settings(width=1 / 32, dropout=0.0))
  x = jax.random.normal(jax.random.key(0), (8, 16, 16, 3))
  variables = random_variables(generator, *x.shape)
  start = {"mean": 0.0, "var": 1.0}
  stats = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full_like(leaf, start[path[-1].key]),
    variables["batch_stats"],
  )
  params = {"params": variables["params"]}
  train = jax.jit(
    functools.partial(generator.apply, train=True, mutable=["batch_stats"])
  )
  for _ in range(3):
    expected, changed = train(params | {"batch_stats": stats}, x)
    stats = changed["batch_stats"]
  unbiased = generator.unbiased_statistics(stats, jnp.int32(3))
  actual = jax.jit(generator.apply)(params | {"batch_stats": unbiased}, x)
  np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_statistics_without_updates_are_unchanged():
  generator = GENERATORS["photos"](16, settings=NARROW)
  stats = random_variables(generator, 1, 16, 16, 3)["batch_stats"]
  same = generator.unbiased_statistics(stats, jnp.int32(0))
  jax.tree.map(np.testing.assert_array_equal, same, stats)


def test_unbiased_statistics_compile_once_for_all_steps():
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: events.append(name)
  )
  stats = {"mean": jnp.ones(1237), "var": jnp.ones(1237)}  # no other test has so many
  layers.unbiased_statistics(stats, 0.8, jnp.int32(3))
  compiled = [name for name in events if "compile" in name]
  assert compiled
  layers.unbiased_statistics(stats, 0.8, jnp.int32(4))
  assert [name for name in events if "compile" in name] == compiled


# Options that the report does not have


@pytest.mark.slow
def test_decoder_stages_drop_out_with_the_examples_keys():
  stage = Stage(8, then=("relu", "dropout"), dropout=0.5)
  module = decoder.Decoder((stage, stage), 16, Settings())
  variables = random_variables(module, 2, 2, 2, 4)
  keys = jnp.tile(example_keys(1), 2)
  x = jnp.tile(random_images(1, 2, 2, 4), (2, 1, 1, 1))

  @jax.jit
  def train(keys):
    output, state = module.apply(
      variables, x, train=True, keys=keys, capture_intermediates=True
    )
    return output, state["intermediates"]

  output, inner = train(keys)
  np.testing.assert_allclose(output[0], output[1], atol=1e-6)
  assert np.abs(output - train(example_keys(2))[0]).max() > 1e-3
  plain, _ = module.apply(variables, x, capture_intermediates=True)
  assert np.abs(output - plain).max() > 1e-3
  first, second = (
    np.asarray(inner[f"stage{i}"]["__call__"][0][:, :4, :4]) == 0 for i in (1, 2)
  )
  assert (first != second).any()  # each stage has a mask of its own


def test_resize_repeats_pixels_before_a_3x3_convolution():
  module = decoder.Decoder((Stage(6),), 8, Settings(), "resize")
  variables = random_variables(module, 2, 2, 2, 4)
  shapes = jax.tree.map(jnp.shape, variables["params"])
  assert shapes["stage1"]["conv"]["kernel"] == (3, 3, 4, 6)
  assert shapes["output"]["kernel"] == (3, 3, 6, 3)
  assert module.trainable(2) == {}
  x = np.asarray(random_images(2, 2, 2, 4), np.float64)
  stages = variables["params"]["stage1"]["conv"], variables["params"]["output"]
  for params in jax.tree.map(np.asarray, stages):
    x = np.pad(np.kron(x, np.ones((1, 2, 2, 1))), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    x = np.einsum("bhwcij,ijcd->bhwd", windows, params["kernel"]) + params["bias"]
  output = module.apply(variables, random_images(2, 2, 2, 4))
  np.testing.assert_allclose(output, np.tanh(x), atol=1e-5)
  with pytest.raises(ValueError, match="transposed or resize, not 'bilinear'"):
    shapes_of(module.clone(upsample="bilinear"), 2, 2, 2, 4)
  with pytest.raises(ValueError, match="transposed or resize, not 'bilinear'"):
    GENERATORS["monet"](64, upsample="bilinear")


def normalised_matrix(module, variables):
  """The matrix by which a `SpectralConv` multiplies flattened patches."""
  patches = jnp.eye(3 * 3 * 5).reshape(45, 3, 3, 5)
  bias = variables["params"]["bias"]
  return module.apply(variables, patches).reshape(45, 7) - bias[None]


@pytest.fixture(scope="module")
def spectral():
  """A convolution with spectral normalisation and its variables after 100 updates."""
  module = layers.SpectralConv(7, 3, 1, "VALID")
  variables = random_variables(module, 1, 3, 3, 5)
  x = jnp.zeros((1, 3, 3, 5))
  update = jax.jit(
    lambda v: module.apply(v, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]
  )
  for _ in range(100):
    variables = {**variables, "batch_stats": update(variables)}
  return module, variables


def test_spectral_norm_equals_that_of_numpys_svd(spectral):
  module, variables = spectral
  kernel = np.asarray(variables["params"]["kernel"]).reshape(45, 7)
  expected = kernel / np.linalg.svd(kernel, compute_uv=False)[0]
  actual = normalised_matrix(module, variables)
  np.testing.assert_allclose(actual, expected, atol=1e-5)
  np.testing.assert_allclose(np.linalg.svd(actual, compute_uv=False)[0], 1, rtol=1e-5)


@pytest.mark.slow
def test_gradients_of_spectral_norms_equal_differences(spectral):
  module, variables = spectral
  rng = np.random.default_rng(0)
  weights, direction = rng.normal(size=(45, 7)), rng.normal(size=(45, 7))

  def energy(params):
    matrix = normalised_matrix(module, {**variables, "params": params})
    return jnp.sum(jnp.float32(weights) * matrix)

  slope = jax.grad(energy)(variables["params"])["kernel"].reshape(45, 7)
  kernel = np.asarray(variables["params"]["kernel"], np.float64).reshape(45, 7)
  there, back = (
    np.sum(weights * moved / np.linalg.svd(moved, compute_uv=False)[0])
    for moved in (kernel + 1e-6 * direction, kernel - 1e-6 * direction)
  )
  np.testing.assert_allclose(np.sum(slope * direction), (there - back) / 2e-6, 1e-3)


@pytest.mark.slow
def test_patchgan_with_spectral_norms():
  module = PatchGAN(1, NARROW, norm="spectral")
  images = random_images(4, 16, 16, 3)
  variables = fresh_variables(module, 4, 16, 16, 3)
  names = {path[:-1] for path in flatten_dict(variables["params"])}
  assert names == {(name, "conv") for name in ("stage1", "stage2", "output")}
  assert {(*path, "u") for path in names} == set(flatten_dict(variables["batch_stats"]))
  np.testing.assert_array_equal(  # without updates in inference mode
    module.apply(variables, images), module.apply(variables, images)
  )

  def train(module, images):
    return module.apply(variables, images, train=True, mutable=["batch_stats"])

  logits, after = train(module, images)
  split = module.clone(settings=Settings(width=1 / 32, axis_name="devices"))
  mapped = jax.vmap(functools.partial(train, split), axis_name="devices")
  halves, mapped_after = mapped(images.reshape(2, 2, 16, 16, 3))
  np.testing.assert_allclose(halves.reshape(logits.shape), logits, atol=1e-5)
  for path, u in flatten_dict(after["batch_stats"]).items():
    both = flatten_dict(mapped_after["batch_stats"])[path]
    np.testing.assert_allclose(both, np.stack([u, u]), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-5)
    before = flatten_dict(variables["batch_stats"])[path]
    assert u.size == 1 or np.abs(u - before).max() > 1e-3


def test_patchgan_without_norms():
  module = PatchGAN(2, NARROW, norm="none")
  variables, _ = shapes_of(module, 1, 32, 32, 3)
  assert not any("norm" in path for path in flatten_dict(variables["params"]))
  assert "batch_stats" not in variables
  with pytest.raises(ValueError, match="batch, spectral, none, not 'group'"):
    shapes_of(PatchGAN(norm="group"), 1, 64, 64, 3)


@pytest.mark.parametrize("mask_input", [False, True])
def test_patchgans_of_several_scales(mask_input):
  module = MultiScale(2, 1, NARROW, "none", mask_input)
  images, mask = random_images(2, 24, 24, 3), random_images(2, 24, 24, 1)
  inputs = (images, mask) if mask_input else (images,)
  variables = module.init(jax.random.key(0), *inputs)
  logits, features = module.apply(variables, *inputs, features=True)
  for found, plain in zip(module.apply(variables, *inputs), logits, strict=True):
    np.testing.assert_array_equal(found, plain)
  assert [x.shape for x in logits] == [(2, 10, 10, 1), (2, 4, 4, 1)]
  one = PatchGAN(1, NARROW, "none", mask_input)
  for number, name in enumerate(("scale1", "scale2")):
    own, side = {"params": variables["params"][name]}, 2**number
    blocks = (2, 24 // side, side, 24 // side, side, -1)
    small = (np.asarray(x).reshape(blocks).mean((2, 4)) for x in inputs)
    expected, layers = one.apply(own, *small, features=True)
    np.testing.assert_allclose(logits[number], expected, rtol=1e-5, atol=1e-6)
    for stage, output in layers.items():
      np.testing.assert_allclose(features[f"{name}/{stage}"], output, 1e-5, 1e-6)
  assert len(features) == 4
  together = patchgan.joined(logits)
  np.testing.assert_array_equal(together[:, :100], logits[0].reshape(2, 100))
  np.testing.assert_array_equal(together[:, 100:], logits[1].reshape(2, 16))
  np.testing.assert_array_equal(patchgan.joined(logits[0]), logits[0])


@pytest.mark.slow
def test_patchgan_takes_the_mask_as_a_fourth_channel():
  module = PatchGAN(1, NARROW, mask_input=True)
  shape, mask = (1, 16, 16, 3), jnp.zeros((1, 16, 16, 1)).at[:, 4:8, 4:8].set(1)
  variables = random_variables(module, *shape, mask=mask)
  images = random_images(*shape)
  assert variables["params"]["stage1"]["conv"]["kernel"].shape == (4, 4, 4, 2)
  plain = PatchGAN(1, NARROW).clone()
  joined = jnp.concatenate([images, mask], axis=3)
  logits, features = module.apply(variables, images, mask, features=True)
  expected, expected_features = plain.apply(variables, joined, features=True)
  np.testing.assert_array_equal(logits, expected)
  assert list(features) == ["stage1", "stage2"]
  jax.tree.map(np.testing.assert_array_equal, features, expected_features)
  with pytest.raises(ValueError, match="`mask` if and only if mask_input"):
    module.apply(variables, images)
  with pytest.raises(ValueError, match="`mask` if and only if mask_input"):
    plain.apply(variables, images, mask)
  with pytest.raises(ValueError, match=r"must be \(1, 16, 16, 1\), not \(1, 16, 16\)"):
    module.apply(variables, images, mask[..., 0])
