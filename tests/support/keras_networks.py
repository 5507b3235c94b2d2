"""The three networks in Keras, built from the report's tables.

Arguments: the module `keras`, `width`, which multiplies channels, and an image size of
64, 128 or 256.
"""

import math

import numpy as np


def photos(keras, width=1.0, size=128):
  layers = keras.layers

  def conv2d(channels, kernel, stride=1, padding="same"):
    channels = round(channels * width)
    return [
      layers.Conv2D(channels, kernel, strides=stride, padding=padding),
      layers.BatchNormalization(epsilon=1e-3),
      layers.ReLU(),
    ]

  def transposed(channels):
    channels = round(channels * width)
    return [
      layers.Conv2DTranspose(channels, 4, strides=2, padding="same"),
      layers.ReLU(),
      layers.BatchNormalization(momentum=0.8, epsilon=1e-3),
    ]

  def pool():
    return layers.MaxPooling2D(3, strides=2)

  return keras.Sequential(
    [
      keras.Input((size, size, 3)),
      *conv2d(96, 11, 4, "valid"),
      pool(),
      *conv2d(256, 5),
      pool(),
      *conv2d(384, 3),
      *conv2d(384, 3),
      layers.MaxPooling2D(3, strides=1, padding="same"),
      *conv2d(256, 3),
      *([pool()] if size >= 128 else []),
      *([*conv2d(256, 3), pool()] if size >= 256 else []),
      layers.Flatten(),
      layers.Dense(6 * 6 * round(256 * width)),
      layers.ReLU(),
      layers.Dropout(0.4),
      layers.Reshape((6, 6, round(256 * width))),
      layers.Conv2DTranspose(round(128 * width), 4, strides=2, padding="same"),
      *transposed(64),
      *transposed(64),
      *(transposed(32) if size >= 128 else []),
      *(transposed(32) if size >= 256 else []),
      layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
      layers.Resizing(size, size, interpolation="bilinear"),
      layers.Activation("tanh"),
    ]
  )


def monet(keras, width=1.0, size=128):
  layers = keras.layers

  def conv2d(channels, stride=2, padding="same"):
    channels = round(channels * width)
    return [
      layers.Conv2D(channels, 4, strides=stride, padding=padding),
      layers.LeakyReLU(negative_slope=0.2),
    ]

  def norm():
    return layers.BatchNormalization(momentum=0.8, epsilon=1e-3)

  def transposed(channels):
    channels = round(channels * width)
    return [
      layers.Conv2DTranspose(channels, 4, strides=2, padding="same"),
      layers.ReLU(),
      norm(),
    ]

  return keras.Sequential(
    [
      keras.Input((size, size, 3)),
      *(*conv2d(64), norm()),
      *(*conv2d(64), norm()),
      *(*conv2d(128), norm()),
      *(*conv2d(256), norm(), layers.Dropout(0.5)),
      *((*conv2d(512), norm(), layers.Dropout(0.5)) if size >= 128 else ()),
      *((*conv2d(512), norm(), layers.Dropout(0.5)) if size >= 256 else ()),
      *(*conv2d(512, stride=1), layers.Dropout(0.5)),
      *(*conv2d(4000, stride=1, padding="valid"), norm()),
      layers.Conv2DTranspose(round(512 * width), 4, strides=2, padding="same"),
      *transposed(512),
      *transposed(512),
      *transposed(256),
      *transposed(128),
      *(transposed(64) if size >= 128 else ()),
      *(transposed(64) if size >= 256 else ()),
      layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
      layers.Activation("tanh"),
    ]
  )


def patchgan(keras, width=1.0, size=128):
  layers = keras.layers

  def conv2d(channels, stride=2, padding="same"):
    channels = round(channels * width)
    return [
      layers.Conv2D(channels, 4, strides=stride, padding=padding),
      layers.LeakyReLU(negative_slope=0.2),
    ]

  def norm():
    return layers.BatchNormalization(momentum=0.8, epsilon=1e-3)

  return keras.Sequential(
    [
      keras.Input((size, size, 3)),
      *conv2d(64),
      *(*conv2d(128), norm()),
      *(*conv2d(256), norm()),
      layers.ZeroPadding2D(1),
      *(*conv2d(512, stride=1, padding="valid"), norm()),
      layers.ZeroPadding2D(1),
      layers.Conv2D(1, 4, padding="valid"),
      layers.Activation("sigmoid"),
    ]
  )


NETWORKS = {"photos": photos, "monet": monet, "patchgan": patchgan}


def randomize(model, rng):
  """Sets random weights: activations of about 1, no BatchNorm close to identity."""
  for layer in model.layers:
    if not layer.weights:
      continue
    shapes = [weight.shape for weight in layer.weights]
    if len(shapes) == 4:  # BatchNorm: scale, shift, mean, variance
      weights = [
        rng.uniform(0.5, 1.5, shapes[0]),
        rng.normal(0, 0.3, shapes[1]),
        rng.normal(0, 0.3, shapes[2]),
        rng.uniform(0.5, 2, shapes[3]),
      ]
    else:
      kernel, bias = shapes
      summed = math.prod(kernel[:-1])  # products summed per output
      if "transpose" in layer.name:
        summed = 4 * kernel[3]  # at stride 2 each output sums 4 of 4x4 taps
      weights = [rng.normal(0, summed**-0.5, kernel), rng.normal(0, 0.1, bias)]
    layer.set_weights([np.float32(weight) for weight in weights])
