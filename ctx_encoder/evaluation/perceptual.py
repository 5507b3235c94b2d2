"""Metrics on the features of a published network: LPIPS, FID and KID."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import metrics, models, pixels
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.metrics import intervals
from ctx_encoder.models.weights import read as weights

# The deepest layer of each network; its mean over positions is what FID and KID see.
NETWORKS = {
  "alex": (models.AlexNet(), "relu5"),
  "squeeze": (models.SqueezeNet(), "fire9"),
  "vgg": (models.VGG(16), "relu5_3"),
}


class Perceptual:
  """What is measured on one network's features.

  Args:
    name: of the network, a key of `NETWORKS`.
    trunk: file of its weights.
    heads: file of the weights of LPIPS, or None for FID and KID alone.

  Raises:
    ValueError: a file cannot be read, or is of another network.
  """

  def __init__(self, name: str, trunk: str, heads: str | None = None):
    network, layer = NETWORKS[name]
    loaded = weights.load(trunk)
    tapped = models.feature_function(network, loaded, [layer])
    # Weights are arguments, and not compiled in.
    mean = jax.jit(lambda tapped, images: jnp.mean(tapped(images)[layer], (1, 2)))
    self._features = functools.partial(mean, tapped)
    self._lpips = None
    if heads:
      distance = models.make_lpips(name, loaded, weights.load(heads))
      self._lpips = functools.partial(jax.jit(lambda f, x, y: f(x, y)), distance)

  def measure(
    self, completed: jax.Array, originals: jax.Array, mask: jax.Array
  ) -> dict[str, jax.Array]:
    """The standard metrics, and LPIPS of the whole image; see `comparison.compare`."""
    measured = comparison.standard_metrics(completed, originals, mask)
    if self._lpips:
      measured["lpips"] = self._lpips(completed, originals)
    return measured

  def features(self, images: np.ndarray) -> np.ndarray:
    """Returns `[B, D]` float32 of uint8 `[B, S, S, 3]`."""
    return np.asarray(self._features(pixels.from_uint8(images)))


class Collector:
  """Gathers the features of completed and of original images, batch by batch."""

  def __init__(self, perceptual: Perceptual):
    self._perceptual = perceptual
    self._completed: dict[str, list[np.ndarray]] = {}
    self._originals: list[np.ndarray] = []

  def see(
    self,
    system: str,
    originals: np.ndarray,
    masks: np.ndarray,
    completed: np.ndarray,
  ) -> None:
    """Takes a batch; see `comparison.compare`."""
    del masks
    if not self._completed or system == next(iter(self._completed)):
      self._originals.append(self._perceptual.features(originals))
    features = self._perceptual.features(completed)
    self._completed.setdefault(system, []).append(features)

  def distributions(self) -> dict[str, dict[str, Any]]:
    """Returns {system: {"fid": ..., "kid": interval}} against the originals."""
    real = np.concatenate(self._originals)
    found = {}
    for system, batches in self._completed.items():
      fake = np.concatenate(batches)
      # Completed images resemble their own originals, which would make KID too low:
      # half of the ones are held against the other half of the others.
      kid = metrics.kernel_distance(fake[::2], real[1::2])
      found[system] = {
        "fid": metrics.frechet_distance(metrics.moments(fake), metrics.moments(real)),
        "kid": intervals.Interval(kid.mean, kid.low, kid.high)._asdict(),
      }
    return found


def distribution_table(found: dict[str, dict[str, Any]]) -> str:
  """Returns a Markdown table of FID and KID."""
  rows: list[Sequence[str]] = [["", "FID", "KID (x 1000)"]]
  for system, row in found.items():
    mean, low, high = (f"{1000 * row['kid'][k]:.2f}" for k in ("mean", "low", "high"))
    rows.append([system, f"{row['fid']:.2f}", f"{mean} [{low}, {high}]"])
  return comparison.markdown(rows)
