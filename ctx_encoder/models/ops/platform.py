"""Chooses between a CPU version and the stock version of an operation."""

from collections.abc import Callable

import jax
from jax import lax


def by_platform(fast: Callable, stock: Callable) -> Callable:
  """Returns one function with reverse-mode gradients: `fast` on CPUs, else `stock`.

  The choice is made while lowering. The gradient rule is attached outside of the
  choice: differentiating the choice would keep the residuals of both sides.

  Args:
    fast, stock: functions of the same arrays with the same results.
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
