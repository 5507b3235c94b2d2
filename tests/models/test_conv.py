"""Convolutions equal those of `jax.lax`, and are those on accelerators."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from ctx_encoder.models.ops import conv, cpu_conv
from ctx_encoder.models.ops.pool import max_pool

NHWC = ("NHWC", "HWIO", "NHWC")
# float32 sums of up to some thousand products in another order differ by a few ulp
# (1.2e-7) of the largest value; the largest difference of these cases is 1.1e-6.
TOLERANCE = 3e-6

# (input, kernel, stride, padding); comments name the code path.
CONVOLUTIONS = {
  # Photos generator
  "photos_first": ((1, 128, 128, 3), (11, 11, 3, 8), 4, "VALID"),  # 1 row is left over
  "photos_5x5": ((3, 14, 14, 6), (5, 5, 6, 8), 1, "SAME"),
  "photos_3x3": ((3, 6, 6, 8), (3, 3, 8, 12), 1, "SAME"),
  # Monet generator and discriminator
  "strided": ((3, 32, 32, 3), (4, 4, 3, 8), 2, "SAME"),
  "strided_to_4x4": ((3, 8, 8, 16), (4, 4, 16, 8), 2, "SAME"),
  "even_kernel_same": ((3, 4, 4, 16), (4, 4, 16, 8), 1, "SAME"),
  "covers_input": ((3, 4, 4, 16), (4, 4, 16, 20), 1, "VALID"),  # a matrix product
  "patch_512": ((1, 18, 18, 8), (4, 4, 8, 16), 1, "VALID"),
  "patch_logit": ((3, 17, 17, 16), (4, 4, 16, 1), 1, "VALID"),  # few outputs
  "pointwise": ((3, 6, 6, 8), (1, 1, 8, 12), 1, "SAME"),
  # the branches by channel count: 16 taps of outputs and one more
  "few_outputs": ((1, 7, 7, 20), (2, 2, 20, 4), 1, "VALID"),
  "few_outputs_same": ((1, 7, 7, 20), (3, 3, 20, 1), 1, "SAME"),
  "more_outputs": ((1, 9, 9, 4), (4, 4, 4, 2), 1, "VALID"),
  # sizes that strides do not divide, and kernels that strides do not divide
  "7_by_2": ((3, 7, 7, 3), (4, 4, 3, 8), 2, "SAME"),
  "13_by_2": ((1, 13, 13, 3), (4, 4, 3, 8), 2, "VALID"),
  "15_by_2": ((3, 15, 15, 3), (3, 3, 3, 8), 2, "SAME"),
  "17_by_4": ((3, 17, 17, 3), (5, 5, 3, 8), 4, "SAME"),
  "30_by_4": ((1, 30, 30, 3), (11, 11, 3, 8), 4, "VALID"),  # 3 rows are left over
  "30_by_4_same": ((1, 30, 30, 3), (11, 11, 3, 4), 4, "SAME"),
  "kernel_below_stride": ((3, 13, 13, 3), (3, 3, 3, 4), 4, "VALID"),
  "pointwise_strided": ((3, 7, 7, 3), (1, 1, 3, 4), 2, "VALID"),
  "oblong": ((3, 9, 14, 5), (3, 4, 5, 8), 2, "SAME"),
  "oblong_stride_1": ((3, 9, 14, 5), (5, 2, 5, 8), 1, "SAME"),
  "single_row": ((3, 1, 13, 3), (1, 4, 3, 8), 1, "SAME"),
  # explicit padding
  "pairs": ((3, 13, 13, 3), (4, 4, 3, 8), 2, ((2, 1), (0, 3))),
  "pairs_stride_1": ((3, 7, 9, 3), (3, 3, 3, 8), 1, ((0, 2), (3, 1))),
  "negative": ((3, 15, 15, 3), (4, 4, 3, 8), 2, ((-2, 1), (1, -3))),
  "negative_stride_1": ((3, 9, 9, 3), (3, 3, 3, 8), 1, ((-1, 1), (2, -2))),
  "covers_padded_input": ((3, 3, 2, 5), (4, 4, 5, 8), 1, ((1, 0), (0, 2))),
  "covers_cropped_input": ((3, 6, 7, 5), (4, 4, 5, 8), 1, ((-1, -1), (-3, 0))),
  "covers_strided": ((3, 5, 5, 3), (4, 4, 3, 8), 2, "VALID"),  # 1 row is left over
  "same_lower": ((3, 7, 7, 3), (4, 4, 3, 8), 2, "SAME_LOWER"),
}

# (input, kernel [kh, kw, D, C], strides, padding)
TRANSPOSED = {
  "transposed_first_pixel": ((3, 1, 1, 20), (4, 4, 8, 20), (2, 2), "SAME"),
  "transposed_from_2x2": ((3, 2, 2, 8), (4, 4, 6, 8), (2, 2), "SAME"),
  "transposed_from_6x6": ((3, 6, 6, 16), (4, 4, 6, 16), (2, 2), "SAME"),
  "transposed_to_rgb": ((1, 13, 13, 8), (4, 4, 3, 8), (2, 2), "SAME"),
  "transposed_oblong": ((3, 7, 15, 5), (4, 4, 6, 5), (2, 2), "SAME"),
  "transposed_single_row": ((3, 1, 5, 5), (4, 4, 6, 5), (2, 2), "SAME"),
  "transposed_valid": ((3, 7, 7, 5), (4, 4, 6, 5), (2, 2), "VALID"),
  "transposed_3x3": ((3, 7, 7, 5), (3, 3, 6, 5), (2, 2), "SAME"),
  "transposed_stride_1": ((3, 7, 7, 5), (4, 4, 6, 5), (1, 1), "SAME"),
  "transposed_stride_4": ((3, 5, 5, 5), (11, 11, 6, 5), (4, 4), "SAME"),
  "transposed_kernel_below_stride": ((3, 5, 5, 5), (2, 3, 6, 5), (4, 4), "VALID"),
  "transposed_pixel_valid": ((3, 1, 1, 5), (5, 4, 6, 5), (2, 2), "VALID"),
  "transposed_pixel_kernel_below_stride": ((3, 1, 1, 5), (2, 2, 6, 5), (3, 3), "SAME"),
  # stock
  "transposed_unequal_strides": ((3, 5, 5, 5), (4, 4, 6, 5), (2, 1), "SAME"),
}


# Of branches that other cases of the tables take too.
REPEATED = (
  *("photos_5x5", "strided_to_4x4", "patch_512", "few_outputs", "more_outputs"),
  *("13_by_2", "17_by_4", "30_by_4_same", "kernel_below_stride", "pairs_stride_1"),
  *("oblong_stride_1", "negative", "covers_padded_input", "same_lower"),
  *("transposed_from_6x6", "transposed_to_rgb", "transposed_3x3", "transposed_valid"),
  *("transposed_single_row", "transposed_pixel_valid"),
)


def cases(table):
  """Returns the names of a table's cases; repeated ones are slow tests."""
  return [
    pytest.param(name, marks=pytest.mark.slow) if name in REPEATED else name
    for name in table
  ]


