"""SSIM against scikit-image and TensorFlow, MS-SSIM against SciPy and TensorFlow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from ctx_encoder import metrics

SHAPE = (4, 13, 16, 3)
TINY = {"window": 3, "sigma": 0.8}
ONE_SCALE = functools.partial(metrics.ssim, **TINY)
TWO_SCALES = functools.partial(metrics.ms_ssim, weights=(0.4, 0.6), **TINY)
measures = pytest.mark.parametrize(
  "measure", [jax.jit(ONE_SCALE), jax.jit(TWO_SCALES)], ids=["ssim", "ms_ssim"]
)


def batch(shape=SHAPE, seed=0):
  """Completions, targets and regions; the last two regions are all and nothing.

  The images are smooth and the completions near them, as completions are.
  """
  draw = np.random.default_rng(seed)
  targets = ndimage.gaussian_filter(draw.random(shape), (0, 1, 1, 0)) * 3 - 1
  completed = targets + draw.normal(0, 0.1, shape)
  region = (draw.random((*shape[:3], 1)) < 0.3).astype(np.float32)
  region[-2], region[-1] = 1, 0
  completed, targets = (
    np.clip(x, 0, 1).astype(np.float32) for x in (completed, targets)
  )
  return completed, targets, region


def scikit_image(completed, targets, **options):
  """Returns the mean and the map of one pair of images, in float64."""
  return structural_similarity(
    completed.astype(float),
    targets.astype(float),
    data_range=1,
    gaussian_weights=True,
    use_sample_covariance=False,
    channel_axis=-1,
    full=True,
    **{"sigma": 1.5} | options,
  )


def similarity(completed, targets, window, sigma):
  """Luminance and structure of a pair of images `[H, W, C]`, in float64."""

  def local(x):
    blur = functools.partial(ndimage.gaussian_filter1d, sigma=sigma, radius=window // 2)
    return blur(blur(x, axis=0), axis=1)

  mean_x, mean_y = local(completed), local(targets)
  variance_x = local(completed**2) - mean_x**2
  variance_y = local(targets**2) - mean_y**2
  covariance = local(completed * targets) - mean_x * mean_y
  luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
  return luminance, (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)


def halved(x):
  """Means of 2x2 pixels, of fewer at the end of an odd size."""
  rows, columns = (np.arange(0, n, 2) for n in x.shape[:2])
  return np.array(
    [[x[i : i + 2, j : j + 2].mean((0, 1)) for j in columns] for i in rows]
  )


def multi_scale(completed, targets, region, weights, window, sigma):
  """MS-SSIM of one pair of images in float64."""
  completed, targets = completed.astype(float), targets.astype(float)
  product = 1.0
  for scale, weight in enumerate(weights):
    luminance, structure = similarity(completed, targets, window, sigma)
    if scale == len(weights) - 1:
      structure = luminance * structure
    if region is None:
      r = window // 2
      means = structure[r:-r, r:-r].mean((0, 1))
    else:
      means = np.average(structure, (0, 1), np.broadcast_to(region, structure.shape))
    product = product * np.maximum(means, 0) ** weight
    completed, targets = halved(completed), halved(targets)
    region = None if region is None else halved(region)
  return product.mean()


@pytest.mark.parametrize(
  ("ours", "theirs"),
  [({}, {}), ({"window": 9, "sigma": 1.2}, {"sigma": 1.2})],
)
def test_the_map_is_that_of_scikit_image_to_the_border(ours, theirs):
  completed, targets, _ = batch()
  found = jax.jit(functools.partial(metrics.ssim_map, **ours))(completed, targets)
  assert found.dtype == jnp.float32
  for values, x, y in zip(found, completed, targets, strict=True):
    _, expected = scikit_image(x, y, **theirs)
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_without_a_region_it_is_the_mean_of_scikit_image():
  completed, targets, _ = batch()
  expected = [scikit_image(x, y)[0] for x, y in zip(completed, targets, strict=True)]
  np.testing.assert_allclose(metrics.ssim(completed, targets), expected, atol=2e-6)


def test_a_region_averages_the_map():
  completed, targets, region = batch()
  found = metrics.ssim(completed, targets, region)
  assert found.dtype == jnp.float32
  for i in range(3):
    _, full = scikit_image(completed[i], targets[i])
    expected = full[region[i, ..., 0] > 0].mean()
    np.testing.assert_allclose(found[i], expected, atol=2e-6)
  within = np.zeros_like(region)
  within[:, 5:-5, 5:-5] = 1
  np.testing.assert_allclose(
    metrics.ssim(completed, targets, within), metrics.ssim(completed, targets), 1e-6
  )


@pytest.mark.slow
def test_ssim_is_that_of_tensorflow():
  tf = pytest.importorskip("tensorflow")
  completed, targets, _ = batch()
  expected = tf.image.ssim(completed, targets, 1.0).numpy()
  np.testing.assert_allclose(metrics.ssim(completed, targets), expected, atol=2e-5)


@pytest.mark.parametrize("size", [(48, 64), (35, 41)])
def test_ms_ssim_is_that_of_tensorflow(size):
  tf = pytest.importorskip("tensorflow")
  completed, targets, _ = batch((2, *size, 3))
  expected = tf.image.ssim_multiscale(
    tf.constant(completed), tf.constant(targets), 1.0, filter_size=3, filter_sigma=0.8
  )
  found = jax.jit(functools.partial(metrics.ms_ssim, **TINY))(completed, targets)
  np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_ms_ssim_is_that_of_pytorch_msssim():
  theirs = pytest.importorskip("pytorch_msssim")
  torch = pytest.importorskip("torch")
  completed, targets, _ = batch((2, 48, 64, 3))
  images = [torch.tensor(x.transpose(0, 3, 1, 2)) for x in (completed, targets)]
  expected = theirs.ms_ssim(
    *images, data_range=1, size_average=False, win_size=3, win_sigma=0.8
  )
  found = jax.jit(functools.partial(metrics.ms_ssim, **TINY))(completed, targets)
  np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(12, 16), (11, 13)])
def test_ms_ssim_is_the_formula(size, masked):
  completed, targets, region = batch((3, *size, 2))
  weights = (0.3, 0.5, 0.2)
  call = jax.jit(functools.partial(metrics.ms_ssim, weights=weights, **TINY))
  found = call(completed, targets, region if masked else None)
  assert found.dtype == jnp.float32
  for i in range(2 if masked else 3):
    given = region[i].astype(float) if masked else None
    expected = multi_scale(completed[i], targets[i], given, weights, **TINY)
    np.testing.assert_allclose(found[i], expected, rtol=5e-6)


def masked_similarity(x, y, region, window, sigma):
  """Luminance and structure of a pair `[H, W, C]`, of the region's pixels only."""
  blur = functools.partial(ndimage.gaussian_filter1d, sigma=sigma, radius=window // 2)
  share = blur(blur(region, axis=0), axis=1)

  def local(values):
    return blur(blur(region * values, axis=0), axis=1) / np.where(share > 0, share, 1)

  mean_x, mean_y = local(x), local(y)
  covariance = local(x * y) - mean_x * mean_y
  variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
  luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
  return luminance, (2 * covariance + 9e-4) / (variances + 9e-4)


def masked_multi_scale(x, y, region, weights, window, sigma):
  product, region = 1.0, region.astype(float)
  for scale, weight in enumerate(weights):
    luminance, structure = masked_similarity(x, y, region, window, sigma)
    if scale == len(weights) - 1:
      structure = luminance * structure
    means = np.average(structure, (0, 1), np.broadcast_to(region, structure.shape))
    product = product * np.maximum(means, 0) ** weight
    share = halved(region)
    x, y = (halved(region * z) / np.where(share > 0, share, 1) for z in (x, y))
    region = share
  return product.mean()


@pytest.mark.parametrize("weights", [(1.0,), (0.4, 0.6)])
def test_masked_windows_read_the_region_only(weights):
  completed, targets, region = batch((4, 12, 16, 2))
  if weights == (1.0,):
    measure = jax.jit(functools.partial(ONE_SCALE, masked=True))
  else:
    measure = jax.jit(functools.partial(TWO_SCALES, masked=True))
  found = measure(completed, targets, region)
  assert found.dtype == jnp.float32
  pairs = [x.astype(float) for x in (completed, targets)]
  for i in range(3):
    expected = masked_multi_scale(pairs[0][i], pairs[1][i], region[i], weights, **TINY)
    np.testing.assert_allclose(found[i], expected, rtol=5e-6)
  assert found[3] == 1
  elsewhere = [np.where(region > 0, x, np.nan) for x in (completed, targets)]
  np.testing.assert_array_equal(measure(*elsewhere, region), found)
  everywhere = np.ones_like(region)
  np.testing.assert_allclose(
    measure(completed, targets, everywhere),
    (ONE_SCALE if weights == (1.0,) else TWO_SCALES)(completed, targets, everywhere),
    rtol=1e-5,
  )
  slope = jax.jit(jax.grad(lambda x: measure(x, targets, region).sum()))(completed)
  assert np.isfinite(slope).all()
  np.testing.assert_array_equal(slope[np.broadcast_to(region == 0, slope.shape)], 0)
  assert np.abs(slope[:3]).max() > 0.01
  with pytest.raises(ValueError, match="masked=True needs a region"):
    measure(completed, targets)


def test_the_published_weights_sum_to_one():
  assert sum(metrics.MS_SSIM_WEIGHTS) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("level", [0, 0.1, 0.9, 1])
@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2])
def test_flat_images_do_not_cancel_digits(level, noise):
  draw = np.random.default_rng(0)
  images = level + noise * draw.standard_normal((2, 1, 13, 16, 1))
  x, y = images.astype(np.float32)
  expected = np.multiply(*similarity(x[0].astype(float), y[0].astype(float), 11, 1.5))
  np.testing.assert_allclose(metrics.ssim_map(x, y)[0], expected, rtol=0, atol=3e-7)


