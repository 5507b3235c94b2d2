"""Feature networks equal NumPy's, PyTorch's and Keras's with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder.data import landscapes
from ctx_encoder.models import (
  VGG,
  AlexNet,
  SqueezeNet,
  feature_function,
  multi_scale_features,
  weights,
)
from ctx_encoder.models.feature_nets import network

SIZES = {"vgg16": (32, 34), "vgg19": (33, 32), "alex": (67, 71), "squeeze": (35, 38)}
NETWORKS = {
  "vgg16": VGG(16),
  "vgg19": VGG(19),
  "alex": AlexNet(),
  "squeeze": SqueezeNet(),
}
networks = pytest.mark.parametrize("name", NETWORKS)
deep = pytest.param("vgg19", marks=pytest.mark.slow)


# torchvision's networks as its documentation has them, row by row of `features`:
# conv (channels, kernel, stride, padding), relu (name), pool (window, whether the last
# may be cut off, name), fire (channels squeezed to, of each branch, name).


def vgg_rows(*blocks):
  rows = []
  for block, (count, channels) in enumerate(
    zip(blocks, (64, 128, 256, 512, 512), strict=True), start=1
  ):
    for i in range(1, count + 1):
      rows += [("conv", channels, 3, 1, 1), ("relu", f"relu{block}_{i}")]
    rows.append(("pool", 2, False, f"pool{block}"))
  return rows


ROWS = {
  "vgg16": vgg_rows(2, 2, 3, 3, 3),
  "vgg19": vgg_rows(2, 2, 4, 4, 4),
  "alex": [
    *(("conv", 64, 11, 4, 2), ("relu", "relu1"), ("pool", 3, False, "pool1")),
    *(("conv", 192, 5, 1, 2), ("relu", "relu2"), ("pool", 3, False, "pool2")),
    *(("conv", 384, 3, 1, 1), ("relu", "relu3")),
    *(("conv", 256, 3, 1, 1), ("relu", "relu4")),
    *(("conv", 256, 3, 1, 1), ("relu", "relu5"), ("pool", 3, False, "pool5")),
  ],
  "squeeze": [
    *(("conv", 64, 3, 2, 0), ("relu", "relu1"), ("pool", 3, True, "pool1")),
    *(("fire", 16, 64, "fire2"), ("fire", 16, 64, "fire3"), ("pool", 3, True, "pool3")),
    *(("fire", 32, 128, "fire4"), ("fire", 32, 128, "fire5")),
    ("pool", 3, True, "pool5"),
    *(("fire", 48, 192, "fire6"), ("fire", 48, 192, "fire7")),
    *(("fire", 64, 256, "fire8"), ("fire", 64, 256, "fire9")),
  ],
}


@functools.cache
def random_weights(name, convolutions=None):
  """Weights with torchvision's names, of all or of the first convolutions."""
  draw, arrays, inputs = np.random.default_rng(1), {}, 3

  def convolution(prefix, channels, kernel, inputs):
    shape = (channels, inputs, kernel, kernel)
    values = draw.normal(size=shape) / np.sqrt(inputs * kernel**2 / 2)
    arrays[f"{prefix}.weight"] = values.astype(np.float32)
    arrays[f"{prefix}.bias"] = draw.normal(size=channels).astype(np.float32) / 10

  for number, (kind, *numbers) in enumerate(ROWS[name]):
    if len(arrays) == 2 * (convolutions or 100):
      break
    if kind == "conv":
      convolution(f"features.{number}", *numbers[:2], inputs)
      inputs = numbers[0]
    elif kind == "fire":
      squeeze, expand, _ = numbers
      convolution(f"features.{number}.squeeze", squeeze, 1, inputs)
      convolution(f"features.{number}.expand1x1", expand, 1, squeeze)
      convolution(f"features.{number}.expand3x3", expand, 3, squeeze)
      inputs = 2 * expand
  return arrays


