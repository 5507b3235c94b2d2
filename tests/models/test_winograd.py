"""Winograd's convolution equals the stock one of `jax.lax`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from ctx_encoder.models.ops import conv, winograd


def stock(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def operands(h, w, inputs=5, outputs=7, batch=2):
  rng = np.random.default_rng(h + w)
  x = rng.normal(size=(batch, h, w, inputs))
  kernel = rng.normal(size=(4, 4, inputs, outputs)) / np.sqrt(16 * inputs)
  return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def with_gradients(function, x, kernel):
  y, pull = jax.vjp(function, x, kernel)
  cotangent = np.random.default_rng(1).normal(size=y.shape)
  return y, *pull(jnp.asarray(cotangent, y.dtype))


# Outputs per side: full tiles, one more, one less, oblong.
@pytest.mark.parametrize(
  ("size", "channels"),
  [
    ((9, 9), (5, 7)),
    ((10, 10), (7, 5)),
    ((6, 13), (5, 7)),
    *(
      pytest.param(size, channels, marks=pytest.mark.slow)
      for size in [(18, 18), (8, 8), (4, 4)]
      for channels in [(5, 7), (7, 5)]
    ),
  ],
)
def test_value_and_gradients(size, channels):
  args = operands(*size, *channels)
  actual, expected = jax.jit(
    lambda *args: [with_gradients(f, *args) for f in (winograd.conv, stock)]
  )(*args)
  for a, e in zip(actual, expected, strict=True):
    assert a.dtype == e.dtype
    # The transforms multiply rounding errors; the most seen here is 4e-6.
    np.testing.assert_allclose(a, e, 0, 1e-5 * float(jnp.abs(e).max()))


@pytest.mark.slow
def test_float64_is_exact():
  with jax.enable_x64(True):
    args = [jnp.asarray(a, jnp.float64) for a in operands(9, 12)]
    actual, expected = (
      with_gradients(winograd.conv, *args),
      with_gradients(stock, *args),
    )
  for a, e in zip(actual, expected, strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, e, 0, 1e-13 * np.abs(e).max())


@pytest.mark.slow
def test_gradients_agree_with_differences():
  args = operands(8, 7)
  check_grads(
    jax.jit(winograd.conv), args, order=1, modes=["rev"], eps=0.5, atol=1e-3, rtol=1e-3
  )


@pytest.mark.slow
def test_second_derivatives():
  args = operands(8, 8)

  def penalty(function, x, kernel):
    dx = jax.grad(lambda x: jnp.sin(function(x, kernel)).sum())(x)
    return ((jnp.sqrt((dx**2).sum((1, 2, 3))) - 1) ** 2).sum()

  gradients = [
    jax.jit(jax.grad(functools.partial(penalty, f), (0, 1)))(*args)
    for f in (winograd.conv, stock)
  ]
  for actual, expected in zip(*gradients, strict=True):
    np.testing.assert_allclose(actual, expected, 0, 2e-5 * np.abs(expected).max())


LARGE = ((16, 18, 18, 256), (4, 4, 256, 512))


@pytest.mark.parametrize(
  ("x", "kernel", "dtype"),
  [
    ((16, 18, 18, 256), (3, 3, 256, 512), jnp.float32),
    ((16, 18, 18, 256), (4, 3, 256, 512), jnp.float32),
    ((16, 18, 18, 64), (4, 4, 64, 512), jnp.float32),  # few channels
    ((16, 18, 18, 256), (4, 4, 256, 64), jnp.float32),
    ((1, 18, 18, 256), (4, 4, 256, 512), jnp.float32),  # few tiles
    ((512, 4, 4, 256), (4, 4, 256, 512), jnp.float32),  # only 1/9 of each tile is used
    (*LARGE, jnp.bfloat16),
  ],
)
def test_unsuitable_shapes_do_not_fit(x, kernel, dtype):
  assert winograd.fits(*LARGE, jnp.float32)
  assert not winograd.fits(x, kernel, dtype)


@pytest.mark.parametrize("name", ["stride_1", "strided", "transposed"])
def test_convolutions_that_fit_use_winograd(name, monkeypatch):
  monkeypatch.setattr(winograd, "_LEAST_CHANNELS", 1)
  monkeypatch.setattr(winograd, "_LEAST_TILES", 1)
  calls = []
  own = winograd.conv
  monkeypatch.setattr(winograd, "conv", lambda *args: calls.append(1) or own(*args))
  numbers = ("NHWC", "HWIO", "NHWC")
  x, kernel = operands(16, 16)
  if name == "transposed":
    kernel = kernel.swapaxes(2, 3)

    def ours(x, kernel):
      return conv.conv_transpose(x, kernel, (2, 2), "SAME")

    def expected(x, kernel):
      return lax.conv_transpose(
        x, kernel, (2, 2), "SAME", dimension_numbers=numbers, transpose_kernel=True
      )
  else:
    stride = 1 if name == "stride_1" else 2

    def ours(x, kernel):
      return conv.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=numbers
      )

    def expected(x, kernel):
      return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=numbers
      )

  actual = jax.jit(functools.partial(with_gradients, ours))(x, kernel)
  assert calls
  for a, e in zip(actual, with_gradients(expected, x, kernel), strict=True):
    np.testing.assert_allclose(a, e, 0, 1e-5 * np.abs(e).max())
