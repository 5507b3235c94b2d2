"""Variables and inputs for Flax modules, drawn by NumPy: nothing to compile."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def example_keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def shapes_of(module, *shape, **kwargs):
  """Returns the shapes and types of a module's variables and output."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  init = functools.partial(module.init_with_output, **kwargs)
  output, variables = jax.eval_shape(init, jax.random.key(0), x)
  return variables, output


def random_variables(module, *shape, seed=0, **kwargs):
  """Variables for an input of the shape, drawn by NumPy: nothing to compile."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":  # about the square root of the number of products summed
      return rng.normal(0, math.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.normal(0, 0.2, leaf.shape)

  variables, _ = shapes_of(module, *shape, **kwargs)
  variables = jax.tree_util.tree_map_with_path(draw, variables)
  return jax.tree.map(jnp.float32, variables)


def fresh_variables(module, *shape):
  key = jax.random.key(0, impl="rbg")  # compiles faster than the default
  return jax.jit(module.init)(key, jnp.zeros(shape))


def random_images(*shape, seed=1):
  return jnp.float32(np.random.default_rng(seed).uniform(-1, 1, shape))


# Generators and their parts
