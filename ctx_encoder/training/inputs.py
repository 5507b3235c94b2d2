"""The images and silhouettes that a configuration names."""

from collections.abc import Callable

import jax
import numpy as np

from ctx_encoder import data, distributed
from ctx_encoder.config import Config
from ctx_encoder.data.silhouettes import load_silhouettes


def images(config: Config, say: Callable[[str], None]) -> data.Data:
  """Returns the training and validation images, and says what they are.

  Where several processes train together, they share the work of decoding them.

  Raises:
    ValueError: there are too few for a batch, none at all, or too many bad ones.
    FileNotFoundError: there is no such folder or data set.
  """
  options = config.data
  loaded = data.load(
    source=options.source,
    path=options.path,
    split=options.split,
    data_dir=options.data_dir,
    download=options.download,
    image_size=options.load_size or options.image_size,
    validation_fraction=options.validation_fraction,
    max_images=options.max_images,
    max_pixels=options.max_pixels,
    max_bad_share=options.max_bad_share,
    cache=options.cache,
    loader=options.loader,
    processes=_processes(),
  )
  for line in (loaded.summary.notice, loaded.summary.skipped_line()):
    if line:
      say(line)
  say(
    f"{len(loaded.train)} training and {len(loaded.validation)} validation images"
    f" from {loaded.summary.path or loaded.summary.source}."
  )
  data.check_batch_size(len(loaded.train), config.batch_size)
  return loaded


def _processes() -> data.Processes | None:
  if jax.process_count() == 1:
    return None
  return data.Processes(jax.process_index(), jax.process_count(), distributed.gather)


def silhouettes(config: Config) -> np.ndarray | None:
  """Returns the masks `[N, S, S, 1]` for masks.region=shapes, None otherwise."""
  masks = config.masks
  if masks.region != "shapes" or not masks.path:
    return None
  return load_silhouettes(masks.path, config.data.image_size, masks.inverted)


def mean_color(config: Config, examples: data.Examples, most: int = 500) -> list[float]:
  """Returns the mean colour of some images spread over the set, `[3]` in [0, 255].

  Grey where the configuration does not ask for it: it may cost decoding the images.
  """
  if config.masks.fill != "mean":
    return [127.5] * 3
  positions = np.unique(np.linspace(0, len(examples) - 1, most).astype(int))
  return examples.gather(positions).mean(axis=(0, 1, 2), dtype=np.float64).tolist()
