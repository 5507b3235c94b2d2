"""Stride-1 convolutions with fewer multiplications (Winograd's minimal filtering).

Squares of m x m outputs of an r x r kernel are computed from a x a products, where
a = m + r - 1, instead of (m r)^2 (Lavin and Gray, "Fast algorithms for convolutional
neural networks", CVPR 2016). For one input and one output channel, an input tile d and
a kernel g,

  Y = A^T [(G g G^T) * (B^T d B)] A;

with more channels the product in the middle becomes a^2 matrix products. Nine outputs
of a 4x4 kernel take 36 multiplications instead of 144. The rounding error is about 2e-6
of the result in float32, ten times that of a direct convolution.

A, B and G come from polynomials through a - 1 points and infinity (Toom and Cook).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# {kernel side r: (m, points)}. Rounding errors are multiplied with powers of the
# points, so these are few and near 1. a <= 2 m, so an input is in at most two tiles per
# axis.
_TILES = {2: (4, (0, 1, -1, 2)), 4: (3, (0, 1, -1, 2, -0.5))}

# With fewer, the transforms cost more than the products that they save.
_LEAST_CHANNELS = 128
_LEAST_TILES = 128


def fits(x_shape: Sequence[int], kernel_shape: Sequence[int], dtype) -> bool:
  """Returns whether `conv` supports these shapes and is likely to be faster.

  Args:
    x_shape: `[B, H, W, C]`, padding included.
    kernel_shape: `[r, r, C, D]`.
    dtype: of both; half precision would lose too many digits.
  """
  kh, kw, *channels = kernel_shape
  if kh != kw or kh not in _TILES or dtype not in (jnp.float32, jnp.float64):
    return False
  m, _ = _TILES[kh]
  outputs = [n - kh + 1 for n in x_shape[1:3]]
  th, tw = (-(-n // m) for n in outputs)
  used = outputs[0] * outputs[1] / (th * tw * m * m)
  images = x_shape[0] if isinstance(x_shape[0], int) else 1  # symbolic while exporting
  if images * th * tw < _LEAST_TILES or min(channels) < _LEAST_CHANNELS:
    return False
  return used > 0.6


@jax.custom_vjp
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Stride-1 convolution without padding; reverse-mode derivatives only.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[r, r, C, D]`, r = 2 or 4.

  Returns:
    `[B, H - r + 1, W - r + 1, D]`.
  """
  m, a, g, b = _matrices(kernel.shape[0])
  inputs, weights = _input_tiles(x, m, b), _sandwich(g, _cells(kernel))
  products = [
    [_flat(v) @ u for v, u in zip(*rows, strict=True)]
    for rows in zip(inputs, weights, strict=True)
  ]
  tiles = (*inputs[0][0].shape[:3], kernel.shape[3])
  squares = [[y.reshape(tiles) for y in row] for row in _sandwich(a.T, products)]
  h, w = (n - kernel.shape[0] + 1 for n in x.shape[1:3])
  return _join(squares)[:, :h, :w]


def _forward(x, kernel):
  return conv(x, kernel), (x, kernel)


def _backward(residuals, gradient):
  """Transposes of all steps of `conv`.

  The transforms are matrix products because XLA's CPU backend does not fuse these; it
  would fuse sums with their operands and compute the operands repeatedly.
  """
  x, kernel = residuals
  (r, _, c, d), dtype = kernel.shape, kernel.dtype
  m, a, g, b = _matrices(r)
  inputs = _input_tiles(x, m, b)
  batch, th, tw, _ = inputs[0][0].shape
  pads = [
    (0, n * m - out) for n, out in zip((th, tw), gradient.shape[1:3], strict=True)
  ]
  gradient = _pad(gradient, ((0, 0), *pads, (0, 0)))
  # Not a stack of slices: XLA would split the product with it again.
  squares = gradient.reshape(batch, th, m, tw, m, d).transpose(2, 4, 0, 1, 3, 5)
  squares = squares.reshape(m * m, -1)
  products = _weigh(np.kron(a, a), squares).reshape(len(b) ** 2, -1, d)

  weights = _weigh(np.kron(g, g), kernel.reshape(r * r, -1)).reshape(-1, c, d)
  to_inputs = lax.dot_general(products, weights, (((2,), (2,)), ((0,), (0,))))
  tiles = _weigh(np.kron(b, b), to_inputs.reshape(len(b) ** 2, -1))
  tiles = tiles.reshape(len(b), len(b), batch, th, tw, c)
  dx = _overlap(tiles, m)[:, : x.shape[1], : x.shape[2]]

  flat = [_flat(v) for row in inputs for v in row]
  to_weights = [
    lax.dot_general(v, p, (((0,), (0,)), ((), ())))
    for v, p in zip(flat, products, strict=True)
  ]
  rows = [to_weights[i : i + len(b)] for i in range(0, len(b) ** 2, len(b))]
  dkernel = jnp.stack([jnp.stack(row) for row in _sandwich(g.T, rows)])
  return dx.astype(dtype), dkernel.astype(dtype)