def numpy_features(name, x, taps=()):
  """All layers up to the last tap, in the type of `x`, `[B, H, W, 3]`."""
  arrays, found = random_weights(name), {}

  def convolve(x, prefix, stride=1, padding=0):
    kernel = arrays[f"{prefix}.weight"].astype(x.dtype)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    x = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    x = np.tensordot(x[:, ::stride, ::stride], kernel, ((3, 4, 5), (1, 2, 3)))
    return x + arrays[f"{prefix}.bias"]

  for number, (kind, *numbers) in enumerate(ROWS[name]):
    prefix, layer = f"features.{number}", numbers[-1]
    if kind == "conv":
      x = convolve(x, prefix, *numbers[2:])
      continue
    if kind == "relu":
      x = np.maximum(x, 0)
    elif kind == "pool":
      window, cut, _ = numbers
      rest = [(0, (n - window) % 2 if cut else 0) for n in x.shape[1:3]]
      x = np.pad(x, ((0, 0), *rest, (0, 0)), constant_values=-np.inf)
      x = np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))
      x = x[:, ::2, ::2].max(axis=(4, 5))
    else:
      x = np.maximum(convolve(x, f"{prefix}.squeeze"), 0)
      branches = (
        convolve(x, f"{prefix}.expand1x1"),
        convolve(x, f"{prefix}.expand3x3", 1, 1),
      )
      x = np.maximum(np.concatenate(branches, axis=3), 0)
    found[layer] = x
    if taps and layer == taps[-1]:
      break
  return found


def torch_layers(name):
  """PyTorch's layers in order, with arbitrary weights."""
  torch = pytest.importorskip("torch")
  nn, inputs = torch.nn, 3

  class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
      super().__init__()
      self.squeeze = nn.Conv2d(inputs, squeeze, 1)
      self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
      self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
      x = self.squeeze(x).relu()
      return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)

  layers = []
  for kind, *numbers in ROWS[name]:
    if kind == "conv":
      layers.append(nn.Conv2d(inputs, *numbers))
      inputs = numbers[0]
    elif kind == "relu":
      layers.append(nn.ReLU())
    elif kind == "pool":
      layers.append(nn.MaxPool2d(numbers[0], 2, ceil_mode=numbers[1]))
    else:
      layers.append(Fire(inputs, *numbers[:2]))
      inputs = 2 * numbers[1]
  return layers


def images(height, width, batch=2, seed=0):
  return np.random.default_rng(seed).uniform(0, 1, (batch, height, width, 3))


def torchvision_input(images):
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  return (images - mean) / std


def assert_close(actual, expected):
  """Up to rounding errors of the largest values."""
  expected = np.asarray(expected)
  assert actual.shape == expected.shape
  np.testing.assert_allclose(actual, expected, 1e-4, 2e-5 * np.abs(expected).max())


@jax.jit
def called(features, x):
  return features(x)


@functools.cache
def our_features(name):
  network = NETWORKS[name]
  features = feature_function(network, random_weights(name), network.layers)
  return called(features, jnp.asarray(images(*SIZES[name]), jnp.float32))


@pytest.mark.parametrize(
  "name", [pytest.param("vgg16", marks=pytest.mark.slow), deep, "alex", "squeeze"]
)
def test_every_layer_equals_numpy(name):
  expected = numpy_features(name, torchvision_input(images(*SIZES[name])))
  assert NETWORKS[name].layers == tuple(expected)
  actual = our_features(name)
  assert actual.keys() == expected.keys()
  for layer in expected:
    assert actual[layer].dtype == jnp.float32
    assert expected[layer].std() > 0.01
    assert_close(actual[layer], expected[layer])


@networks
def test_every_layer_equals_pytorch(name):
  torch = pytest.importorskip("torch")
  layers = torch_layers(name)
  network = torch.nn.Module()
  network.features = torch.nn.Sequential(*layers)
  arrays = random_weights(name)
  network.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
  x = torchvision_input(images(*SIZES[name])).astype(np.float32).transpose(0, 3, 1, 2)
  x, actual, compared = torch.tensor(x), our_features(name), 0
  with torch.no_grad():
    for (kind, *numbers), layer in zip(ROWS[name], layers, strict=True):
      x = layer(x)
      if kind != "conv":
        assert_close(actual[numbers[-1]], x.permute(0, 2, 3, 1))
        compared += 1
  assert compared == len(actual)


