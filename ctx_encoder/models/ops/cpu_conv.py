"""Convolutions rewritten for XLA's CPU backend.

That backend runs some convolutions at a tenth of the machine's speed: those of a
zero-dilated input (the lowering of transposed convolutions and of the input gradient of
strided ones), kernel gradients of transposed convolutions, convolutions with very few
output channels, and those that are matrix products. The rewrites compute the same
values from forward convolutions, kernel gradients of these, and matrix products.
`xla` has the compiler options that they are tuned for.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder.models.ops import winograd


def stock_conv(x, kernel, *, stride, pads):
  """Convolution of `jax.lax`, equal strides and explicit padding."""
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def fast_conv(x, kernel, *, stride, pads):
  """`stock_conv`, by the rewrite that suits the shapes."""
  kh, kw, _, outputs = kernel.shape
  out = _output_size(x.shape, kernel.shape, stride, pads)
  if out == [1, 1]:  # the kernel covers the input: a matrix product
    x = _pad_to(x, pads, (kh, kw))
    y = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, outputs)
    return y[:, None, None, :]
  if stride > 1:
    return _conv_strided(x, kernel, stride, pads)
  padded = [n + k - 1 for n, k in zip(out, (kh, kw), strict=True)]
  if kh * kw * outputs <= _FEW_OUTPUTS:
    return _conv_narrow(_pad_to(x, pads, padded), kernel)
  if winograd.fits((x.shape[0], *padded), kernel.shape, x.dtype):
    return winograd.conv(_pad_to(x, pads, padded), kernel)
  return stock_conv(x, kernel, stride=1, pads=pads)


def _output_size(x_shape, kernel_shape, stride, pads):
  return [
    (n + low + high - k) // stride + 1
    for n, k, (low, high) in zip(x_shape[1:3], kernel_shape[:2], pads, strict=True)
  ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_strided(x, kernel, stride, pads):
  """Strided convolution whose input gradient runs as a stride-1 convolution."""
  if _winograd_fits(x.shape, kernel, stride, pads):
    return _conv_by_blocks(x, kernel, stride, pads, winograd.conv)
  return stock_conv(x, kernel, stride=stride, pads=pads)


def _conv_strided_forward(x, kernel, stride, pads):
  return _conv_strided(x, kernel, stride, pads), (x, kernel)


def _conv_strided_backward(stride, pads, residuals, g):
  x, kernel = residuals
  dx = _input_gradient(g, kernel, x.shape, stride, pads)
  return dx, _kernel_gradient(x, g, kernel, stride, pads)


_conv_strided.defvjp(_conv_strided_forward, _conv_strided_backward)


def _input_gradient(g, kernel, x_shape, stride, pads):
  fits = _winograd_fits(x_shape, kernel, stride, pads)

  def forward(x):
    return _conv_by_blocks(
      x, kernel, stride, pads, winograd.conv if fits else _conv_valid
    )

  return jax.vjp(forward, jnp.zeros(x_shape, g.dtype))[1](g)[0]


def _kernel_gradient(x, g, kernel, stride, pads):
  def forward(kernel):
    if _winograd_fits(x.shape, kernel, stride, pads):
      return _conv_by_blocks(x, kernel, stride, pads, winograd.conv)
    return stock_conv(x, kernel, stride=stride, pads=pads)

  return jax.vjp(forward, jnp.zeros_like(kernel))[1](g)[0]


def _conv_by_blocks(x, kernel, stride, pads, convolve):
  """Strided convolution as space-to-depth and a stride-1 convolution."""
  out = _output_size(x.shape, kernel.shape, stride, pads)
  blocks = [math.ceil(k / stride) for k in kernel.shape[:2]]
  x = _pad_to(x, pads, [(n + b - 1) * stride for n, b in zip(out, blocks, strict=True)])
  rest = [(0, b * stride - k) for b, k in zip(blocks, kernel.shape[:2], strict=True)]
  kernel = jnp.pad(kernel, [*rest, (0, 0), (0, 0)])
  kernel = space_to_depth(kernel[None], stride)[0]
  return convolve(space_to_depth(x, stride), kernel)


def _conv_valid(x, kernel):
  return stock_conv(x, kernel, stride=1, pads=((0, 0), (0, 0)))


def _winograd_fits(x_shape, kernel, stride, pads):
  """Returns whether `winograd` takes the convolution of `_conv_by_blocks`."""
  blocks = [math.ceil(k / stride) for k in kernel.shape[:2]]
  out = _output_size(x_shape, kernel.shape, stride, pads)
  size = [n + b - 1 for n, b in zip(out, blocks, strict=True)]
  channels = kernel.shape[2] * stride**2
  return winograd.fits(
    (x_shape[0], *size, channels),
    (*blocks, channels, kernel.shape[3]),
    kernel.dtype,
  )


def _pad_to(x, pads, size):
  """Pads low sides by `pads`, and crops or pads high sides to H, W = `size`."""
  config = [
    (low, total - n - low, 0)
    for n, (low, _), total in zip(x.shape[1:3], pads, size, strict=True)
  ]
  if not any(low or high for low, high, _ in config):
    return x
  return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def space_to_depth(x: jax.Array, block: int) -> jax.Array:
  """Moves `block` x `block` pixels into channels.

  Args:
    x: `[N, H, W, C, ...]`; `block` divides H and W.
    block: side of a square, pixels.

  Returns:
    `[N, H / block, W / block, block * block * C, ...]`.
  """
  n, h, w, c, *rest = x.shape
  x = x.reshape(n, h // block, block, w // block, block, c, *rest)
  x = jnp.swapaxes(x, 2, 3)
  return x.reshape(n, h // block, w // block, block * block * c, *rest)


_FEW_OUTPUTS = 16  # output channels times kernel taps


@jax.custom_vjp
def _conv_narrow(x, kernel):
  """Stride-1 convolution without padding, for very few output channels.

  One matrix product gives the contributions of all taps; these are shifted and added.
  """
  kh, kw = kernel.shape[:2]
  h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
  exact = jnp.promote_types(x.dtype, jnp.float32)
  taps = jnp.tensordot(x, kernel, ((3,), (2,)), preferred_element_type=exact)
  y = sum(taps[:, i : i + h, j : j + w, i, j] for i in range(kh) for j in range(kw))
  return jnp.asarray(y, x.dtype)


def _conv_narrow_backward(residuals, g):
  return jax.vjp(_conv_valid, *residuals)[1](g)


_conv_narrow.defvjp(
  lambda *operands: (_conv_narrow(*operands), operands), _conv_narrow_backward
)


def fast_transpose(x, kernel, *, stride, padding):
  """Transposed convolution as the input gradient of a strided convolution."""
  (b, h, w, c), (kh, kw, d) = x.shape, kernel.shape[:3]
  if padding == "SAME":
    size = (h * stride, w * stride)
  else:
    size = tuple(n * stride + max(k - stride, 0) for n, k in ((h, kh), (w, kw)))
  pads = tuple(lax.padtype_to_pads(size, (kh, kw), (stride, stride), padding))
  (top, _), (left, _) = pads
  reached = kernel[top : top + size[0], left : left + size[1]]
  if h == w == 1 and reached.shape[:2] == size:  # a matrix product with these taps
    y = x.reshape(b, c) @ reached.reshape(-1, c).T
    return y.reshape(b, *reached.shape[:2], d)
  return _conv_transposed(x, kernel, (b, *size, d), stride, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv_transposed(x, kernel, shape, stride, pads):
  return _input_gradient(x, kernel, shape, stride, pads)


def _conv_transposed_forward(x, kernel, shape, stride, pads):
  return _conv_transposed(x, kernel, shape, stride, pads), (x, kernel)


def _conv_transposed_backward(shape, stride, pads, residuals, g):
  x, kernel = residuals
  dx = stock_conv(g, kernel, stride=stride, pads=pads)
  return dx, _kernel_gradient(g, x, kernel, stride, pads)


_conv_transposed.defvjp(_conv_transposed_forward, _conv_transposed_backward)