def test_flat_images_by_hand():
  x, y = np.full((1, 11, 11, 1), 0.25), np.full((1, 11, 11, 1), 0.75)
  expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
  found = metrics.ssim_map(x, y)
  np.testing.assert_allclose(found, np.full(x.shape, expected), rtol=1e-6)
  weight = 0.3
  found = metrics.ms_ssim(x, y, weights=[weight])
  np.testing.assert_allclose(found, [expected**weight], rtol=1e-6)


@measures
def test_equal_images_and_empty_regions_score_one(measure):
  completed, targets, region = batch()
  assert (measure(targets, targets) == 1).all()
  assert (measure(targets, targets, region) == 1).all()
  assert (measure(completed, targets, np.zeros_like(region)) == 1).all()
  assert (metrics.ssim_map(targets, targets) == 1).all()


def test_opposite_images_score_zero_and_have_a_finite_gradient():
  completed, *_ = batch((2, 9, 8, 1))
  pattern = np.round(completed)
  assert (ONE_SCALE(pattern, 1 - pattern) < 0).all()
  score = jax.jit(jax.value_and_grad(lambda x: TWO_SCALES(x, 1 - pattern).sum()))
  value, gradient = score(pattern)
  assert value == 0
  assert (gradient == 0).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [(1.0,), (0.4, 0.6)])
