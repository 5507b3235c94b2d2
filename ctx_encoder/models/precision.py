"""bfloat16 networks run in float32 on CPUs, where XLA's bfloat16 is slower."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp

from ctx_encoder.models.ops.platform import by_platform

Networks = TypeVar("Networks")


def with_settings(network: Any, **changes: Any) -> Any:
  """Returns a Flax module with other `layers.Settings` in all of its parts.

  A field of the module itself that is named in `changes` is set too. Returns the module
  that was given if nothing is changed.
  """
  found = {}
  for field in dataclasses.fields(network):
    value = getattr(network, field.name)
    if field.name == "settings":
      new = dataclasses.replace(value, **changes)
    elif field.name in ("encoder", "bottleneck", "decoder"):
      new = with_settings(value, **changes)
    else:
      new = changes.get(field.name, value)
    if new is not value and new != value:
      found[field.name] = new
  return network.clone(**found) if found else network


def in_float32(network: Any) -> Any:
  """Returns a network with float32 activations: itself if it has these."""
  return with_settings(network, dtype=jnp.dtype("float32"))


def on_cpus(
  make: Callable[[Networks], Callable], networks: Networks, exact: Networks
) -> Callable:
  """Returns a function of some networks that runs those in float32 on CPUs.

  The choice is made while lowering, for the platform to compile for.

  Args:
    make: networks to the function.
    networks, exact: as configured, and in float32; the same if they are that already.
  """
  if exact is networks:
    return make(networks)
  return by_platform(make(exact), make(networks))


def notice(dtype: str, platform: str) -> str:
  """Returns the line that says that a type is not computed with; "" where it is."""
  if dtype == "float32" or platform != "cpu":
    return ""
  return f"model.dtype={dtype} runs in float32 on CPUs, which is faster there."
