"""The networks equal Keras's, built from the report's tables in `keras_networks`.

TensorFlow is imported when the first test runs, not when tests are collected.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from keras_networks import NETWORKS, randomize

from ctx_encoder.models import PatchGAN, Settings, monet, photos, probabilities
from ctx_encoder.models.ops import conv

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def keras():
  """Keras in float64: in float32 its own error in training mode reaches 1e-3."""
  pytest.importorskip("tensorflow")
  keras = pytest.importorskip("keras")
  if keras.backend.backend() != "tensorflow":
    pytest.skip("the oracle is Keras on TensorFlow")
  policy = keras.config.dtype_policy()
  keras.config.set_dtype_policy("float64")
  yield keras
  keras.config.set_dtype_policy(policy)


def our_network(name, width=1.0, size=128):
  settings = Settings(width=width, dropout=0.0)
  if name == "patchgan":
    return PatchGAN(settings=settings)
  return {"photos": photos, "monet": monet}[name](size, settings=settings)


# Weights from Keras


def layers_in_order(params):
  """Returns the paths of all layers with weights, in the order in which they run."""
  order = ["encoder", "bottleneck", "decoder", "stage", "output"]
  order += ["dense", "conv", "norm"]  # within a stage

  def position(name):
    kind = name.rstrip("0123456789")
    return order.index(kind), int(name[len(kind) :] or 0)

  paths = {path[:-1] for path in flatten_dict(params)}
  return sorted(paths, key=lambda path: [position(name) for name in path])


def from_keras(model, variables):
  """Returns variables in the shape of ours, float32, with a Keras model's weights.

  Kernels have the same layout in both; only names and the tree differ.
  """
  kernel = (("params", "kernel"), ("params", "bias"))
  norm = (("params", "scale"), ("params", "bias"))
  norm += (("batch_stats", "mean"), ("batch_stats", "var"))
  layers = [layer for layer in model.layers if layer.weights]
  flat = {}
  for path, layer in zip(layers_in_order(variables["params"]), layers, strict=True):
    names = norm if path[-1] == "norm" else kernel
    for (kind, name), value in zip(names, layer.get_weights(), strict=True):
      flat[(kind, *path, name)] = np.float32(value)
  ours = unflatten_dict(flat)
  assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, variables)
  return ours


# What the report and the specification print

COUNTS = {
  "photos": (13_955_235, 13_952_163),
  "monet": (83_729_123, 83_716_131),
  "patchgan": (2_768_321, 2_766_529),
}

# In the order of the report's tables: our module's path and its output's shape.
PRINTED = {
  "photos": [
    ("encoder/stage1/conv", (30, 30, 96)),
    ("encoder/stage1", (14, 14, 96)),
    ("encoder/stage2/conv", (14, 14, 256)),
    ("encoder/stage2", (6, 6, 256)),
    ("encoder/stage3/conv", (6, 6, 384)),
    ("encoder/stage4/conv", (6, 6, 384)),
    ("encoder/stage4", (6, 6, 384)),
    ("encoder/stage5/conv", (6, 6, 256)),
    ("encoder/stage5", (2, 2, 256)),
    ("bottleneck/dense", (9216,)),
    ("bottleneck", (6, 6, 256)),
    ("decoder/stage1/conv", (12, 12, 128)),
    ("decoder/stage2/conv", (24, 24, 64)),
    ("decoder/stage3/conv", (48, 48, 64)),
    ("decoder/stage4/conv", (96, 96, 32)),
    ("decoder/output", (192, 192, 3)),
    ("decoder", (128, 128, 3)),
  ],
  "monet": [
    ("encoder/stage1/conv", (64, 64, 64)),
    ("encoder/stage2/conv", (32, 32, 64)),
    ("encoder/stage3/conv", (16, 16, 128)),
    ("encoder/stage4/conv", (8, 8, 256)),
    ("encoder/stage5/conv", (4, 4, 512)),
    ("encoder/stage6/conv", (4, 4, 512)),
    ("bottleneck/conv", (1, 1, 4000)),
    ("decoder/stage1/conv", (2, 2, 512)),
    ("decoder/stage2/conv", (4, 4, 512)),
    ("decoder/stage3/conv", (8, 8, 512)),
    ("decoder/stage4/conv", (16, 16, 256)),
    ("decoder/stage5/conv", (32, 32, 128)),
    ("decoder/stage6/conv", (64, 64, 64)),
    ("decoder/output", (128, 128, 3)),
  ],
  "patchgan": [
    ("stage1/conv", (64, 64, 64)),
    ("stage2/conv", (32, 32, 128)),
    ("stage3/conv", (16, 16, 256)),
    (None, (18, 18, 256)),  # padding is no module of ours
    ("stage4/conv", (15, 15, 512)),
    (None, (17, 17, 512)),
    ("output/conv", (14, 14, 1)),
  ],
}


def our_shapes(module, size=128):
  """Returns the variables' shapes, and {module path: shape of its output}."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  init = functools.partial(module.init, capture_intermediates=True)
  variables = dict(jax.eval_shape(init, jax.random.key(0), image))
  outputs = flatten_dict(variables.pop("intermediates"), sep="/")
  shapes = {
    path.removesuffix("/__call__"): output[0].shape[1:]
    for path, output in outputs.items()
  }
  return variables, shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_counts_and_printed_shapes(keras, name):
  variables, shapes = our_shapes(our_network(name))
  for path, shape in PRINTED[name]:
    assert path is None or shapes[path] == shape, path
  count = {
    kind: sum(map(np.size, jax.tree.leaves(variables[kind]))) for kind in variables
  }
  assert (count["params"] + count["batch_stats"], count["params"]) == COUNTS[name]

  model = NETWORKS[name](keras)
  trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
  assert (model.count_params(), trainable) == COUNTS[name]
  layers = keras.layers
  printed = (layers.Conv2D, layers.Conv2DTranspose, layers.Dense, layers.MaxPooling2D)
  printed += (layers.Reshape, layers.Resizing, layers.ZeroPadding2D)
  shapes = [x.output.shape[1:] for x in model.layers if isinstance(x, printed)]
  assert shapes == [shape for _, shape in PRINTED[name]]