@pytest.mark.parametrize(
  ("name", "taps"),
  [
    ("vgg16", ("relu1_1", "pool1", "relu2_1")),
    ("alex", ("relu1", "pool1", "relu2")),
    ("squeeze", ("relu1", "fire2", "pool3")),
  ],
)
def test_gradients_equal_differences(name, taps):
  """Compares with differences in float64; those in float32 would be noise."""
  x = images(*SIZES[name], batch=1)

  def energy(features):
    return sum((features[tap] ** 2).mean() for tap in taps)

  features = feature_function(NETWORKS[name], random_weights(name), taps)
  slope = jax.jit(jax.grad(lambda features, x: energy(features(x)), argnums=1))(
    features, jnp.asarray(x, jnp.float32)
  )
  draw, step = np.random.default_rng(0), 1e-6
  for region in (np.s_[:], np.s_[:, -9:, -9:], np.s_[..., :1]):
    direction = np.zeros_like(x)
    direction[region] = draw.normal(size=x[region].shape)
    there, back = (
      energy(numpy_features(name, torchvision_input(x + h * direction), taps))
      for h in (step, -step)
    )
    expected = (there - back) / (2 * step)
    np.testing.assert_allclose((slope * direction).sum(), expected, 1e-3)


@pytest.mark.parametrize("depth", [16, pytest.param(19, marks=pytest.mark.slow)])
def test_every_layer_equals_keras(depth, tmp_path):
  pytest.importorskip("tensorflow")
  pytest.importorskip("h5py")
  keras = pytest.importorskip("keras")
  make, module = {
    16: (keras.applications.VGG16, keras.applications.vgg16),
    19: (keras.applications.VGG19, keras.applications.vgg19),
  }[depth]
  model = make(include_top=False, weights=None, input_shape=(32, 32, 3))
  draw = np.random.default_rng(depth)
  for layer in model.layers:
    if layer.weights:
      fan_in = np.prod(layer.kernel.shape[:3])
      kernel = draw.normal(0, np.sqrt(2 / fan_in), layer.kernel.shape)
      layer.set_weights([kernel, draw.normal(0, 0.1, layer.bias.shape)])
  model.save_weights(tmp_path / "vgg.weights.h5")
  arrays = weights.load(tmp_path / "vgg.weights.h5")
  x = images(32, 32)
  every = keras.Model(model.inputs, [layer.output for layer in model.layers[1:]])
  expected = every([module.preprocess_input(255 * x).astype(np.float32)])
  network = VGG(depth)
  ours = feature_function(network, arrays, network.layers)
  actual = called(ours, jnp.asarray(x, jnp.float32))
  for layer, features in zip(network.layers, expected, strict=True):
    assert_close(actual[layer], keras.ops.convert_to_numpy(features))


@pytest.mark.slow
def test_only_weights_up_to_the_deepest_tap_are_needed():
  arrays = random_weights("vgg16", 4)  # up to conv2_2
  x = jnp.asarray(images(8, 8), jnp.float32)
  features = feature_function(VGG(16), arrays, ["relu2_2", "pool2", "relu1_1"])(x)
  assert {tap: f.shape for tap, f in features.items()} == {
    "relu2_2": (2, 4, 4, 128),
    "pool2": (2, 2, 2, 128),
    "relu1_1": (2, 8, 8, 64),
  }
  variables = network.network_variables(VGG(16), arrays, ["relu1_1"])
  assert list(variables["params"]) == ["conv1_1"]
  with pytest.raises(ValueError, match=r"pool3 needs features\.10\.weight"):
    feature_function(VGG(16), arrays, ["relu1_1", "pool3"])
  with pytest.raises(ValueError, match=r"relu3_1 needs .* \(256, 128, 3, 3\)"):
    feature_function(VGG(16), arrays, ["relu5_1", "relu3_1"])


@pytest.fixture(scope="module")
def shallow():
  return feature_function(VGG(16), random_weights("vgg16", 2), ["pool1", "relu1_1"])


def test_feature_functions_are_pytrees_of_parameters(shallow):
  assert len(jax.tree.leaves(shallow)) == 4
  x = jnp.asarray(images(6, 6), jnp.float32)
  plain = shallow(x)
  passed = jax.jit(lambda features, x: features(x))(shallow, x)
  for tap in plain:
    np.testing.assert_allclose(passed[tap], plain[tap], 1e-5, 1e-5)