def test_gradients_by_finite_differences(weights, masked):
  completed, targets, region = batch((3, 5, 6, 2))
  completed, targets = completed[:1], targets[:1]
  region = region[:1] if masked else None
  if weights == (1.0,):
    score = ONE_SCALE
  else:
    score = functools.partial(metrics.ms_ssim, weights=weights, **TINY)
  gradient = jax.jit(jax.grad(lambda *images: score(*images, region).sum(), (0, 1)))
  found = gradient(completed, targets)

  def oracle(images):
    given = None if region is None else region[0].astype(float)
    return multi_scale(*images, given, weights, **TINY)

  images = np.stack([completed[0], targets[0]]).astype(float)
  expected = np.empty_like(images)
  for place in np.ndindex(images.shape):
    step = np.zeros_like(images)
    step[place] = 1e-6
    expected[place] = (oracle(images + step) - oracle(images - step)) / 2e-6
  assert np.abs(expected).max() > 0.01
  np.testing.assert_allclose(np.stack(found)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_the_map_of_an_empty_batch():
  completed, targets, _ = (x[:0] for x in batch())
  assert metrics.ssim_map(completed, targets).shape == (0, *SHAPE[1:])


@measures
def test_half_precision_is_computed_in_float32(measure):
  completed, targets, _ = batch((2, 24, 24, 2))
  region = np.zeros((2, 24 * 24, 1, 1), np.float32)
  region[:, :301] = 1  # 301 is no bfloat16
  region = region.reshape(2, 24, 24, 1)
  half = [jnp.asarray(x, jnp.bfloat16) for x in (completed, targets, region)]
  found = measure(*half)
  assert found.dtype == jnp.float32
  full = [x.astype(jnp.float32) for x in half]
  np.testing.assert_allclose(found, measure(*full), rtol=1e-6)
  np.testing.assert_allclose(found, measure(*full[:2], region > 0), rtol=1e-6)


@measures
def test_nan_gives_nan(measure):
  completed, targets, region = batch()
  completed[0, *np.argwhere(region[0, ..., 0] > 0)[0]] = np.nan
  for given in (None, region):
    found = measure(completed, targets, given)
    assert np.isfinite(found[1:]).all()
  assert np.isnan(found[0])


@measures
def test_wrong_shapes_are_refused_while_tracing(measure):
  images = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
  for shape in ((*SHAPE[:3], 1), (1, *SHAPE[1:]), SHAPE[1:]):
    other = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match="must have one shape") as error:
      jax.eval_shape(measure, images, other)
    assert f"not {SHAPE} and {shape}" in str(error.value)
  for shape in (SHAPE, SHAPE[:3], (1, *SHAPE[1:3], 1)):
    region = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match="region must be") as error:
      jax.eval_shape(measure, images, images, region)
    assert f"not {shape} for {SHAPE}" in str(error.value)


