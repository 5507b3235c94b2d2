"""VGG networks, and how features are taken from networks of published weights.

Such a network is a Flax module that knows the names of its layers, in order, and under
which names the weights of its convolutions are published; see `FeatureNetwork`.
`feature_function` makes of it and of weights a function of images.

References: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale
  Image Recognition, ICLR 2015, table 1 (D and E).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.layers import ConvStage, Settings, Stage
from ctx_encoder.models.ops import conv

Features = dict[str, jax.Array]
Weights = Mapping[str, jax.typing.ArrayLike]

_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions in each, by depth
_CHANNELS = (64, 128, 256, 512, 512)

# Of the images of ImageNet: RGB in [0, 1] as torchvision has them, and BGR in [0, 255]
# as Caffe's VGG and hence Keras's has them.
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


class Convolution(NamedTuple):
  """Where the weights of a convolution are published, and where they go.

  layer: the first layer of the network that needs it.
  path: of its parameters in those of the module.
  shape: of its kernel, `[kh, kw, C, D]`.
  torchvision: what its weights are called there, before `.weight` and `.bias`.
  keras: the same in Keras, before `/kernel` and `/bias`, if it has the network.
  """

  layer: str
  path: tuple[str, ...]
  shape: tuple[int, int, int, int]
  torchvision: str
  keras: str | None = None


class FeatureNetwork(Protocol):
  """What `VGG`, `AlexNet` and `SqueezeNet` have in common."""

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the layers that can be tapped, in order."""
    ...

  @property
  def convolutions(self) -> tuple[Convolution, ...]: ...

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...


class VGG(nn.Module):
  """The convolutions of VGG-16 or VGG-19.

  Layers are called `relu{block}_{i}` (a convolution and its ReLU, from relu1_1 on) and
  `pool{block}`. Called with `[B, H, W, 3]` as `torchvision_input` or `caffe_input`
  prepare them, and the layers to tap; returns `{layer: [B, h, w, C]}`. Nothing behind
  the deepest tap is computed, nor are its parameters needed.
  """

  depth: int = 16
  dtype: Any = jnp.float32

  @property
  def layers(self) -> tuple[str, ...]:
    if self.depth not in _BLOCKS:
      raise ValueError(f"VGG has a depth of 16 or 19, not {self.depth}.")
    names = []
    for block, count in enumerate(_BLOCKS[self.depth], start=1):
      names += [f"relu{block}_{i + 1}" for i in range(count)] + [f"pool{block}"]
    return tuple(names)

  @property
  def convolutions(self) -> tuple[Convolution, ...]:
    found, inputs = [], 3
    for number, layer in enumerate(self.layers):  # torchvision counts each ReLU too
      if layer.startswith("relu"):
        block, i = layer.removeprefix("relu").split("_")
        outputs = _CHANNELS[int(block) - 1]
        path = (f"conv{block}_{i}", "conv")
        torchvision = f"features.{number + len(found)}"
        keras = f"block{block}_conv{i}"
        shape = (3, 3, inputs, outputs)
        found.append(Convolution(layer, path, shape, torchvision, keras))
        inputs = outputs
    return tuple(found)

  @nn.compact
  def __call__(self, x: jax.Array, taps: Sequence[str]) -> Features:
    convolutions = {convolution.layer: convolution for convolution in self.convolutions}
    features = {}
    for layer in layers_to(self.layers, taps):
      if layer in convolutions:
        (name, _), (*_, outputs) = convolutions[layer].path, convolutions[layer].shape
        stage = Stage(outputs, kernel=3, stride=1, then=("relu",))
        x = ConvStage(stage, Settings(dtype=self.dtype), name=name)(x)
      else:
        x = conv.max_pool(large_enough(x, 2, layer), 2, 2, "VALID")
      features[layer] = x
    return {tap: features[tap] for tap in taps}


def feature_function(
  network: FeatureNetwork, weights: Weights, taps: Sequence[str]
) -> Callable[[jax.Array], Features]:
  """Returns a function from images to what layers of a network give for them.

  Images are prepared as the weights need it: with torchvision's names by
  `torchvision_input`, with Keras's by `caffe_input`.

  Args:
    network: such as `VGG(16)`.
    weights: arrays by their published names, see `weights.load`; more or deeper ones
      than the taps need are ignored.
    taps: names of the layers, of `network.layers`.

  Returns:
    Function of `[B, H, W, 3]` in [0, 1] to `{tap: [B, h, w, C]}` of the network's type.
    It is a pytree whose leaves are the parameters: given to a jitted function as an
    argument they are not compiled into it.

  Raises:
    ValueError: weights are missing or of another shape, or there is no such layer. The
      function itself raises it for images of a wrong shape, or too small for a tap.
  """
  taps = tuple(taps)
  variables = network_variables(network, weights, taps)
  caffe = naming(network, weights) == "keras"
  prepare = caffe_input if caffe else torchvision_input

  def features(variables, images):
    return network.apply(variables, prepare(images), taps)

  return jax.tree_util.Partial(features, variables)


