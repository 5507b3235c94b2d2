"""The state of a training run, saved to and restored from one safetensors file."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from ctx_encoder.models import weights
from tools.landscape_twin import network

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclasses.dataclass
class Progress:
  step: int = 0
  adversarial_step: int = 0  # steps of the discriminator
  images: int = 0


class State:
  """Networks, the generator's average, optimisers and progress.

  Args:
    generator, discriminator: freshly initialised.
    rate, discriminator_rate: learning rates of Adam.
    beta: decay of Adam's first moment.
  """

  def __init__(
    self,
    generator: network.Landscape,
    discriminator: network.Discriminators,
    rate: float,
    discriminator_rate: float,
    beta: float,
  ):
    last = torch.channels_last
    self.generator = generator.to(memory_format=last)
    self.discriminator = discriminator.to(memory_format=last)
    self.average: dict[str, torch.Tensor] = {}
    self._restart_average()
    self.generator_adam = _adam(self.generator, rate, beta)
    self.discriminator_adam = _adam(self.discriminator, discriminator_rate, beta)
    self.progress = Progress()

  def init_from(self, path: str | os.PathLike[str]) -> None:
    """Takes the generator's parameters from a file with Flax's names and axes."""
    self.generator.load_state_dict(network.from_flax(weights.load(path)))
    self._restart_average()

  def update_average(self, images: int, half_life: float) -> None:
    """Moves the average to the generator's parameters, after a batch of `images`.

    The half-life is in images, and at the start shorter: a tenth of those trained on.
    """
    half_life = min(half_life, 0.1 * self.progress.images)
    keep = 0.5 ** (images / max(half_life, 1))
    state = self.generator.state_dict()
    torch._foreach_lerp_(
      list(self.average.values()), [state[name] for name in self.average], 1 - keep
    )

  def save(self, folder: pathlib.Path) -> None:
    """Writes state.safetensors, and the average as landscape.safetensors in float16."""
    tensors = _prefixed("generator", self.generator.state_dict())
    tensors |= _prefixed("average", self.average)
    tensors |= _prefixed("discriminator", self.discriminator.state_dict())
    for name, module, adam in self._optimisers():
      for parameter_name, parameter in module.named_parameters():
        for moment in _MOMENTS:
          if parameter in adam.state:
            tensor = adam.state[parameter][moment].bfloat16()
            tensors[f"{name}.{moment}.{parameter_name}"] = tensor
    tensors = {name: x.detach().contiguous() for name, x in tensors.items()}
    metadata = {"progress": json.dumps(dataclasses.asdict(self.progress))}
    part = folder / "state.part"
    save_file(tensors, part, metadata)
    part.replace(folder / "state.safetensors")
    arrays = network.to_flax(self.average)
    part = folder / "landscape.part"
    save_arrays({name: x.astype(np.float16) for name, x in arrays.items()}, part)
    part.replace(folder / "landscape.safetensors")

  def restore(self, path: str | os.PathLike[str]) -> None:
    """Restores what `save` wrote to state.safetensors."""
    with safe_open(path, "pt") as file:
      self.progress = Progress(**json.loads(file.metadata()["progress"]))
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    self.generator.load_state_dict(_group(tensors, "generator"))
    self.discriminator.load_state_dict(_group(tensors, "discriminator"))
    self._restart_average()
    for name, tensor in _group(tensors, "average").items():
      self.average[name].copy_(tensor)
    steps = {
      "generator_adam": self.progress.step,
      "discriminator_adam": self.progress.adversarial_step,
    }
    for name, module, adam in self._optimisers():
      moments = {moment: _group(tensors, f"{name}.{moment}") for moment in _MOMENTS}
      for parameter_name, parameter in module.named_parameters():
        if parameter_name in moments[_MOMENTS[0]]:
          adam.state[parameter] = {"step": torch.tensor(float(steps[name]))} | {
            moment: torch.empty_like(parameter).copy_(values[parameter_name])
            for moment, values in moments.items()
          }

  def _optimisers(self):
    yield "generator_adam", self.generator, self.generator_adam
    yield "discriminator_adam", self.discriminator, self.discriminator_adam

  def _restart_average(self) -> None:
    state = self.generator.state_dict()
    self.average = {name: x.detach().clone() for name, x in state.items()}


def _adam(module: nn.Module, rate: float, beta: float) -> torch.optim.Adam:
  return torch.optim.Adam(module.parameters(), rate, (beta, 0.99), foreach=True)


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]):
  return {f"{prefix}.{name}": x for name, x in tensors.items()}


def _group(tensors: Mapping[str, torch.Tensor], prefix: str):
  """Returns the tensors under a prefix, float32."""
  start = prefix + "."
  return {
    name.removeprefix(start): x.float()
    for name, x in tensors.items()
    if name.startswith(start)
  }
