"""Folds BatchNorm into other layers, for inference."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ctx_encoder.models import bottleneck
from ctx_encoder.models.generator import Generator
from ctx_encoder.models.layers import BATCH_NORM_EPSILON, Stage

PyTree = Any


def fold_batch_norm(
  generator: Generator, variables: dict[str, PyTree]
) -> tuple[Generator, dict[str, PyTree]]:
  """Returns a generator and variables with the same outputs and without BatchNorm.

  With running statistics BatchNorm is y = a x + b for each channel, where
  a = scale / sqrt(variance + epsilon) and b = bias - a mean. Directly after a
  convolution it is folded into that kernel and bias. After an activation it becomes the
  layer "affine": the next convolution cannot take it, since it pads with zeros.

  Args:
    generator: any generator.
    variables: "params" and "batch_stats", see `state.inference_variables`.

  Returns:
    Generator and variables for `apply(..., train=False)`; training needs the original.
  """
  params, stats = dict(variables["params"]), dict(variables.get("batch_stats", {}))
  parts: dict[str, Any] = {}
  transposed = generator.decoder.upsample == "transposed"
  for name, output_axis in (("encoder", 3), ("decoder", 2 if transposed else 3)):
    part = getattr(generator, name)
    if not hasattr(part, "stages"):
      continue  # a pretrained network, without BatchNorm
    stages, folded = list(part.stages), dict(params[name])
    for i, stage in enumerate(part.stages):
      key = f"stage{i + 1}"
      if "norm" in stage.then:
        stages[i], folded[key] = _fold_stage(
          stage, folded[key], stats[name][key]["norm"], output_axis
        )
    parts[name] = part.clone(stages=tuple(stages))
    params[name] = folded
    stats.pop(name, None)
  if isinstance(generator.bottleneck, bottleneck.Conv):
    own = params["bottleneck"]
    factor, bias = _factor_and_bias(own["norm"], stats.pop("bottleneck")["norm"])
    parts["bottleneck"] = generator.bottleneck.clone(folded=True)
    affine = {"scale": factor, "bias": bias}
    params["bottleneck"] = {"conv": own["conv"], "affine": affine}
  return generator.clone(**parts), {"params": params, "batch_stats": stats}


def _fold_stage(stage: Stage, params, stats, output_axis: int) -> tuple[Stage, PyTree]:
  factor, shift = _factor_and_bias(params["norm"], stats)
  conv = params["conv"]
  if stage.then[0] != "norm":
    then = tuple("affine" if layer == "norm" else layer for layer in stage.then)
    folded = {"conv": conv, "affine": {"scale": factor, "bias": shift}}
    return dataclasses.replace(stage, then=then), folded
  along = [1, 1, 1, 1]
  along[output_axis] = -1
  conv = {
    "kernel": conv["kernel"] * jnp.reshape(factor, along),
    "bias": conv["bias"] * factor + shift,
  }
  return dataclasses.replace(stage, then=stage.then[1:]), {"conv": conv}


def _factor_and_bias(norm, stats):
  factor = norm["scale"] * jax.lax.rsqrt(stats["var"] + BATCH_NORM_EPSILON)
  return factor, norm["bias"] - factor * stats["mean"]