conv.defvjp(_forward, _backward)


@functools.cache
def _matrices(r: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
  """Returns m, A `[a, m]`, G `[a, r]` and B `[a, a]`."""
  m, points = _TILES[r]
  side = m + r - 1
  p = np.array(points, np.float64)
  a, g, b_t = np.zeros((side, m)), np.zeros((side, r)), np.zeros((side, side))
  for i in range(side - 1):
    others = np.delete(p, i)
    a[i] = p[i] ** np.arange(m)
    g[i] = p[i] ** np.arange(r) / np.prod(p[i] - others)
    b_t[i, :-1] = np.poly(others)[::-1]
  a[-1, -1] = g[-1, -1] = 1
  b_t[-1] = np.poly(p)[::-1]
  return m, a, g, b_t.T


def _input_tiles(x, m: int, b):
  """Returns B^T d B of all overlapping tiles: a x a arrays `[B, th, tw, C]`."""
  side = len(b)
  overlap = side - m
  th, tw = (-(-(n - overlap) // m) for n in x.shape[1:3])
  sizes = (th * m + overlap, tw * m + overlap)
  pads = [(0, size - n) for size, n in zip(sizes, x.shape[1:3], strict=True)]
  x = _pad(x, ((0, 0), *pads, (0, 0)))
  rows = _combine(b.T, [x[:, i : i + (th - 1) * m + 1 : m] for i in range(side)])
  return [
    _combine(b.T, [row[:, :, j : j + (tw - 1) * m + 1 : m] for j in range(side)])
    for row in rows
  ]


def _join(squares):
  """Returns the image made of m x m tiles, given by position: `[B, th m, tw m, D]`."""
  m = len(squares)
  b, th, tw, d = squares[0][0].shape
  rows = jnp.stack([jnp.stack(row, axis=3) for row in squares], axis=2)
  return rows.reshape(b, th * m, tw * m, d)


def _overlap(tiles, m: int):
  """Sums overlapping tiles `[a, a, B, th, tw, C]` at distance m, m < a <= 2 m."""

  def cell(i, j):  # contributions to a square from its own and the preceding tiles
    parts = [
      jnp.pad(tiles[i + m * u, j + m * v], ((0, 0), (u, 1 - u), (v, 1 - v), (0, 0)))
      for u in (0, 1)
      for v in (0, 1)
      if max(i + m * u, j + m * v) < len(tiles)
    ]
    return functools.reduce(jnp.add, parts)

  return _join([[cell(i, j) for j in range(m)] for i in range(m)])


def _sandwich(matrix, items):
  """Returns M X M^T for a matrix X of arrays, as nested lists."""
  columns = [_combine(matrix, column) for column in zip(*items, strict=True)]
  return [_combine(matrix, row) for row in zip(*columns, strict=True)]


def _combine(matrix, items):
  """Returns the sums of the items, weighted with each row of a matrix."""
  sums = []
  for row in matrix:
    terms = [
      item if weight == 1 else item * float(weight)
      for weight, item in zip(row, items, strict=True)
      if weight
    ]
    sums.append(functools.reduce(jnp.add, terms))
  return sums


def _weigh(matrix, rows):
  """Returns M rows as one matrix product."""
  return jnp.asarray(matrix, rows.dtype) @ rows


def _cells(kernel):
  return [[kernel[i, j] for j in range(kernel.shape[1])] for i in range(len(kernel))]


def _flat(x):
  return x.reshape(-1, x.shape[-1])


def _pad(x, pads):
  return jnp.pad(x, pads) if any(map(any, pads)) else x
