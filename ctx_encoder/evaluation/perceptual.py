"""Metrics in the features of a published network: LPIPS, FID and KID."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import metrics, models, pixels
from ctx_encoder.evaluation import compare
from ctx_encoder.evaluation.compare import Comparison
from ctx_encoder.metrics.headings import METRICS, Metric, of_network
from ctx_encoder.metrics.intervals import Interval
from ctx_encoder.models import weights

# Name in tables, network, and its deepest layer: FID and KID use the mean of that layer
# over all positions.
NETWORKS = {
  "alex": ("AlexNet", models.AlexNet(), "relu5"),
  "squeeze": ("SqueezeNet", models.SqueezeNet(), "fire9"),
  "vgg": ("VGG-16", models.VGG(16), "relu5_3"),
}

_LEAST_IMAGES = 8  # for KID


class Perceptual:
  """Metrics in the features of one network.

  Args:
    name: of the network, a key of `NETWORKS`.
    trunk: file of its weights.
    heads: file of the weights of LPIPS; None for FID and KID only.

  Raises:
    ValueError: a file cannot be read, or is of another network.
  """

  def __init__(self, name: str, trunk: str, heads: str | None = None):
    printed, network, layer = NETWORKS[name]
    self.printed, self.layer = printed, layer
    loaded = weights.load(trunk)
    tapped = models.feature_function(network, loaded, [layer])
    # Weights are arguments, so that they are not compiled in as constants.
    mean = jax.jit(lambda tapped, images: jnp.mean(tapped(images)[layer], (1, 2)))
    self._features = functools.partial(mean, tapped)
    self._lpips = None
    if heads:
      distance = models.make_lpips(name, loaded, weights.load(heads))
      self._lpips = functools.partial(jax.jit(lambda f, x, y: f(x, y)), distance)

  @property
  def columns(self) -> dict[str, Metric]:
    """All metrics to print, the network's name in the headings of its own."""
    deepest = f"{self.printed} {self.layer}"
    names = {"lpips": self.printed, "fid": deepest, "kid": deepest}
    return {
      key: of_network(metric, names[key]) if key in names else metric
      for key, metric in METRICS.items()
    }

  def measure(
    self, completed: jax.Array, originals: jax.Array, mask: jax.Array
  ) -> dict[str, jax.Array]:
    """The standard metrics, and LPIPS of the whole image; see `compare.compare`."""
    return {
      **compare.standard_metrics(completed, originals, mask),
      **self.distance(completed, originals, mask),
    }

  def distance(
    self, completed: jax.Array, originals: jax.Array, mask: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns {"lpips": `[B]`}, of the whole image; {} without its weights."""
    del mask
    return {"lpips": self._lpips(completed, originals)} if self._lpips else {}

  def features(self, images: np.ndarray) -> np.ndarray:
    """Returns `[B, D]` float32 of uint8 `[B, S, S, 3]`."""
    return np.asarray(self._features(pixels.from_uint8(images)))


class Collector:
  """Collects the features of completed and of original images, batch by batch."""

  def __init__(self, perceptual: Perceptual):
    self._perceptual = perceptual
    self._completed: dict[str, list[np.ndarray]] = {}
    self._originals: list[np.ndarray] = []

  def watch(
    self,
    system: str,
    originals: np.ndarray,
    masks: np.ndarray,
    completed: np.ndarray,
  ) -> None:
    """Takes a batch; see `compare.compare`."""
    del masks
    if not self._completed or system == next(iter(self._completed)):
      self._originals.append(self._perceptual.features(originals))
    features = self._perceptual.features(completed)
    self._completed.setdefault(system, []).append(features)

  @property
  def count(self) -> int:
    """Number of images so far."""
    return sum(map(len, self._originals))

  def add_to(self, comparison: Comparison) -> Comparison:
    """Returns the comparison with FID and KID of completed against original images."""
    columns = self._perceptual.columns
    return dataclasses.replace(comparison, sets=self.distributions(), columns=columns)

  def distributions(self) -> dict[str, dict[str, Any]]:
    """Returns {system: {"fid": distance, "kid": interval}} against the originals."""
    real = np.concatenate(self._originals)
    found = {}
    for system, batches in self._completed.items():
      fake = np.concatenate(batches)
      # Completed images resemble their own originals, which would make KID too low:
      # every second completed image is compared with the originals of the others.
      kid = metrics.kernel_distance(fake[::2], real[1::2])
      fid = metrics.frechet_distance(metrics.moments(fake), metrics.moments(real))
      found[system] = {"fid": fid, "kid": Interval(*kid)}
    return found


def validate(
  perceptual: Perceptual, *arguments: Any, **options: Any
) -> dict[str, compare.Means]:
  """`compare.validate` with LPIPS, if its weights are given, and KID.

  KID is left out where there are fewer than eight images.
  """
  collector = Collector(perceptual)
  means = compare.validate(
    *arguments, **options, more=perceptual.distance, watch=collector.watch
  )
  if collector.count < _LEAST_IMAGES:
    return means
  for name, found in collector.distributions().items():
    means[name]["kid"] = found["kid"].mean
  return means