@functools.partial(jax.jit, static_argnums=0)
def train_mode(module, variables, images):
  """Returns the output and the variables with updated statistics."""
  output, updated = module.apply(variables, images, train=True, mutable="batch_stats")
  return output, {**variables, **updated}


@functools.partial(jax.jit, static_argnums=0)
def inference_mode(module, variables, images):
  return module.apply(variables, images)


@pytest.mark.parametrize(
  ("name", "width", "size"),
  [
    slow("photos", 0.125, 128),
    ("monet", 0.125, 64),
    ("patchgan", 0.25, 128),
    ("photos", 0.125, 64),
    slow("photos", 0.125, 256),
    slow("photos", 1.0, 128),
    slow("patchgan", 1.0, 128),
    slow("monet", 0.125, 128),
    slow("monet", 0.125, 256),
    slow("monet", 1.0, 128),
  ],
)
def test_outputs_and_statistics_with_the_same_weights(keras, name, width, size):
  rng = np.random.default_rng(0)
  model = NETWORKS[name](keras, width, size)
  randomize(model, rng)
  for layer in model.layers:
    if isinstance(layer, keras.layers.Dropout):
      layer.rate = 0.0
  module = our_network(name, width, size)
  variables = from_keras(model, our_shapes(module, size)[0])
  before = variables["batch_stats"]

  def ours(output):
    return np.asarray(probabilities(output) if name == "patchgan" else output)

  images = np.float32(rng.uniform(-1, 1, (4, 3, size, size, 3)))
  for batch in images[:3]:
    output, variables = train_mode(module, variables, batch)
    expected = model(batch, training=True).numpy()
    assert 0.1 < expected.std() < 0.9  # neither constant nor saturated
    np.testing.assert_allclose(ours(output), expected, rtol=0, atol=1e-4)

  after = from_keras(model, variables)["batch_stats"]
  for path, expected in flatten_dict(after, sep="/").items():
    actual = flatten_dict(variables["batch_stats"], sep="/")[path]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=path)
    assert np.abs(flatten_dict(before, sep="/")[path] - expected).max() > 1e-3, path

  output = inference_mode(module, variables, images[3])
  expected = model(images[3], training=False).numpy()
  np.testing.assert_allclose(ours(output), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["photos", "patchgan"])
def test_fresh_weights_are_drawn_as_in_keras(keras, name):
  model = NETWORKS[name](keras, 0.25)
  module = our_network(name, 0.25)
  image = jnp.zeros((1, 128, 128, 3))
  key = jax.random.key(0, impl="rbg")  # compiles faster than the default
  variables = jax.jit(module.init)(key, image)
  expected = flatten_dict(from_keras(model, variables), sep="/")
  for path, value in flatten_dict(variables, sep="/").items():
    if path.endswith("kernel"):  # uniform: the largest says how wide
      assert np.abs(value).max() == pytest.approx(
        np.abs(expected[path]).max(), rel=0.02
      )
      assert np.std(value) == pytest.approx(np.std(expected[path]), rel=0.1), path
    else:
      np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
  ("size", "kernel", "stride"),
  [((1, 1), 4, 2), ((5, 7), 4, 2), ((5, 7), 3, 2), ((5, 7), 11, 4), ((5, 7), 4, 1)],
)
def test_transposed_convolution_is_tensorflows(keras, size, kernel, stride, padding):
  import tensorflow as tf

  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 5)).astype(np.float32)
  weights = rng.normal(size=(kernel, kernel, 3, 5)).astype(np.float32)
  overlap = {"SAME": 0, "VALID": max(kernel - stride, 0)}[padding]
  shape = (2, *(n * stride + overlap for n in size), 3)
  expected = tf.nn.conv2d_transpose(x, weights, shape, stride, padding).numpy()
  actual = conv.conv_transpose(
    jnp.asarray(x), jnp.asarray(weights), (stride, stride), padding
  )
  np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)