@pytest.mark.slow
def test_features_under_vmap(shallow):
  x = jnp.asarray(images(6, 6, batch=4), jnp.float32)
  plain, mapped = shallow(x), jax.vmap(shallow)(x.reshape(2, 2, 6, 6, 3))
  for tap in plain:
    flat = mapped[tap].reshape(plain[tap].shape)
    np.testing.assert_allclose(flat, plain[tap], 1e-5, 1e-5)


@pytest.mark.slow
def test_features_of_half_precision(shallow):
  x = jnp.asarray(images(6, 6), jnp.bfloat16)
  exact = shallow(x.astype(jnp.float32))
  for tap, features in shallow(x).items():  # only the images have half precision
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, exact[tap])
  network = VGG(16, jnp.bfloat16)
  halves = feature_function(network, random_weights("vgg16", 2), ["pool1"])(x)
  assert halves["pool1"].dtype == jnp.bfloat16
  error = jnp.abs(halves["pool1"].astype(jnp.float32) - exact["pool1"])
  assert 0 < error.max() < 0.05 * exact["pool1"].max()


def test_features_of_an_empty_batch(shallow):
  assert shallow(jnp.zeros((0, 6, 6, 3)))["pool1"].shape == (0, 3, 3, 64)


def test_nonfinite_pixels_give_nonfinite_features(shallow):
  x = jnp.asarray(images(6, 6), jnp.float32)
  for tap, features in shallow(x.at[1, 3, 3, 0].set(np.nan)).items():
    assert np.isfinite(features[0]).all(), tap
    assert not np.isfinite(features[1]).all(), tap


def test_wrong_images_are_refused_while_tracing():
  for name, module in NETWORKS.items():
    features = feature_function(module, random_weights(name), module.layers[:1])
    for shape in ((2, 32, 32), (2, 32, 32, 1), (32, 32, 3)):
      with pytest.raises(ValueError, match=r"images must be \[B, H, W, 3\], not \("):
        jax.eval_shape(features, jax.ShapeDtypeStruct(shape, jnp.float32))
  for name, side, layer in (
    ("vgg16", 3, "pool2"),
    ("alex", 6, "relu1"),
    ("alex", 10, "pool1"),
    ("squeeze", 2, "relu1"),
    ("squeeze", 4, "pool1"),
  ):
    features = feature_function(NETWORKS[name], random_weights(name), [layer])
    with pytest.raises(ValueError, match=f"too small: {layer} "):
      jax.eval_shape(features, jax.ShapeDtypeStruct((1, side, 99, 3), jnp.float32))


def test_wrong_weights_and_layers_are_named():
  arrays = random_weights("vgg16", 2)
  turned = arrays | {"features.2.weight": np.zeros((3, 3, 64, 64))}
  with pytest.raises(ValueError, match=r"relu1_2, not \(3, 3, 64, 64\)"):
    feature_function(VGG(16), turned, ["relu1_2"])
  short = arrays | {"features.2.bias": np.zeros(63)}
  with pytest.raises(
    ValueError, match=r"features\.2\.bias must be \(64,\) for .*pool1"
  ):
    feature_function(VGG(16), short, ["pool1"])
  feature_function(VGG(16), short, ["relu1_1"])  # which does not need it
  with pytest.raises(
    ValueError, match=r"features\.0\.weight or block1_conv1/kernel.*a"
  ):
    feature_function(VGG(16), {"a": np.zeros(3)}, ["relu1_1"])
  with pytest.raises(
    ValueError, match=r"array features\.0\.weight, the first .*no arrays"
  ):
    feature_function(AlexNet(), {}, ["relu1"])
  with pytest.raises(
    ValueError, match="no layer 'conv1_1'; there are relu1_1, relu1_2"
  ):
    feature_function(VGG(16), arrays, ["relu1_1", "conv1_1"])
  with pytest.raises(ValueError, match="at least one layer"):
    feature_function(VGG(16), arrays, [])
  with pytest.raises(ValueError, match="depth of 16 or 19, not 17"):
    feature_function(VGG(17), arrays, ["relu1_1"])


# Random filters


