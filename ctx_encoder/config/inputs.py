"""Sections of the configuration: images, holes and augmentation."""

import dataclasses

from ctx_encoder.config.fields import Section, field

MASK_KINDS = ("center", "random_block", "random_region", "brush")


@dataclasses.dataclass
class Data(Section):
  """Where the images come from and how they are read."""

  source: str = field(
    "auto",
    "kind of data.path; auto = found out from it",
    choices=("auto", "samples", "folder", "tfrecord", "tfds"),
  )
  path: str = field(
    "",
    "folder of images, folder of TFRecords, or TFDS name; empty = embedded photographs",
    may_change=True,
  )
  split: str = field("train", "TFDS split to read, e.g. trainA")
  data_dir: str = field(
    "", "folder where TFDS keeps its data sets; empty = its default", may_change=True
  )
  download: bool = field(False, "let TFDS download the data set", may_change=True)
  image_size: int = field(128, "side of the network's input", low=16, high=1024)
  load_size: int = field(
    0,
    "side that images are stored at; training takes random crops of image_size."
    " 0 = image_size",
    low=0,
    high=2048,
  )
  validation_fraction: float = field(
    0.2, "share of images kept for validation, by a hash of the name", low=0, high=0.9
  )
  max_images: int = field(0, "use at most this many images; 0 = all", low=0)
  max_pixels: int = field(100_000_000, "refuse images with more pixels", low=1)
  max_bad_share: float = field(
    0.1,
    "undecodable images are skipped up to this share; above it the run ends",
    low=0,
    high=1,
    may_change=True,
  )
  placement: str = field(
    "auto",
    "keep decoded images on the device, or feed batches from the host",
    choices=("auto", "host", "device"),
    may_change=True,
  )
  cache: str = field(
    "auto",
    "keep decoded images in memory, or decode again every epoch",
    choices=("auto", "memory", "none"),
    may_change=True,
  )
  loader: str = field(
    "auto",
    "tf.data, or threads with Pillow; auto = tf.data where it is installed and images"
    " are decoded every epoch",
    choices=("auto", "tf", "pillow"),
    may_change=True,
  )
  normalization: str = field(
    "symmetric",
    "x / 127.5 - 1, x / 255, or each image's own minimum and maximum to -1 and 1",
    choices=("symmetric", "unit", "minmax"),
  )


@dataclasses.dataclass
class Probabilities(Section):
  """Weights of the kinds of holes that masks.kind=combined draws from."""

  center: float = field(1.0, "weight of the kind in masks.kind=combined", low=0)
  random_block: float = field(1.0, "weight of the kind in masks.kind=combined", low=0)
  random_region: float = field(1.0, "weight of the kind in masks.kind=combined", low=0)
  brush: float = field(0.0, "weight of the kind in masks.kind=combined", low=0)


@dataclasses.dataclass
class Masks(Section):
  """The holes and what they are filled with."""

  kind: str = field("center", "kind of hole", choices=(*MASK_KINDS, "combined"))
  fill: str = field(
    "black",
    "what the hole is filled with: black, white, the data's mean colour, #rrggbb, or"
    " smooth (interpolated from the border)",
  )
  center_fraction: float = field(
    0.5, "side of the centre hole, relative to the image's", low=0.05, high=1
  )
  block_count: int = field(4, "most rectangles in a mask", low=1, high=64)
  block_min_side: float = field(
    0.15, "shortest rectangle side, relative to the image's", low=0.02, high=1
  )
  block_max_side: float = field(
    0.4, "longest rectangle side, relative to the image's", low=0.02, high=1
  )
  block_max_area: float = field(
    0.25,
    "most area that the rectangles cover, relative to the image's",
    low=0.01,
    high=1,
  )
  region: str = field(
    "noise",
    "shapes of random_region: thresholded noise, or silhouettes from masks.path",
    choices=("noise", "shapes"),
  )
  path: str = field(
    "", "folder of silhouettes for masks.region=shapes", may_change=True
  )
  inverted: bool = field(False, "silhouettes have 0 = hole instead of 255 = hole")
  brush_strokes: int = field(4, "most strokes in a mask", low=1, high=32)
  brush_width: float = field(
    0.1, "widest stroke, relative to the image's side", low=0.01, high=0.5
  )
  probabilities: Probabilities = dataclasses.field(default_factory=Probabilities)


@dataclasses.dataclass
class Augment(Section):
  """Random changes of the training images, on the device."""

  rotation: float = field(0.0, "largest rotation either way, degrees", low=0, high=180)
  zoom: float = field(0.0, "zoom by up to 1 + this", low=0, high=4)
  crop: float = field(0.0, "shift by up to this share of the side", low=0, high=0.5)
  flip_horizontal: float = field(0.0, "probability of a left-right flip", low=0, high=1)
  flip_vertical: float = field(0.0, "probability of an upside-down flip", low=0, high=1)
  brightness: float = field(0.0, "add up to this either way, on [0, 1]", low=0, high=1)
  contrast: float = field(
    0.0, "contrast factor from 1 - this to 1 + this", low=0, high=1
  )
  saturation: float = field(
    0.0, "saturation factor from 1 - this to 1 + this", low=0, high=1
  )
  hue: float = field(
    0.0, "turn the hue by up to this share of the circle", low=0, high=0.5
  )