def network_variables(
  network: FeatureNetwork, weights: Weights, taps: Sequence[str]
) -> dict[str, Any]:
  """Returns the variables that a network needs for its layers up to the deepest tap.

  Args:
    network: such as `VGG(16)`.
    weights: arrays by the names of torchvision (`features.0.weight`, `[D, C, kh, kw]`)
      or of Keras (`block1_conv1/kernel`, `[kh, kw, C, D]`).
    taps: names of the layers.

  Returns:
    `{"params": ...}`, float32, for `network.apply`.

  Raises:
    ValueError: weights are missing or of another shape, or there is no such layer.
  """
  needed = layers_to(network.layers, taps)
  named = naming(network, weights)
  params: dict[str, Any] = {}
  for convolution in network.convolutions:
    if convolution.layer not in needed:
      break
    deeper = network.layers[network.layers.index(convolution.layer) :]
    tap = next(layer for layer in deeper if layer in taps)
    kernel, bias = _read(convolution, weights, named, tap)
    *outer, last = convolution.path
    inner = params
    for name in outer:
      inner = inner.setdefault(name, {})
    inner[last] = {"kernel": kernel, "bias": bias}
  return {"params": params}


def naming(network: FeatureNetwork, weights: Weights) -> str:
  """Returns whose names weights have: "torchvision" or "keras"."""
  first = network.convolutions[0]
  if f"{first.torchvision}.weight" in weights:
    return "torchvision"
  if first.keras is not None and f"{first.keras}/kernel" in weights:
    return "keras"
  expected = f"{first.torchvision}.weight" + (
    f" or {first.keras}/kernel" if first.keras else ""
  )
  raise ValueError(
    f"The weights have no array {expected}, with which those of the network begin; they"
    f" have {', '.join(list(weights)[:3]) or 'none at all'}."
  )


def _read(convolution: Convolution, weights: Weights, naming: str, tap: str):
  """Returns kernel and bias of a convolution."""
  kh, kw, inputs, outputs = convolution.shape
  if naming == "torchvision":
    names = f"{convolution.torchvision}.weight", f"{convolution.torchvision}.bias"
    shapes = (outputs, inputs, kh, kw), (outputs,)
  else:
    names = f"{convolution.keras}/kernel", f"{convolution.keras}/bias"
    shapes = convolution.shape, (outputs,)
  for name, shape in zip(names, shapes, strict=True):
    if name not in weights:
      raise ValueError(f"Layer {tap} needs {name} {shape}, which the weights lack.")
    if (found := jnp.shape(weights[name])) != shape:
      raise ValueError(f"{name} must be {shape} for layer {tap}, not {found}.")
  kernel, bias = (jnp.asarray(weights[name], jnp.float32) for name in names)
  return kernel.transpose(2, 3, 1, 0) if naming == "torchvision" else kernel, bias


def layers_to(layers: tuple[str, ...], taps: Sequence[str]) -> tuple[str, ...]:
  """Returns the layers up to the deepest tap; raises ValueError for an unknown one."""
  if not taps:
    raise ValueError("taps must name at least one layer.")
  for tap in taps:
    if tap not in layers:
      raise ValueError(f"There is no layer {tap!r}; there are {', '.join(layers)}.")
  return layers[: 1 + max(layers.index(tap) for tap in taps)]


def large_enough(x: jax.Array, window: int, layer: str) -> jax.Array:
  """Returns `x`; raises ValueError if a window of a layer does not fit into it."""
  if min(x.shape[1:3]) < window:
    raise ValueError(
      f"The images are too small: {layer} takes windows of {window} x {window} from"
      f" what is {x.shape[1]} x {x.shape[2]} by then."
    )
  return x


def torchvision_input(images: jax.Array) -> jax.Array:
  """Prepares `[B, H, W, 3]` in [0, 1] as torchvision does: (x - mean) / std."""
  mean, std = jnp.array(_TORCHVISION_MEAN), jnp.array(_TORCHVISION_STD)
  return (_pixels(images) - mean[None, None, None]) / std[None, None, None]


def caffe_input(images: jax.Array) -> jax.Array:
  """Prepares `[B, H, W, 3]` in [0, 1] as Keras does for VGG: 255 x - mean, BGR."""
  return 255 * _pixels(images)[..., ::-1] - jnp.array(_CAFFE_MEAN)[None, None, None]


def for_torchvision_input(
  kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the first kernel and bias of Keras's VGG for `torchvision_input`.

  They give the same but along the image's border, where zeros are put: the two ways'
  mean colours, which these stand for, differ by up to 0.5 of 255.
  """
  kernel = kernel[:, :, ::-1]
  offset = 255 * jnp.array(_TORCHVISION_MEAN) - jnp.array(_CAFFE_MEAN[::-1])
  scale = 255 * jnp.array(_TORCHVISION_STD)
  shifted = bias + jnp.einsum("hwcd,c->d", kernel, offset)
  return kernel * scale[None, None, :, None], shifted


def _pixels(images: jax.Array) -> jax.Array:
  if images.ndim != 4 or images.shape[3] != 3:
    raise ValueError(f"images must be [B, H, W, 3], not {images.shape}.")
  return images.astype(jnp.float32)
