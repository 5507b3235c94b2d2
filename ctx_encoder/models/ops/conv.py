"""Convolutions that are fast on CPUs too.

On CPUs they run the rewrites of `cpu_conv`; on other platforms, and for shapes without
a rewrite, the stock operations of `jax.lax`. The choice is made while lowering, so
parameters have one layout everywhere.

They have reverse-mode derivatives of any order and no forward-mode derivatives:
`jax.jvp`, `jax.jacfwd` and `jax.linearize` raise JAX's TypeError about `custom_vjp`.
Use `jax.lax` where these are needed.

Arrays are NHWC; kernels are HWIO (for `conv_transpose` with `transpose_kernel=True`,
HWOI, which is Keras's layout).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder.models.ops import cpu_conv
from ctx_encoder.models.ops.platform import by_platform

_DEFAULTS = {"feature_group_count": 1, "batch_group_count": 1}
_DEFAULTS |= {"precision": None, "preferred_element_type": None}
_NHWC = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC"))

Padding = str | Sequence[tuple[int, int]]


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: Padding,
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers=None,
  **options: Any,
) -> jax.Array:
  """`lax.conv_general_dilated`, except that it has no forward-mode derivative.

  Fits `flax.linen.Conv(conv_general_dilated=...)`. On CPUs, two-dimensional NHWC
  convolutions with equal strides, without dilation or groups, are rewritten.

  Args:
    lhs: `[B, H, W, C]` input.
    rhs: `[kh, kw, C, D]` kernel.
    window_strides: two strides.
    padding: "SAME", "VALID" or two pairs.
    lhs_dilation, rhs_dilation, dimension_numbers, options: see
      `lax.conv_general_dilated`.

  Returns:
    `[B, H', W', D]`.

  Raises:
    TypeError: under `jax.jvp` and other forward-mode derivatives.
  """
  numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
  plain = (
    lhs.ndim == 4
    and numbers == _NHWC
    and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    and window_strides[0] == window_strides[1]
    and (lhs.dtype, lhs.shape[3]) == (rhs.dtype, rhs.shape[2])
    and options.items() <= _DEFAULTS.items()
  )
  if not plain:
    options |= {"lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    options["dimension_numbers"] = dimension_numbers
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
  stride = window_strides[0]
  if isinstance(padding, str):
    pads = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (stride, stride), padding)
  else:
    pads = padding
  return _conv(lhs, rhs, stride, tuple((int(low), int(high)) for low, high in pads))


def conv_transpose(
  lhs: jax.Array,
  rhs: jax.Array,
  strides: Sequence[int],
  padding: str = "SAME",
  *,
  transpose_kernel: bool = True,
) -> jax.Array:
  """`lax.conv_transpose` on NHWC arrays, without forward-mode derivative.

  With `transpose_kernel=True`, the default here, it is the gradient of a convolution
  with respect to its input, and takes the kernels of Keras's `Conv2DTranspose`. On
  CPUs, transposed convolutions with equal strides are rewritten.

  Args:
    lhs: `[B, H, W, C]` input.
    rhs: `[kh, kw, D, C]` kernel (`[kh, kw, C, D]` if `transpose_kernel` is False).
    strides: two strides.
    padding: "SAME" or "VALID".

  Returns:
    `[B, H * stride, W * stride, D]` for "SAME".

  Raises:
    TypeError: under `jax.jvp` and other forward-mode derivatives.
  """
  if not transpose_kernel:
    rhs = _transposed(rhs)
  stock = functools.partial(_stock_transpose, strides=tuple(strides), padding=padding)
  if strides[0] != strides[1] or lhs.dtype != rhs.dtype:
    return stock(lhs, rhs)
  fast = functools.partial(cpu_conv.fast_transpose, stride=strides[0], padding=padding)
  if lhs.shape[1:3] == (1, 1):
    # A matrix product with the taps that reach the result: the stock gradient has zeros
    # for the others, which devices would average too.
    stock = fast
  return by_platform(fast, stock)(lhs, rhs)


def reached_taps(side: int, kernel: int, stride: int) -> slice:
  """Returns the kernel taps that affect a "SAME" transposed convolution, on one axis.

  The outer taps of a kernel applied to a single pixel fall outside of the result.

  Args:
    side: side of the input, pixels.
    kernel: side of the kernel, taps.
    stride: of the transposed convolution.
  """
  size = side * stride
  ((low, _),) = lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")
  places = range(0, size, stride)  # of the first tap, before padding
  read = [t for t in range(kernel) if any(0 <= i + t - low < size for i in places)]
  return slice(read[0], read[-1] + 1)


def _conv(x: jax.Array, kernel: jax.Array, stride: int, pads) -> jax.Array:
  fast = functools.partial(cpu_conv.fast_conv, stride=stride, pads=pads)
  stock = functools.partial(cpu_conv.stock_conv, stride=stride, pads=pads)
  return by_platform(fast, stock)(x, kernel)


def _transposed(kernel: jax.Array) -> jax.Array:
  """Turns a kernel by 180 degrees and swaps its channels."""
  return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def _stock_transpose(x, kernel, strides, padding):
  return lax.conv_transpose(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    transpose_kernel=True,
  )
