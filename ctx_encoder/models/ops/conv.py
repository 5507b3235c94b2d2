"""Convolutions and maximum pooling that are fast on CPUs too.

XLA's CPU backend runs some convolutions at a tenth of the machine's speed: those of a
zero-dilated input (which is how a transposed convolution and the input gradient of a
strided one are lowered), the kernel gradient of a transposed convolution, those that
are matrix products in truth, and those with very few output channels. The functions
here compute the same values from pieces that it runs well: forward convolutions, kernel
gradients of those, and matrix products (see also `winograd`, and `compiler` for the
options under which these figures hold). On every other platform, and for shapes that
the rewrites do not cover, they are the stock operations. The choice is made when the
program is lowered, so the parameters have one layout everywhere. The gradient of
maximum pooling is another matter of that kind.

Arrays are NHWC; kernels are HWIO (for `conv_transpose` with `transpose_kernel=True`,
HWOI, which is Keras's layout).
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder.models.ops import winograd

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
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision=None,
  preferred_element_type=None,
) -> jax.Array:
  """Drop-in for `lax.conv_general_dilated`; see there for the arguments.

  Fits `flax.linen.Conv(conv_general_dilated=...)`. Two-dimensional NHWC convolutions
  without dilation or groups, and with equal strides, take the fast path on CPUs.

  Args:
    lhs: `[B, H, W, C]` input.
    rhs: `[kh, kw, C, D]` kernel.
    window_strides: two strides.
    padding: "SAME", "VALID" or two pairs.

  Returns:
    `[B, H', W', D]`.
  """
  numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
  dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
  plain = (
    lhs.ndim == 4
    and numbers == _NHWC
    and not dilated
    and feature_group_count == batch_group_count == 1
    and window_strides[0] == window_strides[1]
    and (lhs.dtype, lhs.shape[3]) == (rhs.dtype, rhs.shape[2])
    and precision is None
    and preferred_element_type is None
  )
  if not plain:
    return lax.conv_general_dilated(
      lhs,
      rhs,
      window_strides,
      padding,
      lhs_dilation=lhs_dilation,
      rhs_dilation=rhs_dilation,
      dimension_numbers=dimension_numbers,
      feature_group_count=feature_group_count,
      batch_group_count=batch_group_count,
      precision=precision,
      preferred_element_type=preferred_element_type,
    )
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
  """Transposed convolution, as `lax.conv_transpose` on NHWC arrays.

  With `transpose_kernel=True`, the default here, it is the gradient of a convolution
  with respect to its input and takes the kernels of Keras's `Conv2DTranspose`.
  Equal strides take the fast path on CPUs.

  Args:
    lhs: `[B, H, W, C]` input.
    rhs: `[kh, kw, D, C]` kernel (`[kh, kw, C, D]` if `transpose_kernel` is False).
    strides: two strides.
    padding: "SAME" or "VALID".

  Returns:
    `[B, H * stride, W * stride, D]` for "SAME".
  """
  if not transpose_kernel:
    rhs = _transposed(rhs)
  stock = functools.partial(_stock_transpose, strides=tuple(strides), padding=padding)
  if strides[0] != strides[1] or lhs.dtype != rhs.dtype:
    return stock(lhs, rhs)
  fast = functools.partial(_fast_transpose, stride=strides[0], padding=padding)
  return _by_platform(fast, stock)(lhs, rhs)


def reached_taps(side: int, kernel: int, stride: int) -> slice:
  """Returns the taps that a "SAME" transposed convolution reads, along one axis.

  The outer taps of a kernel that is laid on a single pixel fall outside of the result.

  Args:
    side: of the input.
    kernel: taps.
    stride: of the transposed convolution.
  """
  size = side * stride
  ((low, _),) = lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")
  places = range(0, size, stride)  # what the first tap would meet, before the padding
  read = [t for t in range(kernel) if any(0 <= i + t - low < size for i in places)]
  return slice(read[0], read[-1] + 1)


def max_pool(x: jax.Array, window: int, stride: int, padding: str) -> jax.Array:
  """Maximum of square windows, as `flax.linen.max_pool`.

  Args:
    x: `[B, H, W, C]`.
    window: side of the windows.
    stride: distance between them.
    padding: "SAME" or "VALID".

  Returns:
    `[B, H', W', C]`. The gradient goes to the first of equals.
  """
  sides, strides = (window, window), (stride, stride)
  pads = lax.padtype_to_pads(x.shape[1:3], sides, strides, padding)
  options = (window, stride, tuple((int(low), int(high)) for low, high in pads))
  return _by_platform(
    lambda x: _fast_max_pool(x, *options), lambda x: _stock_max_pool(x, *options)
  )(x)


def _by_platform(fast, stock):
  """One differentiable function from two, chosen when lowering.

  The rule for gradients is attached outside the choice: a choice that is
  differentiated would keep the residuals of both sides.
  """

  def backward(operands, cotangent):
    def pull(function):
      return lambda g, *operands: jax.vjp(function, *operands)[1](g)

    return lax.platform_dependent(
      cotangent, *operands, cpu=pull(fast), default=pull(stock)
    )

  @jax.custom_vjp
  def chosen(*operands):
    return lax.platform_dependent(*operands, cpu=fast, default=stock)

  chosen.defvjp(lambda *operands: (chosen(*operands), operands), backward)
  return chosen


def _conv(x: jax.Array, kernel: jax.Array, stride: int, pads) -> jax.Array:
  fast = functools.partial(_fast_conv, stride=stride, pads=pads)
  stock = functools.partial(_stock_conv, stride=stride, pads=pads)
  return _by_platform(fast, stock)(x, kernel)


def _stock_conv(x, kernel, *, stride, pads):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def _fast_conv(x, kernel, *, stride, pads):
  kh, kw, _, outputs = kernel.shape
  out = _output_size(x.shape, kernel.shape, stride, pads)
  if out == [1, 1]:  # the kernel covers its whole input: a matrix product
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
  return _stock_conv(x, kernel, stride=1, pads=pads)


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
  return _stock_conv(x, kernel, stride=stride, pads=pads)


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
    return _stock_conv(x, kernel, stride=stride, pads=pads)

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
  return _stock_conv(x, kernel, stride=1, pads=((0, 0), (0, 0)))


def _winograd_fits(x_shape, kernel, stride, pads):
  """Returns whether the stride-1 convolution of `_conv_by_blocks` is Winograd's."""
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
  """Pads low sides by `pads` and cuts or pads high sides until H, W are `size`."""
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
    block: side of the squares.

  Returns:
    `[N, H / block, W / block, block * block * C, ...]`.
  """
  n, h, w, c, *rest = x.shape
  x = x.reshape(n, h // block, block, w // block, block, c, *rest)
  x = jnp.swapaxes(x, 2, 3)
  return x.reshape(n, h // block, w // block, block * block * c, *rest)


_FEW_OUTPUTS = 16  # counted over all taps of a kernel


@jax.custom_vjp
def _conv_narrow(x, kernel):
  """Stride-1 convolution without padding to very few channels.

  All taps are the outputs of one matrix product, shifted and added.
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


