"""The engine: against plain loops in NumPy, at any batch size, and without filling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import data, masks
from ctx_encoder.evaluation import compare, perceptual

SIZE = 16


def examples(count=7, bad=()):
  """Images of noise in memory; those in `bad` cannot be decoded."""
  images = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
  names = tuple(f"{i:02d}.png" for i in range(count))

  def read(position):
    if position in bad:
      raise OSError("unreadable")
    return images[position]

  return data.Examples(
    names=names,
    ids=np.arange(100, 100 + count, dtype=np.int32),
    image_size=SIZE,
    images=None if bad else images,
    read=read,
    max_pixels=10**6,
    skipped=data.Skipped({}, count),
    loader="pillow",
  ), images


def darker(images, holes):
  """A system that halves the brightness inside the hole."""
  return np.where(holes > 0, images // 2, images)


def white(images, holes):
  return np.where(holes > 0, np.uint8(255), images)


@pytest.fixture(scope="module")
def holes():
  sample = masks.make_sampler("random_block", SIZE)
  return compare.draw(sample, jax.random.key(3))


def psnr(completed, original, hole):
  error = (completed.astype(np.float64) - original.astype(np.float64)) / 255
  return -10 * np.log10(np.mean(error[hole[..., 0] > 0] ** 2))


def test_metrics_are_those_of_numpy_at_any_batch_size(holes):
  for bad in ((), (2,)):
    found, images = examples(bad=bad)
    drawn = np.asarray(holes(found.ids))
    kept = [i for i in range(7) if i not in bad]
    for batch_size in (3, 7):
      systems = {"white": white, "darker": darker}
      result = compare.compare(systems, found, holes, batch_size=batch_size)
      assert list(result.values) == ["white", "darker"]
      assert result.names == tuple(found.names[i] for i in kept)
      expected = drawn.mean(axis=(1, 2, 3))[kept]
      np.testing.assert_allclose(result.area, expected, rtol=1e-6)
      for name, system in systems.items():
        completed = system(images, drawn)
        expected = [psnr(completed[i], images[i], drawn[i]) for i in kept]
        each = result.values[name]["psnr_hole"]
        np.testing.assert_allclose(each, expected, rtol=1e-4)


def test_watch_and_progress_leave_out_the_filling(holes):
  found, images = examples()
  seen, counts = [], []

  def watch(name, originals, drawn, completed):
    np.testing.assert_array_equal(completed, darker(originals, drawn))
    seen.append((name, originals))

  compare.compare(
    {"darker": darker},
    found,
    holes,
    batch_size=4,
    measure=lambda completed, originals, mask: {"x": jnp.mean(mask, (1, 2, 3))},
    watch=watch,
    progress=counts.append,
  )
  assert counts == [4, 3]
  np.testing.assert_array_equal(np.concatenate([x for _, x in seen]), images)


def test_chosen_images_are_those_of_all(holes):
  found, images = examples()
  batches = compare.chosen_batches(found, [1, 4, 6], 2)
  chosen = compare.over_batches(
    lambda batch: {"image": batch["image"], "hole": holes(batch["index"])}, batches, 3
  )
  np.testing.assert_array_equal(chosen["image"], images[[1, 4, 6]])
  np.testing.assert_array_equal(chosen["hole"], holes(found.ids)[np.array([1, 4, 6])])


def eval_step(variables, batch, key):
  """An evaluation step whose network paints a constant; the left half is the hole."""
  del key
  images = jnp.asarray(batch["image"]) / 255
  mask = jnp.zeros((*images.shape[:3], 1)).at[:, :, : SIZE // 2].set(1)
  error = jnp.mean(jnp.abs(images - variables)[:, :, : SIZE // 2], (1, 2, 3))
  completed = jnp.where(mask > 0, variables, images)
  shown = {"original": images, "masked": images * (1 - mask), "completed": completed}
  return {"l1_hole": error, "loss": 2 * error}, shown | {"mask": mask}


def test_validation_is_the_mean_over_images_beside_the_baselines():
  found, images = examples(5)
  key = jax.random.key(0)
  for batch_size in (2, 5):
    means = compare.validate(
      eval_step, 0.25, found, key, batch_size=batch_size, baselines={"white": white}
    )
    assert list(means) == ["white", compare.MODEL]
    left = images[:, :, : SIZE // 2] / 255
    expected = np.abs(left - 0.25).mean()
    assert means[compare.MODEL]["l1_hole"] == pytest.approx(expected, rel=1e-5)
    assert means[compare.MODEL]["loss"] == pytest.approx(2 * expected, rel=1e-5)
    assert means["white"]["l1_hole"] == pytest.approx((1 - left).mean(), rel=1e-5)
    assert "ssim_hole" not in means["white"]
  alone = compare.validate(eval_step, 0.25, found, key, batch_size=5)
  assert alone == {compare.MODEL: means[compare.MODEL]}


def test_shown_images_are_spread_over_all():
  found, images = examples()
  rows = compare.show(eval_step, 0.0, found, jax.random.key(0), count=3, batch_size=2)
  assert [len(row) for row in rows] == [3, 3, 3]
  for at, (original, masked, _) in zip((0, 3, 6), rows, strict=True):
    np.testing.assert_array_equal(original, images[at])
    assert not masked[:, : SIZE // 2].any()
  few = compare.show(eval_step, 0.0, found, jax.random.key(0), count=99, batch_size=4)
  assert len(few) == 7


def test_areas_hold_every_image_once():
  area = np.array([0.05, 0.1, 0.15, 0.3, 0.31, 0.9, 1.0])
  values = {"a": {"psnr_hole": np.arange(7.0)}}
  found = compare.Comparison(tuple("abcdefg"), area, values)
  assert sum(chosen.sum() for chosen in found.by_area().values()) == 7
  ranges = ["0-10 %", "10-20 %", "20-30 %", "30-50 %", "50-100 %"]
  assert list(found.by_area()) == ranges
  assert list(found.as_json()["buckets"]) == ranges
  rows = found.area_table().markdown().splitlines()
  found_rows = [" ".join(row.split()) for row in rows[2:]]
  assert found_rows[0] == "| a | 0.50 | 2.00 | 3.00 | 4.00 | 5.50 |"
  assert found_rows[1] == "| images | 2 | 1 | 1 | 1 | 2 |"


def test_a_paired_difference_has_a_narrower_interval_than_either_mean():
  draw = np.random.default_rng(0)
  base = draw.normal(20, 5, 200)
  values = {
    "a": {"psnr_hole": base + 0.5 + draw.normal(0, 0.1, 200)},
    "b": {"psnr_hole": base},
  }
  found = compare.Comparison(("",) * 200, np.full(200, 0.2), values)
  mean, low, high = found.difference("a", "b", "psnr_hole")
  assert 0.4 < low < mean < high < 0.6
  wide = found.summary["a"]["psnr_hole"]
  assert wide.high - wide.low > 10 * (high - low)


def test_masks_out_of_files():
  files = np.zeros((3, 4, 4, 1), np.uint8)
  files[1], files[2, :2] = 255, 7
  drawn = jax.vmap(compare.of_files(files))(jax.random.split(jax.random.key(0), 50))
  shares = set(np.asarray(drawn).mean(axis=(1, 2, 3)).tolist())
  assert shares == {0.0, 0.5, 1.0}
  for wrong in (np.zeros((0, 4, 4, 1)), np.zeros((4, 4))):
    with pytest.raises(ValueError, match=r"\[N, S, S, 1\]"):
      compare.of_files(wrong)


@pytest.mark.slow
def test_the_grid_column_is_a_geometric_mean(holes):
  found, _ = examples()

  def checkerboard(originals, drawn):
    rows, columns = np.indices((SIZE, SIZE))
    grid = np.where((rows + columns) % 2, 200, 50)[None, :, :, None]
    return np.where(drawn > 0, grid, originals).astype(np.uint8)

  systems = {"grid": checkerboard, "same": lambda images, holes: images}
  result = compare.compare(systems, found, holes, batch_size=7)
  grid, same = (result.summary[name]["grid_2"] for name in systems)
  each = result.values["grid"]["grid_2"]
  assert grid.mean == pytest.approx(np.exp(np.log(each).mean()))
  assert grid.low <= grid.mean <= grid.high
  assert grid.low > 5 * same.high
  heading = result.table().text().splitlines()[0]
  assert all(f"Grid {period}" in heading for period in compare.GRID_PERIODS)


# Sets of images


@pytest.fixture
def measures(monkeypatch):
  """Metrics in the "features" of a network that returns the image."""
  network = jax.tree_util.Partial(lambda images: {"relu5": images})
  monkeypatch.setattr(perceptual.weights, "load", lambda path: {})
  monkeypatch.setattr(perceptual.models, "feature_function", lambda *args: network)
  return perceptual.Perceptual("alex", "unused.npz")


@pytest.mark.slow
def test_fid_and_kid_name_their_network_and_grow_with_the_difference(measures, holes):
  found, _ = examples(50)
  collector = perceptual.Collector(measures)
  result = compare.compare(
    {"same": lambda images, holes: images, "white": white},
    found,
    holes,
    measure=measures.measure,
    watch=collector.watch,
  )
  result = collector.add_to(result)
  same, other = result.summary["same"], result.summary["white"]
  assert same["fid"] == pytest.approx(0, abs=1e-6)
  assert other["fid"] > 0.01
  assert same["kid"].low < 0 < same["kid"].high
  assert other["kid"].mean > same["kid"].high
  heading = result.table().markdown().splitlines()[0]
  assert "FID, AlexNet relu5" in heading
  assert "KID, AlexNet relu5 (x 1000)" in heading
  assert "LPIPS" not in heading
  assert measures.columns["lpips"].label == "LPIPS, AlexNet"
  assert result.as_json()["systems"]["white"]["fid"] == other["fid"]
  assert "fid" not in dataclasses.replace(result, sets={}).summary["white"]


@pytest.mark.slow
def test_validation_measures_lpips_and_kid(measures, monkeypatch):
  found, images = examples(16)
  key = jax.random.key(0)
  arguments = (eval_step, 0.25, found, key)
  options = {"batch_size": 5, "baselines": {"white": white}}
  plain = compare.validate(*arguments, **options)
  monkeypatch.setattr(
    measures, "_lpips", lambda x, y: jnp.mean(jnp.abs(x - y), (1, 2, 3))
  )
  means = perceptual.validate(measures, *arguments, **options)
  left = images[:, :, : SIZE // 2] / 255
  for name, error in (("white", 1 - left), (compare.MODEL, np.abs(left - 0.25))):
    assert means[name]["lpips"] == pytest.approx(error.mean() / 2, rel=1e-5)
    assert plain[name].items() <= means[name].items()
  collector = perceptual.Collector(measures)
  painted = images.copy()
  painted[:, :, : SIZE // 2] = 64
  collector.watch("painted", images, images, painted)
  kid = collector.distributions()["painted"]["kid"].mean
  assert means[compare.MODEL]["kid"] == pytest.approx(kid, rel=1e-3)
  few, _ = examples(7)
  assert (
    "kid"
    not in perceptual.validate(measures, eval_step, 0.25, few, key, batch_size=4)[
      compare.MODEL
    ]
  )
