"""The same networks and the same training step in Keras on TensorFlow, to compare."""

import os

import numpy as np

from ctx_encoder.models.layers import BATCH_NORM_EPSILON, LEAKY_SLOPE, Stage

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

layers = keras.layers
MODES = ("tf.function", "jit")


def _norm(momentum: float):
  return layers.BatchNormalization(momentum=momentum, epsilon=BATCH_NORM_EPSILON)


def _then(stage: Stage):
  for layer in stage.then:
    yield {
      "norm": lambda: _norm(stage.momentum),
      "relu": layers.ReLU,
      "leaky_relu": lambda: layers.LeakyReLU(negative_slope=LEAKY_SLOPE),
      "pool": lambda: layers.MaxPooling2D(3, 2),
      "pool_same": lambda: layers.MaxPooling2D(3, 1, "same"),
      "dropout": lambda: layers.Dropout(stage.dropout),
    }[layer]()


def generator(name: str, image_size: int, width: float):
  """Returns the generator, from the tables that the Flax one is made from."""
  from ctx_encoder.models import decoder, encoder

  def channels(features: int) -> int:
    return max(1, round(features * width))

  model = [keras.Input((image_size, image_size, 3))]
  for stage in getattr(encoder, f"{name}_stages")(image_size):
    model.append(
      layers.Conv2D(
        channels(stage.features),
        stage.kernel,
        stage.stride,
        padding=stage.padding.lower(),
      )
    )
    model += _then(stage)
  if name == "photos":
    code = channels(256)
    model += [layers.Flatten(), layers.Dense(36 * code, "relu"), layers.Dropout(0.4)]
    model.append(layers.Reshape((6, 6, code)))
    stages = decoder.stages_to(decoder.PHOTOS, 6, image_size)
  else:
    model.append(layers.Conv2D(channels(4000), 4))
    model += [layers.LeakyReLU(negative_slope=LEAKY_SLOPE), _norm(0.8)]
    stages = decoder.MONET_FROM_PIXEL + decoder.stages_to(decoder.MONET, 4, image_size)
  for stage in stages:
    model.append(layers.Conv2DTranspose(channels(stage.features), 4, 2, padding="same"))
    model += _then(stage)
  model.append(layers.Conv2DTranspose(3, 4, 2, padding="same"))
  model.append(layers.Resizing(image_size, image_size))
  return keras.Sequential([*model, layers.Activation("tanh")])


def discriminator(image_size: int, width: float):
  """Returns the PatchGAN, to logits."""
  from ctx_encoder.models import patchgan

  model = [keras.Input((image_size, image_size, 3))]
  for stage in patchgan.stages():
    if stage.padding == "VALID":
      model.append(layers.ZeroPadding2D(1))
    features = max(1, round(stage.features * width))
    model.append(
      layers.Conv2D(features, stage.kernel, stage.stride, padding=stage.padding.lower())
    )
    model += _then(stage)
  return keras.Sequential([*model, layers.ZeroPadding2D(1), layers.Conv2D(1, 4)])


def train_step(args, images: np.ndarray, mask: np.ndarray, mode: str):
  """Returns a function that makes one step and waits for it; as `peer_torch`'s."""
  networks = (
    generator(args.generator, args.image_size, args.width),
    discriminator(args.image_size, args.width),
  )
  complete, discriminate = networks
  optimizers = [keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in networks]
  for optimizer, network in zip(optimizers, networks, strict=True):
    optimizer.build(network.trainable_variables)

  @tf.function(jit_compile=mode == "jit")
  def update(real, hole):
    with tf.GradientTape(persistent=True) as tape:
      outputs = complete((1 - hole) * real - hole, training=True)
      completed = (1 - hole) * real + hole * outputs
      logits_real = discriminate(real, training=True)
      logits_fake = discriminate(completed, training=True)
      judging = tf.reduce_mean(tf.nn.softplus(-logits_real))
      judging += tf.reduce_mean(tf.nn.softplus(logits_fake))
      error = tf.reduce_sum((outputs - real) ** 2 * hole) / (3 * tf.reduce_sum(hole))
      painting = 0.999 * error + 0.001 * tf.reduce_mean(tf.nn.softplus(-logits_fake))
    for loss, network, optimizer in zip(
      (painting, judging), networks, optimizers, strict=True
    ):
      gradients = tape.gradient(loss, network.trainable_variables)
      optimizer.apply_gradients(
        zip(gradients, network.trainable_variables, strict=True)
      )
    return painting + judging

  real, hole = tf.constant(images), tf.constant(mask)
  return lambda: float(update(real, hole))


def inference(args, images: np.ndarray, mask: np.ndarray, mode: str):
  """Returns a function that completes the images and waits for it."""
  network = generator(args.generator, args.image_size, args.width)

  @tf.function(jit_compile=mode == "jit")
  def complete(real, hole):
    outputs = network((1 - hole) * real - hole, training=False)
    return (1 - hole) * real + hole * outputs

  real, hole = tf.constant(images), tf.constant(mask)
  return lambda: complete(real, hole).numpy()
