"""Converts JAX functions to ONNX, for the operations that this package's networks use.

The function is traced with a symbolic batch size. Each operation of the trace becomes
one or a few ONNX nodes, except those whose inputs are constants, which are evaluated.
Where an operation has a version for CPUs and a stock one, the stock one is used.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from jax.extend.core import Literal

OPSET = 18

_SAME = {  # ONNX's operation with the same operands
  "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
  "pow": "Pow", "abs": "Abs", "neg": "Neg", "exp": "Exp", "log": "Log", "erf": "Erf",
  "sqrt": "Sqrt", "tanh": "Tanh", "logistic": "Sigmoid", "and": "And", "or": "Or",
  "not": "Not", "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater",
  "ge": "GreaterOrEqual", "stop_gradient": "Identity", "copy": "Identity",
}  # fmt: skip
_REDUCE = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}
_REDUCE |= {"reduce_min": "ReduceMin"}
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
_CALLS |= {"custom_vjp_call": "call_jaxpr"}


def convert(
  function: Callable[..., jax.Array],
  inputs: dict[str, tuple[Sequence[int], Any]],
  output: str,
):
  """Returns an `onnx.ModelProto` of a function of arrays.

  Args:
    function: takes one array for each input, returns one array.
    inputs: {name: (shape without the batch, dtype)}; the batch is the first dimension.
    output: name of the result.
  Raises:
    ValueError: the function has an operation without a counterpart here.
    ModuleNotFoundError: onnx is not installed.
  """
  import onnx
  from onnx import helper

  (batch,) = jax_export.symbolic_shape("batch")
  shapes = [
    jax.ShapeDtypeStruct((batch, *shape), dtype) for shape, dtype in inputs.values()
  ]
  closed = jax.make_jaxpr(function)(*shapes)
  graph = _Graph()
  first = next(iter(inputs))
  graph.batch = graph.add("Shape", first, start=0, end=1)
  (result,) = graph.run(closed.jaxpr, closed.consts, list(inputs))
  graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [output]))

  def info(name, aval):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
    dims = [n if isinstance(n, int) else "batch" for n in aval.shape]
    return helper.make_tensor_value_info(name, kind, dims)

  made = helper.make_graph(
    graph.nodes,
    "ctx_encoder",
    list(map(info, inputs, shapes)),
    [info(output, closed.out_avals[0])],
    graph.constants,
  )
  versions = [helper.make_opsetid("", OPSET)]
  model = helper.make_model(made, opset_imports=versions, producer_name="ctx_encoder")
  model.ir_version = 9  # what runtimes of 2023 and later read
  onnx.checker.check_model(model)
  return model


class _Graph:
  """The nodes of an ONNX graph. Values are names, or arrays where constant."""

  def __init__(self):
    self.nodes, self.constants = [], []
    self.batch = ""
    self._number = 0

  def name(self, value) -> str:
    """Returns the name of a value; constants become initializers."""
    if isinstance(value, str):
      return value
    from onnx import numpy_helper

    self._number += 1
    name = f"c{self._number}"
    self.constants.append(numpy_helper.from_array(np.asarray(value), name))
    return name

  def add(self, kind: str, *values, **attributes) -> str:
    """Appends a node; returns the name of its result."""
    from onnx import helper

    names = [self.name(value) for value in values]
    self._number += 1
    result = f"v{self._number}"
    self.nodes.append(helper.make_node(kind, names, [result], **attributes))
    return result

  def run(self, jaxpr, constants, arguments) -> list:
    """Adds the operations of a jaxpr; returns its results."""
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom):
      return atom.val if isinstance(atom, Literal) else known[atom]

    for eqn in jaxpr.eqns:
      values = [read(atom) for atom in eqn.invars]
      known |= zip(eqn.outvars, self._apply(eqn, values), strict=True)
    return [read(atom) for atom in jaxpr.outvars]

  def _apply(self, eqn, values) -> list:
    kind, params = eqn.primitive.name, eqn.params
    if kind in _CALLS:
      inner = params[_CALLS[kind]]
      return self.run(inner.jaxpr, inner.consts, values)
    if kind == "platform_index":
      return [params["platforms"].index(None)]  # the stock version
    if kind == "cond" and not isinstance(values[0], str):
      inner = params["branches"][int(values[0])]
      return self.run(inner.jaxpr, inner.consts, values[1:])
    sizes = [n for var in eqn.outvars for n in var.aval.shape]
    if not any(isinstance(value, str) for value in values) and _fixed(sizes):
      found = eqn.primitive.bind(*values, **params)
      return list(found) if eqn.primitive.multiple_results else [found]
    if kind in _SAME:
      return [self.add(_SAME[kind], *values)]
    method = getattr(self, f"_{kind}", None)
    if kind in _REDUCE:
      axes = np.array(params["axes"], np.int64)
      return [self.add(_REDUCE[kind], values[0], axes, keepdims=0)]
    if method is None:
      raise ValueError(
        f"This network cannot be exported as ONNX: its operation {kind} is not"
        " supported. Export as stablehlo or savedmodel."
      )
    result = method(eqn, *values)
    return result if isinstance(result, list) else [result]

  # One method per JAX operation, named like it.

  def _square(self, eqn, x):
    return self.add("Mul", x, x)

  def _rsqrt(self, eqn, x):
    return self.add("Reciprocal", self.add("Sqrt", x))

  def _integer_pow(self, eqn, x):
    return self.add("Pow", x, np.array(eqn.params["y"], eqn.invars[0].aval.dtype))

  def _ne(self, eqn, x, y):
    return self.add("Not", self.add("Equal", x, y))

  def _round(self, eqn, x):
    if eqn.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
      raise ValueError("ONNX rounds halves to even numbers only.")
    return self.add("Round", x)

  def _select_n(self, eqn, which, if_false, if_true):
    return self.add("Where", which, if_true, if_false)

  def _convert_element_type(self, eqn, x):
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return self.add("Cast", x, to=kind)

  def _transpose(self, eqn, x):
    return self.add("Transpose", x, perm=list(eqn.params["permutation"]))

  def _concatenate(self, eqn, *parts):
    return self.add("Concat", *parts, axis=int(eqn.params["dimension"]))

  def _reshape(self, eqn, x):
    return self._reshaped(x, eqn.params["new_sizes"])

  def _reshaped(self, x, sizes):
    return self.add("Reshape", x, np.array([_size(n) for n in sizes], np.int64))

  def _broadcast_in_dim(self, eqn, x, *_):
    shape, old = eqn.params["shape"], eqn.invars[0].aval.shape
    sizes = [1] * len(shape)
    for axis, n in zip(eqn.params["broadcast_dimensions"], old, strict=True):
      sizes[axis] = n
    if sizes != list(old):
      x = self._reshaped(x, sizes)
    if sizes == list(shape):
      return x
    if _fixed(shape):
      return self.add("Expand", x, np.array(shape, np.int64))
    parts = [np.array([n], np.int64) if _fixed([n]) else self.batch for n in shape]
    return self.add("Expand", x, self.add("Concat", *parts, axis=0))

  def _split(self, eqn, x):
    ends = np.cumsum(eqn.params["sizes"])
    starts = ends - eqn.params["sizes"]
    axis = eqn.params["axis"]
    return [self._cut(x, axis, *ends) for ends in zip(starts, ends, strict=True)]

  def _cut(self, x, axis, start, end):
    bounds = (np.array([n], np.int64) for n in (start, end, axis))
    return self.add("Slice", x, *bounds)

  def _slice(self, eqn, x):
    params, rank = eqn.params, eqn.invars[0].aval.ndim
    last = np.iinfo(np.int64).max
    limits = [n if _fixed([n]) else last for n in params["limit_indices"]]
    steps = params["strides"] or [1] * rank
    bounds = (params["start_indices"], limits, range(rank), steps)
    return self.add("Slice", x, *(np.array(list(n), np.int64) for n in bounds))

  def _gather(self, eqn, x, start):
    """Slices along one axis, which is what a gather from a constant start is."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if isinstance(start, str) or np.size(start) != 1:
      raise ValueError("This network cannot be exported as ONNX: it indexes arrays.")
    (axis,), first = numbers.start_index_map, int(np.ravel(start)[0])
    x = self._cut(x, axis, first, first + sizes[axis])
    return self._reshaped(x, eqn.outvars[0].aval.shape)

  def _pad(self, eqn, x, value):
    low, high, inner = zip(*eqn.params["padding_config"], strict=True)
    if any(inner):
      raise ValueError("This network cannot be exported as ONNX: it dilates arrays.")
    return self.add("Pad", x, np.array([*low, *high], np.int64), value)

  def _dot_general(self, eqn, x, y):
    (over_x, over_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    letters = iter(string.ascii_letters)
    left = [next(letters) for _ in eqn.invars[0].aval.shape]
    right = [next(letters) for _ in eqn.invars[1].aval.shape]
    for i, j in zip((*batch_x, *over_x), (*batch_y, *over_y), strict=True):
      right[j] = left[i]
    free_x = [n for i, n in enumerate(left) if i not in (*batch_x, *over_x)]
    free_y = [n for j, n in enumerate(right) if j not in (*batch_y, *over_y)]
    result = [left[i] for i in batch_x] + free_x + free_y
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    return self.add("Einsum", x, y, equation=equation)

  def _conv_general_dilated(self, eqn, x, kernel):
    params = eqn.params
    numbers = params["dimension_numbers"]
    if isinstance(kernel, str) or params["batch_group_count"] != 1:
      raise ValueError("ONNX export needs convolutions with constant kernels.")
    kernel = np.transpose(np.asarray(kernel), numbers.rhs_spec)  # OIHW
    x = self.add("Transpose", x, perm=list(numbers.lhs_spec))
    low, high = zip(*params["padding"], strict=True)
    options: dict[str, Any] = {"dilations": list(params["rhs_dilation"])}
    options["group"] = params["feature_group_count"]
    kind, dilation = "Conv", list(params["lhs_dilation"])
    if any(n > 1 for n in dilation):
      kind, sides = "ConvTranspose", np.array(kernel.shape[2:])
      kernel = kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
      low, high = (sides - 1 - low).tolist(), (sides - 1 - high).tolist()
      options["strides"] = dilation
    else:
      options["strides"] = list(params["window_strides"])
    y = self.add(kind, x, kernel, pads=[*map(int, (*low, *high))], **options)
    return self.add("Transpose", y, perm=np.argsort(numbers.out_spec).tolist())

  def _reduce_window_sum(self, eqn, x):
    mean = self._pooled("AveragePool", eqn, x, count_include_pad=1)
    count = np.prod(eqn.params["window_dimensions"])
    return self.add("Mul", mean, np.array(count, eqn.invars[0].aval.dtype))

  def _reduce_window_max(self, eqn, x):
    return self._pooled("MaxPool", eqn, x)

  def _pooled(self, kind, eqn, x, **options):
    params = eqn.params
    low, high = zip(*params["padding"], strict=True)
    x = self.add("Transpose", x, perm=[0, 3, 1, 2])
    y = self.add(
      kind,
      x,
      kernel_shape=list(params["window_dimensions"][1:3]),
      strides=list(params["window_strides"][1:3]),
      pads=[*low[1:3], *high[1:3]],
      **options,
    )
    return self.add("Transpose", y, perm=[0, 2, 3, 1])


def _fixed(sizes) -> bool:
  """Returns whether no size depends on the batch."""
  return all(isinstance(n, int | np.integer) for n in sizes)


def _size(n) -> int:
  return n if _fixed([n]) else -1