def ours(stride, padding):
  def convolve(x, kernel):
    strides = (stride, stride)
    return conv.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=NHWC
    )

  return convolve


def stock(stride, padding):
  def convolve(x, kernel):
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC)

  return convolve


def ours_transposed(strides, padding):
  return lambda x, kernel: conv.conv_transpose(x, kernel, strides, padding)


def stock_transposed(strides, padding):
  return functools.partial(
    lax.conv_transpose,
    strides=strides,
    padding=padding,
    dimension_numbers=NHWC,
    transpose_kernel=True,
  )


def operands(x_shape, kernel_shape, dtype=jnp.float32, seed=0):
  """Normal values; the kernel scaled so that outputs are about 1."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=x_shape)
  fan_in = kernel_shape[0] * kernel_shape[1] * x_shape[-1]
  kernel = rng.normal(size=kernel_shape) / np.sqrt(fan_in)
  return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def case(name):
  """Returns (our function, the stock one, operands) of a case of the tables."""
  if name in CONVOLUTIONS:
    x, kernel, stride, padding = CONVOLUTIONS[name]
    return ours(stride, padding), stock(stride, padding), operands(x, kernel)
  x, kernel, strides, padding = TRANSPOSED[name]
  functions = ours_transposed(strides, padding), stock_transposed(strides, padding)
  return *functions, operands(x, kernel)


def value_and_gradients(function, x, kernel):
  """The output, and both gradients of its product with fixed random values."""
  y, pull = jax.vjp(function, x, kernel)
  rng = np.random.default_rng(1)
  cotangent = jnp.asarray(rng.normal(size=y.shape), jnp.bfloat16).astype(y.dtype)
  return {"value": y, **dict(zip(("dx", "dkernel"), pull(cotangent), strict=True))}


def gradient_penalty(function):
  """Both gradients of a WGAN-GP penalty, which differentiates the convolution twice."""

  def penalty(x, kernel):
    dx = jax.grad(lambda x: jnp.sin(function(x, kernel)).sum())(x)
    norm = jnp.sqrt((dx**2).sum((1, 2, 3)))
    return ((norm - 1) ** 2).sum()

  def gradients(x, kernel):
    dx, dkernel = jax.grad(penalty, (0, 1))(x, kernel)
    return {"dx": dx, "dkernel": dkernel}

  return gradients


def both(transform, our_function, stock_function, *args):
  """Compiles `transform` of the two functions as one program and runs it."""
  compiled = jax.jit(
    lambda *args: (transform(our_function)(*args), transform(stock_function)(*args))
  )
  return compiled(*args)


def assert_close(actual, expected, tolerance=TOLERANCE):
  """Differences are at most `tolerance` times the largest expected value."""

  def check(path, actual, expected):
    assert actual.shape == expected.shape, path
    assert actual.dtype == expected.dtype, path
    actual, expected = np.asarray(actual), np.asarray(expected)
    limit = tolerance * np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, 0, limit, err_msg=str(path))

  jax.tree_util.tree_map_with_path(check, actual, expected)


def gradients_of(function):
  return functools.partial(value_and_gradients, function)


@pytest.mark.parametrize("name", cases(CONVOLUTIONS))
def test_convolution_and_its_gradients(name):
  our_function, stock_function, args = case(name)
  assert_close(*both(gradients_of, our_function, stock_function, *args))


@pytest.mark.parametrize("name", cases(TRANSPOSED))
def test_transposed_convolution_and_its_gradients(name):
  our_function, stock_function, args = case(name)
  assert_close(*both(gradients_of, our_function, stock_function, *args))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [1, 5])
def test_transposed_convolution_without_transposed_kernel(padding, size):
  x, kernel = operands((3, size, size, 5), (4, 4, 5, 6))

  def our_function(x, kernel):
    return conv.conv_transpose(x, kernel, (2, 2), padding, transpose_kernel=False)

  stock_function = functools.partial(
    lax.conv_transpose, strides=(2, 2), padding=padding, dimension_numbers=NHWC
  )
  assert_close(*both(gradients_of, our_function, stock_function, x, kernel))


@pytest.mark.parametrize(
  "name",
  [
    "strided",
    "30_by_4",
    "covers_input",
    "patch_logit",
    "transposed_to_rgb",
  ],
)
def test_second_derivatives(name):
  our_function, stock_function, args = case(name)
  actual, expected = both(gradient_penalty, our_function, stock_function, *args)
  assert_close(actual, expected)


@pytest.mark.parametrize("name", ["7_by_2", "transposed_from_2x2"])
def test_gradients_agree_with_differences(name):
  function, _, args = case(name)
  # Linear in each operand, so that wide steps cost no accuracy.
  check_grads(
    jax.jit(function), args, order=1, modes=["rev"], eps=0.5, atol=1e-4, rtol=1e-4
  )


@pytest.mark.parametrize(
  ("name", "in_axes"),
  [
    ("strided", (0, None)),
    ("strided", (None, 0)),
    ("strided", (0, 0)),
    ("even_kernel_same", (0, 0)),
    ("covers_input", (0, 0)),
    ("transposed_from_2x2", (0, None)),
  ],
  ids=str,
)
def test_vmap(name, in_axes):
  our_function, stock_function, (x, kernel) = case(name)
  if in_axes[0] == 0:
    x = jnp.stack([x, 2 * x[::-1]])
  if in_axes[1] == 0:
    kernel = jnp.stack([kernel, kernel[::-1]])

  def mapped(function):
    return jax.vmap(gradients_of(function), in_axes)

  assert_close(*both(mapped, our_function, stock_function, x, kernel))


def test_forward_mode_is_refused():
  x, kernel = operands((1, 5, 5, 2), (3, 3, 2, 2))
  for function in (
    ours(1, "SAME"),
    ours_transposed((2, 2), "SAME"),
    lambda x, kernel: max_pool(x, 2, 2, "VALID"),
  ):
    with pytest.raises(TypeError, match="forward-mode"):
      jax.jvp(function, (x, kernel), (x, kernel))


def test_without_jit():
  our_function, stock_function, args = case("strided")
  actual = value_and_gradients(our_function, *args)
  assert_close(actual, jax.jit(gradients_of(stock_function))(*args))


@pytest.mark.parametrize(
  "name",
  [
    "strided",
    "covers_input",
    "patch_logit",
    "transposed_to_rgb",
  ],
)
def test_bfloat16_is_rounded_once(name):
  our_function, stock_function, args = case(name)
  args = jax.tree.map(lambda a: a.astype(jnp.bfloat16), args)

  @jax.jit
  def compare(x, kernel):
    exact = value_and_gradients(stock_function, x.astype("f4"), kernel.astype("f4"))
    return value_and_gradients(our_function, x, kernel), exact

  actual, exact = compare(*args)
  for part, value in actual.items():
    assert value.dtype == jnp.bfloat16, part
    error = np.abs(value.astype("f4") - exact[part]).max()
    half_an_ulp = 2**-8
    assert error <= half_an_ulp * np.abs(exact[part]).max(), part


FALLBACKS = {
  "dilated_kernel": {"rhs_dilation": (2, 2)},
  "dilated_input": {"lhs_dilation": (2, 2)},
  "groups": {"feature_group_count": 2, "rhs": (4, 4, 2, 6)},
  "batch_groups": {"batch_group_count": 2},
  "unequal_strides": {"window_strides": (2, 1)},
  "nchw": {"dimension_numbers": ("NCHW", "HWIO", "NCHW")},
  "oihw": {"dimension_numbers": ("NHWC", "OIHW", "NHWC"), "rhs": (6, 4, 3, 3)},
  "default_numbers": {"dimension_numbers": None, "rhs": (6, 4, 3, 3)},
  "precision": {"precision": "highest"},
  "accumulated_in": {"preferred_element_type": jnp.float32},
  "one_dimension": {
    "lhs": (2, 4, 9),
    "rhs": (6, 4, 3),
    "window_strides": (2,),
    "dimension_numbers": None,
  },
  "three_dimensions": {
    "lhs": (2, 5, 6, 7, 4),
    "rhs": (3, 3, 3, 4, 6),
    "window_strides": (2, 2, 2),
    "dimension_numbers": ("NDHWC", "DHWIO", "NDHWC"),
  },
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_other_convolutions_are_the_stock_ones(name):
  kwargs = {"window_strides": (2, 2), "dimension_numbers": NHWC} | FALLBACKS[name]
  x, kernel = operands(kwargs.pop("lhs", (2, 4, 8, 4)), kwargs.pop("rhs", (4, 4, 4, 6)))
  kwargs["padding"] = "SAME" if "lhs_dilation" not in kwargs else ((1, 1), (1, 1))

  def program(function):
    return str(jax.make_jaxpr(functools.partial(function, **kwargs))(x, kernel))

  assert program(conv.conv_general_dilated) == program(lax.conv_general_dilated)


def test_errors_are_those_of_the_stock_convolution():
  x, kernel = operands((2, 8, 8, 4), (4, 4, 3, 6))
  with pytest.raises(ValueError, match="feature dimension"):
    ours(2, "SAME")(x, kernel)
  with pytest.raises(TypeError, match="same dtypes"):
    ours(2, "SAME")(x[..., :3].astype(jnp.bfloat16), kernel)


def test_inside_of_a_flax_layer():
  x, kernel = operands((2, 9, 9, 3), (4, 4, 3, 8))
  layer = nn.Conv(8, (4, 4), strides=2, padding="SAME", use_bias=False)
  ours_inside = layer.clone(conv_general_dilated=conv.conv_general_dilated)
  params = {"params": {"kernel": kernel}}
  assert_close(ours_inside.apply(params, x), layer.apply(params, x))


def lowered(function, args, platform):
  def gradients(x, kernel):
    return value_and_gradients(function, x, kernel)

  traced = jax.jit(gradients).trace(*args)
  return traced.lower(lowering_platforms=(platform,)).as_text()


def windows(text):
  """The windows (strides, padding, dilations) of a program's convolutions, sorted."""
  lines = [line for line in text.splitlines() if "stablehlo.convolution(" in line]
  return sorted(line.split("window = ")[1].split("}")[0] for line in lines)


