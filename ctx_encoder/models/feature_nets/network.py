"""Features of images from networks with published weights.

A `FeatureNetwork` is a Flax module with named layers and a table of its convolutions:
where their parameters are in the module and under which names they are published.
`feature_function` returns a function of images for a network and its weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ctx_encoder.models.layers import ConvStage, Settings, Stage
from ctx_encoder.models.ops.pool import max_pool

Features = dict[str, jax.Array]
Weights = Mapping[str, jax.typing.ArrayLike]
Layer = Callable[[jax.Array], jax.Array]

# Statistics of ImageNet: RGB in [0, 1] for torchvision; BGR in [0, 255] for Caffe's VGG
# and hence for Keras's.
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


class Convolution(NamedTuple):
  """One convolution: its parameters in the module and in published files.

  layer: name of the network's layer that it belongs to.
  path: path of its parameters in those of the module.
  shape: of its kernel, `[kh, kw, C, D]`.
  torchvision: prefix of its names in torchvision's files, before `.weight` and `.bias`.
  keras: prefix in Keras's files, before `/kernel` and `/bias`; None = not published.
  """

  layer: str
  path: tuple[str, ...]
  shape: tuple[int, int, int, int]
  torchvision: str
  keras: str | None = None


class FeatureNetwork(Protocol):
  """Interface of `VGG`, `AlexNet` and `SqueezeNet`.

  Called with `[B, H, W, 3]`, as `torchvision_input` or `caffe_input` returns it, and
  the layers to tap; returns `{layer: [B, h, w, C]}`. Layers after the deepest tap are
  not computed and need no parameters.
  """

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the layers that can be tapped, in order."""
    ...

  @property
  def convolutions(self) -> tuple[Convolution, ...]: ...

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...


def feature_function(
  network: FeatureNetwork, weights: Weights, taps: Sequence[str]
) -> Callable[[jax.Array], Features]:
  """Returns a function from images to features of a network.

  The weights determine how images are prepared: torchvision's need `torchvision_input`,
  Keras's `caffe_input`.

  Args:
    network: such as `VGG(16)`.
    weights: arrays by their published names, see `weights.load`; those of layers after
      the deepest tap may be absent.
    taps: names of layers in `network.layers`.

  Returns:
    Function of `[B, H, W, 3]` in [0, 1] to `{tap: [B, h, w, C]}` of the network's type.
    It is a pytree whose leaves are the parameters: passed to a jitted function as an
    argument they do not become constants of the program.

  Raises:
    ValueError: weights are missing or have a wrong shape, or a layer is unknown. The
      function itself raises it for images of a wrong shape or too small for a tap.
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
  """Returns the variables of a network's layers up to the deepest tap.

  Args:
    network: such as `VGG(16)`.
    weights: arrays by the names of torchvision (`features.0.weight`, `[D, C, kh, kw]`)
      or of Keras (`block1_conv1/kernel`, `[kh, kw, C, D]`).
    taps: names of layers in `network.layers`.

  Returns:
    `{"params": ...}`, float32, for `network.apply`.

  Raises:
    ValueError: weights are missing or have a wrong shape, or a layer is unknown.
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
  """Returns which library named the weights: "torchvision" or "keras"."""
  first = network.convolutions[0]
  if f"{first.torchvision}.weight" in weights:
    return "torchvision"
  if first.keras is not None and f"{first.keras}/kernel" in weights:
    return "keras"
  expected = f"{first.torchvision}.weight" + (
    f" or {first.keras}/kernel" if first.keras else ""
  )
  raise ValueError(
    f"The weights have no array {expected}, the first of this network; they have"
    f" {', '.join(list(weights)[:3]) or 'no arrays'}."
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
      raise ValueError(f"Layer {tap} needs {name} {shape}, missing in the weights.")
    if (found := jnp.shape(weights[name])) != shape:
      raise ValueError(f"{name} must be {shape} for layer {tap}, not {found}.")
  kernel, bias = (jnp.asarray(weights[name], jnp.float32) for name in names)
  return kernel.transpose(2, 3, 1, 0) if naming == "torchvision" else kernel, bias


def apply_layers(
  layers: Mapping[str, Layer], x: jax.Array, taps: Sequence[str]
) -> Features:
  """Applies named layers in order up to the deepest tap; returns the taps' outputs."""
  features = {}
  for name in layers_to(tuple(layers), taps):
    x = features[name] = layers[name](x)
  return {tap: features[tap] for tap in taps}


def conv_relu(
  features: int, kernel: int, dtype: Any, name: str, stride=1, padding="SAME"
) -> ConvStage:
  """Returns a convolution followed by a ReLU, as a layer of a network."""
  stage = Stage(features, kernel, stride, padding, then=("relu",))
  return ConvStage(stage, Settings(dtype=dtype), name=name)


def pool(x: jax.Array, window: int, layer: str) -> jax.Array:
  """Maximum over square windows at stride 2, without padding."""
  return max_pool(large_enough(x, window, layer), window, 2, "VALID")


def large_enough(x: jax.Array, window: int, layer: str) -> jax.Array:
  """Returns `x`; raises ValueError if a window of the layer does not fit into it."""
  if min(x.shape[1:3]) < window:
    raise ValueError(
      f"The images are too small: {layer} needs an input of {window} x {window} or"
      f" more and gets {x.shape[1]} x {x.shape[2]}."
    )
  return x


def layers_to(layers: tuple[str, ...], taps: Sequence[str]) -> tuple[str, ...]:
  """Returns the layers up to the deepest tap; raises ValueError for an unknown one."""
  if not taps:
    raise ValueError("taps must name at least one layer.")
  for tap in taps:
    if tap not in layers:
      raise ValueError(f"There is no layer {tap!r}; there are {', '.join(layers)}.")
  return layers[: 1 + max(layers.index(tap) for tap in taps)]


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
  """Converts the first kernel and bias of Keras's VGG for `torchvision_input`.

  Outputs are the same except at the image's border: the zero padding stands for the
  mean colour, and the two mean colours differ by up to 0.5 of 255.
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