def test_filters_have_mean_zero_and_depend_only_on_the_key():
  features = multi_scale_features(jax.random.key(0), kernels=(3, 6), channels=5)
  filters = jax.tree.leaves(features)
  assert [f.shape for f in filters] == [(3, 3, 3, 5), (6, 6, 3, 5)]
  for f in filters:
    np.testing.assert_allclose(f.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    norms = jnp.sqrt(jnp.square(f).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(norms, norms[0], 1e-5)
  (same,) = jax.tree.leaves(
    multi_scale_features(jax.random.key(0), kernels=(6,), channels=5)
  )
  np.testing.assert_array_equal(same, filters[1])
  (other,) = jax.tree.leaves(
    multi_scale_features(jax.random.key(1), kernels=(6,), channels=5)
  )
  assert jnp.abs(other - same).max() > 0.1


def test_random_features_equal_scipys_correlation():
  scipy = pytest.importorskip("scipy.signal")
  features = multi_scale_features(jax.random.key(0), kernels=(3, 9), channels=2)
  x = images(20, 23, batch=1)
  found = jax.jit(features)(jnp.asarray(x, jnp.float32))
  strides = {3: 1, 9: 2}
  for kernel, filters in zip(strides, jax.tree.leaves(features), strict=True):
    for channel in range(2):
      response = scipy.correlate(
        x[0], np.asarray(filters[..., channel], float), "valid"
      )
      expected = np.maximum(response[:, :, 0], 0)[
        :: strides[kernel], :: strides[kernel]
      ]
      actual = found[f"filters{kernel}"][0, ..., channel]
      np.testing.assert_allclose(actual, expected, 1e-4, 1e-4)
  blank = features(jnp.full((1, 20, 20, 3), 0.7))
  assert all(jnp.abs(f).max() < 1e-4 for f in blank.values())


@pytest.mark.slow
def test_random_features_of_photographs_are_about_one():
  features = jax.jit(multi_scale_features(jax.random.key(0)))
  sizes = []
  for name in ("fields5", "forest1", "city8", "mountain1"):
    photograph = landscapes.read(name)[None, 300:428, 100:228] / 255
    found = features(jnp.asarray(photograph, jnp.float32))
    sizes.append([jnp.sqrt(jnp.mean(jnp.square(f))) for f in found.values()])
  mean = np.mean(sizes, axis=0)  # of each kernel size
  assert (mean > 0.5).all(), mean
  assert (mean < 2).all(), mean


def gram_matrices(features, x):
  """Returns `[B, n]`: the Gram matrices of all sizes of filters."""
  grams = [
    jnp.einsum("bhwc,bhwd->bcd", f, f).reshape(len(f), -1) / f[0, ..., 0].size
    for f in features(x).values()
  ]
  return jnp.concatenate(grams, axis=1)


def streaks(draw, count, across):
  """Noise that is smooth along one axis, with the same values for both axes."""
  noise = draw.normal(size=(count, 40, 40))
  smooth = sum(np.roll(noise, shift, axis=2) for shift in range(6))
  values = np.linspace(0, 1, 1600)[smooth.reshape(count, -1).argsort().argsort()]
  pictures = values.reshape(noise.shape)
  return pictures.swapaxes(1, 2) if across else pictures


@pytest.mark.parametrize("seed", range(3))
def test_gram_matrices_distinguish_textures(seed):
  draw = np.random.default_rng(seed)
  pictures = np.concatenate([streaks(draw, 12, across) for across in (False, True)])
  labels = np.repeat([0, 1], 12)
  x = jnp.asarray(np.repeat(pictures[..., None], 3, axis=3), jnp.float32)
  features = multi_scale_features(jax.random.key(seed), kernels=(3, 5), channels=8)
  grams = np.asarray(jax.jit(gram_matrices)(features, x))
  distances = np.square(grams[:, None] - grams[None]).sum(axis=2)
  np.fill_diagonal(distances, np.inf)
  right = (labels[distances.argmin(axis=1)] == labels).mean()
  assert right > 0.9  # chance: 0.5


def test_wrong_arguments_of_random_filters_are_refused():
  features = multi_scale_features(jax.random.key(0))
  for shape in ((2, 20, 20), (2, 20, 20, 4), (2, 14, 20, 3)):
    with pytest.raises(ValueError, match="sides of at least 15 pixels, not"):
      jax.eval_shape(features, jax.ShapeDtypeStruct(shape, jnp.float32))
  for wrong in ({"kernels": (3, 2)}, {"kernels": ()}, {"channels": 0}):
    with pytest.raises(ValueError, match="kernels must be at least 3"):
      multi_scale_features(jax.random.key(0), **wrong)