LOWERED = [
  "strided",
  "photos_first",
  "covers_input",
  "patch_logit",
  "transposed_first_pixel",
  "transposed_from_6x6",
]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", sorted({*LOWERED} - {"transposed_first_pixel"}))
def test_accelerators_get_the_stock_convolutions(name, platform):
  our_function, stock_function, args = case(name)
  text = lowered(our_function, args, platform)
  expected = windows(lowered(stock_function, args, platform))
  assert len(expected) == 3
  assert windows(text) == expected
  assert "dot_general" not in text


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_single_pixel_meets_the_taps_in_reach_only(platform):
  our_function, _, args = case("transposed_first_pixel")
  text = lowered(our_function, args, platform)
  assert "stablehlo.convolution" not in text
  # Of the kernel [4, 4, 8, 20], a gradient of [2 * 2 * 8, 20] is computed.
  assert "-> tensor<32x20xf32>" in text or "-> tensor<20x32xf32>" in text


@pytest.mark.parametrize("name", LOWERED)
def test_cpus_get_no_convolutions_of_dilated_inputs(name):
  our_function, stock_function, args = case(name)
  text = lowered(our_function, args, "cpu")
  assert not any("lhs_dilate = [2" in window for window in windows(text))
  assert not any("lhs_dilate = [4" in window for window in windows(text))
  assert windows(text) != windows(lowered(stock_function, args, "cpu"))


