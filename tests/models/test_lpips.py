"""LPIPS equals the published package and its definition in NumPy."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_feature_networks import numpy_features, random_weights, torch_layers

from ctx_encoder.models.feature_nets import lpips
from ctx_encoder.models.feature_nets.lpips import make_lpips

# Layers whose features are compared, and their channels, as in the package.
TAPS = {
  "alex": {"relu1": 64, "relu2": 192, "relu3": 384, "relu4": 256, "relu5": 256},
  "squeeze": {
    **{"relu1": 64, "fire3": 128, "fire5": 256, "fire6": 384},
    **{"fire7": 384, "fire8": 512, "fire9": 512},
  },
  "vgg": {
    **{"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512},
    "relu5_3": 512,
  },
}
TRUNKS = {"alex": "alex", "squeeze": "squeeze", "vgg": "vgg16"}
SIZES = {"alex": (66, 64), "squeeze": (48, 51), "vgg": (32, 33)}
every = pytest.mark.parametrize("name", TAPS)


def head_weights(name):
  """Non-negative, as trained ones are, and sparse."""
  draw = np.random.default_rng(0)
  return {
    f"lin{i}.model.1.weight": draw.exponential(size=(1, c, 1, 1))
    * (draw.random((1, c, 1, 1)) < 0.5)
    for i, c in enumerate(TAPS[name].values())
  }


def batch(name, count=3):
  """Predictions, targets and a region, of which the last two are full and empty."""
  draw = np.random.default_rng(0)
  targets = draw.uniform(0, 1, (count, *SIZES[name], 3))
  predictions = np.clip(targets + draw.normal(0, 0.2, targets.shape), 0, 1)
  region = (draw.random((count, *SIZES[name], 1)) < 0.3).astype(float)
  region[-2], region[-1] = 1, 0
  return [jnp.asarray(x, jnp.float32) for x in (predictions, targets, region)]


def features_of(name, images):
  shift, scale = np.array([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])
  x = (2 * images - 1 - shift) / scale
  return numpy_features(TRUNKS[name], x, tuple(TAPS[name]))


def resize(differences, size):
  """Bilinear interpolation of `[B, h, w]` to `[B, H, W]`, corners not aligned."""
  for axis, (n, to) in enumerate(zip(differences.shape[1:], size, strict=True), 1):
    place = np.clip((np.arange(to) + 0.5) * n / to - 0.5, 0, n - 1)
    low = np.floor(place).astype(int)
    share = np.expand_dims(place - low, (0, 3 - axis))
    high = np.minimum(low + 1, n - 1)
    differences = (1 - share) * differences.take(low, axis) + share * (
      differences.take(high, axis)
    )
  return differences


def oracle(name, predictions, targets, region):
  """The definition in float64: distances of the images, and in the region."""
  maps = []
  pair = features_of(name, predictions), features_of(name, targets)
  for tap, head in zip(TAPS[name], head_weights(name).values(), strict=True):
    ours, theirs = (
      found[tap] / (np.sqrt((found[tap] ** 2).sum(3, keepdims=True)) + 1e-10)
      for found in pair
    )
    maps.append((ours - theirs) ** 2 @ head[0, :, 0, 0])
  values = sum(differences.mean(axis=(1, 2)) for differences in maps)
  pixels = sum(resize(differences, targets.shape[1:3]) for differences in maps)
  inside = region[..., 0]
  total = (pixels * inside).sum(axis=(1, 2))
  return values, total / np.maximum(inside.sum(axis=(1, 2)), 1)


@pytest.mark.parametrize(
  "name",
  ["alex", *(pytest.param(x, marks=pytest.mark.slow) for x in ("squeeze", "vgg"))],
)
def test_values_and_gradients(name):
  predictions, targets, region = arrays = batch(name)
  distance = make_lpips(name, random_weights(TRUNKS[name]), head_weights(name))

  @jax.jit
  def call(distance, predictions):
    def total(predictions):
      values = distance(predictions, targets), distance(predictions, targets, region)
      return values[0].sum() + values[1].sum(), values

    return jax.grad(total, has_aux=True)(predictions)

  slope, (values, regional) = call(distance, predictions)
  predictions, targets, region = (np.asarray(x, float) for x in arrays)
  expected = oracle(name, predictions, targets, region)
  assert values.dtype == regional.dtype == jnp.float32
  assert (expected[0] > 0.1).all()
  np.testing.assert_allclose(values, expected[0], 1e-4)
  np.testing.assert_allclose(regional, expected[1], 1e-4)
  assert regional[-1] == 0
  direction, step = np.random.default_rng(1).normal(size=predictions.shape), 1e-6
  there, back = (
    sum(map(np.sum, oracle(name, predictions + h * direction, targets, region)))
    for h in (step, -step)
  )
  along = (slope * direction).sum()
  # Relative to the standard deviation of a sum of terms of random signs.
  error = np.abs(along - (there - back) / (2 * step)) / np.linalg.norm(slope)
  assert error < 0.02


def published(name, monkeypatch):
  """The package's network with the same weights.

  Layers come from the table of the tests instead of torchvision, the import of which
  takes seconds, and ends the process where TensorFlow was imported before.
  """
  torch = pytest.importorskip("torch")
  layers = torch_layers(TRUNKS[name])
  made = types.SimpleNamespace(features=torch.nn.Sequential(*layers))
  functions = dict.fromkeys(("alexnet", "squeezenet1_1", "vgg16"), lambda **_: made)
  torchvision = types.SimpleNamespace(models=types.SimpleNamespace(**functions))
  monkeypatch.setitem(sys.modules, "torchvision", torchvision)
  for module in ("lpips", "lpips.lpips", "lpips.pretrained_networks", "lpips.trainer"):
    monkeypatch.delitem(sys.modules, module, raising=False)
  package = pytest.importorskip("lpips")
  network = package.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False)
  arrays, heads = random_weights(TRUNKS[name]), head_weights(name)
  given = {k: torch.as_tensor(v).float() for k, v in heads.items()}
  for key in network.state_dict():
    if key.startswith("net."):  # net.slice2.3.weight is features.3.weight
      given[key] = torch.as_tensor(arrays["features." + key.split(".", 2)[2]])
  missing, unexpected = network.load_state_dict(given, strict=False)
  assert unexpected == []
  assert {key.partition(".")[0] for key in missing} <= {"scaling_layer", "lins"}
  return network


@every
def test_equals_the_published_package(name, monkeypatch):
  torch = pytest.importorskip("torch")
  network = published(name, monkeypatch)
  predictions, targets, region = batch(name)
  pair = [torch.tensor(np.moveaxis(x, 3, 1)) for x in (predictions, targets)]
  with torch.no_grad():
    expected = network(*pair, normalize=True).numpy()[:, 0, 0, 0]
    network.spatial = True
    pixels = network(*pair, normalize=True).numpy()[:, 0]
  distance = make_lpips(name, random_weights(TRUNKS[name]), head_weights(name))
  np.testing.assert_allclose(called(distance, predictions, targets), expected, 1e-4)
  inside = np.asarray(region[..., 0])
  mean = (pixels * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
  np.testing.assert_allclose(called(distance, predictions, targets, region), mean, 1e-4)


@jax.jit
def called(distance, *images):
  return distance(*images)


@pytest.fixture(scope="module")
def alex():
  arrays = random_weights("alex")
  return make_lpips("alex", arrays, head_weights("alex"))


@pytest.fixture(scope="module")
def jitted(alex):
  return jax.jit(alex)


@pytest.mark.slow
def test_equal_images_and_order(jitted):
  predictions, targets, region = batch("alex")
  np.testing.assert_array_equal(jitted(targets, targets), 0)
  np.testing.assert_array_equal(jitted(targets, targets, region), 0)
  there, back = jitted(predictions, targets), jitted(targets, predictions)
  np.testing.assert_allclose(there, back, 1e-6)
  assert (there > 0.1).all()


def test_a_region_counts_what_lies_in_it(jitted):
  _, targets, _ = batch("alex", count=2)
  changed = targets.at[:, :20, :20].set(1 - targets[:, :20, :20])
  near = jnp.zeros((2, *SIZES["alex"], 1)).at[:, :20, :20].set(1)
  far = jnp.zeros_like(near).at[:, 50:, 50:].set(1)
  assert (jitted(changed, targets, near) > 3 * jitted(changed, targets, far)).all()
  scaled = jitted(changed, targets, 0.5 * near)  # a weighted mean
  np.testing.assert_allclose(scaled, jitted(changed, targets, near), 1e-5)


@pytest.mark.slow
def test_vmap_and_weights_as_arguments(alex, jitted):
  predictions, targets, _ = batch("alex", count=4)
  plain = jitted(predictions, targets)
  pairs = [x.reshape(2, 2, *x.shape[1:]) for x in (predictions, targets)]
  np.testing.assert_allclose(jax.vmap(jitted)(*pairs).reshape(4), plain, 1e-5)
  np.testing.assert_allclose(called(alex, predictions, targets), plain, 1e-5)
  assert len(jax.tree.leaves(alex)) == 2 * 5 + 5


@pytest.mark.slow
def test_half_precision_images(jitted):
  halves = [x.astype(jnp.bfloat16) for x in batch("alex")[:2]]
  values = jitted(*halves)
  assert values.dtype == jnp.float32
  expected = jitted(*(x.astype(jnp.float32) for x in halves))
  np.testing.assert_allclose(values, expected, 1e-6)


def test_distances_of_an_empty_batch(jitted):
  nothing = jnp.zeros((0, 64, 64, 3))
  assert jitted(nothing, nothing).shape == (0,)
  assert jitted(nothing, nothing, nothing[..., :1]).shape == (0,)


def test_nonfinite_pixels_give_nonfinite_distances(jitted):
  predictions, targets, region = batch("alex")
  bad = predictions.at[0, 30, 30, 1].set(np.nan)
  for given in ((), (region,)):
    clean, values = jitted(predictions, targets, *given), jitted(bad, targets, *given)
    np.testing.assert_array_equal(np.isfinite(values), [False, True, True])
    np.testing.assert_array_equal(values[1:], clean[1:])


@pytest.mark.slow
def test_features_of_zeros_have_gradients():
  arrays = random_weights("alex")
  arrays = {k: v - 1000 if v.ndim == 1 else v for k, v in arrays.items()}
  dark = make_lpips("alex", arrays, head_weights("alex"))
  predictions, targets, _ = batch("alex", count=2)
  total = jax.jit(jax.value_and_grad(lambda x: dark(x, targets).sum()))
  value, slope = total(predictions)
  assert value == 0
  np.testing.assert_array_equal(slope, 0)


def test_normalised_zeros_have_finite_gradients():
  slope = jax.grad(lambda x: lpips._unit(x).sum())(jnp.zeros((1, 1, 1, 2)))
  assert np.isfinite(slope).all()


@pytest.mark.parametrize(
  ("wrong", "named"),
  [
    ({"targets": (2, 64, 65, 3)}, "(2, 64, 64, 3) and (2, 64, 65, 3)"),
    ({"targets": (1, 64, 64, 3)}, "(2, 64, 64, 3) and (1, 64, 64, 3)"),
    ({"predictions": (64, 64, 3)}, "(64, 64, 3) and (2, 64, 64, 3)"),
    (dict.fromkeys(["predictions", "targets"], (2, 64, 64, 1)), "[B, H, W, 3], not"),
    ({"region": (2, 64, 64)}, "not (2, 64, 64) for (2, 64, 64, 3)"),
    ({"region": (1, 64, 64, 1)}, "not (1, 64, 64, 1)"),
    ({"region": (2, 64, 64, 3)}, "not (2, 64, 64, 3)"),
  ],
)
def test_wrong_shapes_are_refused_while_tracing(alex, wrong, named):
  shapes = {"predictions": (2, 64, 64, 3), "targets": (2, 64, 64, 3)}
  arrays = (shapes | {"region": (2, 64, 64, 1)} | wrong).items()
  with pytest.raises(ValueError, match="must") as error:
    jax.eval_shape(alex, **{k: jax.ShapeDtypeStruct(v, "f4") for k, v in arrays})
  assert named in str(error.value)


def test_wrong_weights_are_named():
  arrays, heads = random_weights("alex"), head_weights("alex")
  with pytest.raises(
    ValueError, match="name must be one of alex, squeeze, vgg, not 'a'"
  ):
    make_lpips("a", arrays, heads)
  shallow = random_weights("alex", 3)
  with pytest.raises(ValueError, match=r"relu4 needs features\.8\.weight"):
    make_lpips("alex", shallow, heads)
  with pytest.raises(ValueError, match=r"must have an array features\.0\.weight"):
    make_lpips("vgg", {"block1_conv1/kernel": np.zeros((3, 3, 3, 64))}, heads)
  few = {k: v for k, v in heads.items() if not k.startswith("lin3")}
  with pytest.raises(
    ValueError, match=r"needs lin3\.model\.1\.weight \(1, 256, 1, 1\)"
  ):
    make_lpips("alex", arrays, few)
  with pytest.raises(
    ValueError, match=r"lin1.* must be \(1, 192, 1, 1\) .* not \(192,\)"
  ):
    make_lpips("alex", arrays, heads | {"lin1.model.1.weight": np.zeros(192)})