@pytest.mark.parametrize("measure", [metrics.ssim, metrics.ssim_map, metrics.ms_ssim])
def test_wrong_windows_are_refused(measure):
  images = jnp.zeros(SHAPE)
  with pytest.raises(ValueError, match="window must be odd and positive, not 4"):
    measure(images, images, window=4)
  with pytest.raises(ValueError, match="sigma must be positive, not 0"):
    measure(images, images, sigma=0)
  with pytest.raises(
    ValueError, match=r"window of 15, not \(4, 13, 16, 3\); pass a sma"
  ):
    measure(images, images, window=15)


@pytest.mark.parametrize("weights", [(), (0.5, 0.0), (0.5, -0.5)])
def test_wrong_weights_are_refused(weights):
  images = jnp.zeros(SHAPE)
  with pytest.raises(ValueError, match="weights must be positive, one for each scale"):
    metrics.ms_ssim(images, images, weights=weights, **TINY)


def test_the_error_of_small_images_names_valid_arguments():
  def trace(size, **options):
    images = jax.ShapeDtypeStruct((2, size, 200, 3), jnp.float32)
    call = functools.partial(metrics.ms_ssim, **options)
    return jax.eval_shape(call, images, images).shape

  with pytest.raises(ValueError, match="at least 161 pixels") as error:
    trace(128)
  assert "(2, 128, 200, 3)" in str(error.value)
  assert "pass at most 4 weights" in str(error.value)
  assert "MS_SSIM_WEIGHTS[:4], or a window of at most 7." in str(error.value)
  assert trace(128, weights=metrics.MS_SSIM_WEIGHTS[:4]) == (2,)
  assert trace(128, window=7) == (2,)
  assert trace(161) == (2,)
  with pytest.raises(ValueError, match="at least 161 pixels"):
    trace(160)