def test_one_exported_program_serves_several_platforms():
  our_function, stock_function, args = case("covers_input")
  exported = jax.export.export(jax.jit(our_function), platforms=("cpu", "cuda"))(*args)
  assert_close(exported.call(*args), stock_function(*args))


@pytest.mark.parametrize("name", LOWERED)
def test_float32_stays_float32_where_float64_is_enabled(name):
  our_function, _, args = case(name)
  with jax.enable_x64(True):
    assert "f64" not in lowered(our_function, args, "cpu")


def test_space_to_depth():
  x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  y = cpu_conv.space_to_depth(jnp.asarray(x), 2)
  assert y.shape == (2, 2, 3, 12)
  for row in range(2):
    for column in range(3):
      block = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
      np.testing.assert_array_equal(y[:, row, column], block.reshape(2, 12))


POOLS = {
  "photos": (30, 3, 2, "VALID"),
  "photos_last": (6, 3, 2, "VALID"),
  "photos_same": (6, 3, 1, "SAME"),
  "same_of_odd": (7, 3, 2, "SAME"),
  "apart": (9, 2, 3, "VALID"),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", POOLS)
def test_max_pool_equals_flax(name, dtype):
  size, window, stride, padding = POOLS[name]
  rng = np.random.default_rng(0)
  # Integers, many of them equal: the first of equals gets the gradient.
  x = jnp.asarray(rng.integers(-3, 4, (2, size, size + 1, 5)), dtype)

  def stock(x):
    return nn.max_pool(x, (window, window), (stride, stride), padding)

  expected, pull = jax.vjp(jax.jit(stock), x)
  g = jnp.asarray(rng.integers(1, 100, expected.shape), dtype)
  got, our_pull = jax.vjp(jax.jit(lambda x: max_pool(x, window, stride, padding)), x)
  np.testing.assert_array_equal(got, expected)
  exact = dtype == jnp.float32  # bfloat16 sums depend on their order
  np.testing.assert_allclose(
    our_pull(g)[0].astype(jnp.float32),
    pull(g)[0].astype(jnp.float32),
    rtol=0 if exact else 0.02,
  )
