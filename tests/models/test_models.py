"""Parts of the generators: sizes, dropout, noise, precision, skips, options."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from modules import (
  example_keys,
  fresh_variables,
  random_images,
  random_variables,
  shapes_of,
)

from ctx_encoder.models import (
  GENERATORS,
  PatchGAN,
  Settings,
  Stage,
  bottleneck,
  decoder,
  encoder,
  layers,
  patchgan,
)

BOTTLENECKS = ("dense", "conv", "channelwise")
NARROW = Settings(width=1 / 32)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


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