def _fast_transpose(x, kernel, *, stride, padding):
  """The input gradient of a strided convolution, and its gradients."""
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
  dx = _stock_conv(g, kernel, stride=stride, pads=pads)
  return dx, _kernel_gradient(g, x, kernel, stride, pads)


_conv_transposed.defvjp(_conv_transposed_forward, _conv_transposed_backward)


def _stock_max_pool(x, window, stride, pads):
  sides, strides = (1, window, window, 1), (1, stride, stride, 1)
  return lax.reduce_window(
    x, -jnp.inf, lax.max, sides, strides, ((0, 0), *pads, (0, 0))
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _fast_max_pool(x, window, stride, pads):
  return functools.reduce(jnp.maximum, _pool_taps(x, window, stride, pads))


def _fast_max_pool_forward(x, window, stride, pads):
  taps = _pool_taps(x, window, stride, pads)
  largest, which = taps[0], jnp.zeros(taps[0].shape, jnp.int8)
  # Not by asking which tap equals the largest: where XLA computes `x` anew for either
  # side, the two may differ in their last bit, and none does.
  for number, tap in enumerate(taps[1:], start=1):
    which = jnp.where(tap > largest, jnp.int8(number), which)
    largest = jnp.maximum(largest, tap)
  return largest, (_unfused(which), x)


def _unfused(which):
  """Returns the same small numbers from a matrix product.

  XLA would compute them anew for each pixel that asks for them; products are not fused.
  """
  side = math.gcd(which.shape[-1], 16)
  groups = (*which.shape[:-1], which.shape[-1] // side, side)
  same = which.astype(jnp.float32).reshape(groups) @ jnp.eye(side)
  return same.astype(which.dtype).reshape(which.shape)


def _pool_taps(x, window, stride, pads):
  """Returns, for each place in the windows, what lies there: `[B, H', W', C]` each."""
  lowest = jnp.asarray(-jnp.inf, x.dtype)
  x = lax.pad(x, lowest, [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
  h, w = ((n - window) // stride + 1 for n in x.shape[1:3])
  return [
    x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
    for i in range(window)
    for j in range(window)
  ]


def _fast_max_pool_backward(window, stride, pads, residuals, g):
  which, x = residuals
  _, pull = jax.vjp(lambda x: jnp.stack(_pool_taps(x, window, stride, pads)), x)
  numbers = jnp.arange(window * window, dtype=jnp.int8)
  return pull(jnp.where(which[None] == numbers[:, None, None, None, None], g[None], 0))


_fast_max_pool.defvjp(_fast_max_pool_forward, _fast_max_pool_backward)
