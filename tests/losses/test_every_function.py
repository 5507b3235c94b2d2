"""What holds for every loss and metric: transformations, types of arrays and masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import losses, masks, metrics, morphology

DRAW = np.random.default_rng(0)
COMPLETED, TARGETS = DRAW.random((2, 2, 12, 14, 3), np.float32)
MASK = (DRAW.random((2, 12, 14, 1)) < 0.4).astype(np.float32)
FEATURES = [{"a": DRAW.normal(size=(2, 6, 7, 4)).astype(np.float32)} for _ in range(2)]
PATCHES = (DRAW.random((2, 5, 5, 1)) < 0.5).astype(np.float32)
LOGITS = DRAW.normal(size=(2, *PATCHES.shape)).astype(np.float32)


def of_images(function, **options):
  return lambda mask: function(COMPLETED, TARGETS, mask, **options)


# Functions of a mask that must be 0 or 1.
MASKED = {
  "l1": of_images(losses.masked_l1),
  "l2": of_images(losses.masked_l2, per="image"),
  "huber": of_images(losses.masked_huber),
  "charbonnier": of_images(losses.masked_charbonnier, per="sum"),
  "split": lambda mask: losses.split(losses.masked_l1, COMPLETED, TARGETS, mask),
  "total variation": lambda mask: losses.total_variation(COMPLETED, mask),
  "edges": of_images(losses.edge_loss),
  "colors": lambda mask: losses.color_statistics_loss(COMPLETED, mask, width=2),
  "frequencies": of_images(losses.focal_frequency_loss),
  "seam loss": of_images(losses.seam_loss),
  "overlap": lambda mask: losses.overlap_weights(mask, 2),
  "discounted": losses.discounted_weights,
  "patches": lambda mask: losses.fake_patches(mask, [(4, 2, "SAME"), (3, 1, 0)]),
  "feature matching": lambda mask: losses.feature_matching(*FEATURES, mask=mask),
  "grid loss": lambda mask: losses.grid_loss(COMPLETED, mask),
  "seam error": of_images(metrics.seam_error),
  "grid": lambda mask: metrics.grid_energy(COMPLETED, mask, 2),
}
# Functions of regions, which may be weights, and of masks without a check.
UNCHECKED = {
  "metric l1": of_images(metrics.l1),
  "metric l2": of_images(metrics.l2),
  "psnr": of_images(metrics.psnr),
  "by region": of_images(metrics.by_region),
  "center patch": metrics.center_patch,
  "ssim": of_images(metrics.ssim, window=5),
  "masked ms-ssim": of_images(
    metrics.ms_ssim, masked=True, window=3, weights=(0.5, 0.5)
  ),
  "ms-ssim": of_images(metrics.ms_ssim, window=3, weights=(0.5, 0.5)),
  "dilate": lambda mask: morphology.dilate(mask, 1),
  "ring": lambda mask: morphology.border_ring(mask, 2),
  "distance": morphology.distance_to_known,
  "masked image": lambda mask: masks.masked_image(COMPLETED, mask, 0.5),
  "smooth fill": lambda mask: masks.smooth_fill(COMPLETED, mask),
}


IMAGES = COMPLETED, TARGETS, MASK
# Functions of arrays, to one value per image.
FUNCTIONS = {
  "l1": (losses.masked_l1, IMAGES),
  "l2": (losses.masked_l2, IMAGES),
  "l2 of an image": (functools.partial(losses.masked_l2, per="image"), IMAGES),
  "huber": (losses.masked_huber, IMAGES),
  "charbonnier": (losses.masked_charbonnier, IMAGES),
  "weighted": (
    lambda y, x, mask, weights: losses.masked_l1(y, x, mask, weights=weights),
    (*IMAGES, 3 * MASK),
  ),
  "split": (functools.partial(losses.split, losses.masked_l1), IMAGES),
  "total variation": (losses.total_variation, (COMPLETED, MASK)),
  "seam": (losses.seam_loss, IMAGES),
  "edges": (losses.edge_loss, IMAGES),
  "frequencies": (losses.focal_frequency_loss, IMAGES),
  "colors": (functools.partial(losses.color_statistics_loss, width=2), IMAGES[::2]),
  "style": (losses.style_loss, FEATURES),
  "content": (losses.content_loss, FEATURES),
  "contextual": (losses.contextual_loss, FEATURES),
  "matching": (losses.feature_matching, FEATURES),
  "squared matching": (
    functools.partial(losses.feature_matching, squared=True),
    FEATURES,
  ),
  "by region": (metrics.by_region, IMAGES),
  "ssim": (functools.partial(metrics.ssim, window=3), IMAGES),
  "whole ssim": (functools.partial(metrics.ssim, window=3), IMAGES[:2]),
  "ms-ssim": (
    functools.partial(metrics.ms_ssim, window=3, weights=(0.4, 0.6), masked=True),
    IMAGES,
  ),
  "whole ms-ssim": (
    functools.partial(metrics.ms_ssim, window=3, weights=(0.4, 0.6)),
    IMAGES[:2],
  ),
}
for game in ("bce", "least_squares", "hinge", "wasserstein"):
  FUNCTIONS |= {
    f"{game} discriminator": (getattr(losses, f"{game}_discriminator_loss"), LOGITS),
    f"{game} generator": (getattr(losses, f"{game}_generator_loss"), LOGITS[:1]),
  }


# These compile for seconds.
SLOW = {
  "ms-ssim",
  "contextual",
  "total variation",
  "frequencies",
  "by region",
  "colors",
}
SLOW |= {"whole ssim", "whole ms-ssim", "edges", "style"}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in FUNCTIONS
  ],
)
def test_transformations(name):
  """jit, vmap, one image, none, one with NaN, and half precision."""
  function, arrays = FUNCTIONS[name]
  arrays = jax.tree.map(jnp.asarray, tuple(arrays))
  compiled = jax.jit(function)
  plain = function(*arrays)
  same = functools.partial(
    jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  )
  for values in jax.tree.leaves(plain):
    assert (values.shape, values.dtype) == ((2,), jnp.float32)
  same(compiled(*arrays), plain)
  stacked = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), arrays)
  both = jax.tree.map(lambda x: np.stack([x, x[::-1]]), plain)
  same(jax.jit(jax.vmap(function))(*stacked), both)
  one = compiled(*jax.tree.map(lambda x: x[1:], arrays))
  same(one, jax.tree.map(lambda x: x[1:], plain))
  none = compiled(*jax.tree.map(lambda x: x[:0], arrays))
  assert all(values.shape == (0,) for values in jax.tree.leaves(none))
  bad = jax.tree.map(lambda x: x.at[1].set(np.nan), arrays[0])
  for values in jax.tree.leaves(compiled(bad, *arrays[1:])):
    np.testing.assert_array_equal(np.isfinite(values), [True, False])
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays)
  exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
  for values in jax.tree.leaves(compiled(*half)):
    assert values.dtype == jnp.float32
  same(compiled(*half), compiled(*exact))


@pytest.mark.parametrize("name", [*MASKED, *UNCHECKED])
def test_masks_of_any_type_give_the_same(name):
  function = (MASKED | UNCHECKED)[name]
  expected = jax.tree.leaves(function(jnp.asarray(MASK)))
  for dtype in (bool, np.int32, np.uint8, jnp.bfloat16):
    for mask in (jnp.asarray(MASK, dtype), MASK.astype(dtype)):
      found = jax.tree.leaves(function(mask))
      for value, other in zip(found, expected, strict=True):
        assert value.dtype == other.dtype == jnp.float32
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_0_and_255_are_refused(name):
  for mask in (255 * MASK.astype(np.uint8), 255 * jnp.asarray(MASK, jnp.int32)):
    with pytest.raises(ValueError, match=r"1 in the hole and 0 else.* 255\."):
      MASKED[name](mask)


def test_labels_of_patches_may_be_of_any_type():
  games = {
    losses.bce_discriminator_loss: LOGITS,
    losses.bce_generator_loss: LOGITS[:1],
    losses.hinge_discriminator_loss: LOGITS,
    losses.least_squares_generator_loss: LOGITS[:1],
  }
  for loss, logits in games.items():
    expected = loss(*logits, fake=PATCHES)
    for dtype in (bool, np.int32, np.uint8, jnp.bfloat16):
      found = loss(*logits, fake=jnp.asarray(PATCHES, dtype))
      assert found.dtype == jnp.float32
      np.testing.assert_array_equal(found, expected)
