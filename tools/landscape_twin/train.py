"""Trains the PyTorch twin of the Landscape network; see README.md.

    python -m tools.landscape_twin.train --data PHOTOGRAPHS --holdout PICTURES \\
      --trunk squeezenet1_1.pth alexnet.pth --heads squeeze.pth alex.pth --out RUN
"""

import argparse
import collections
import json
import pathlib
import time

import torch

from tools.landscape_twin import losses, photographs
from tools.landscape_twin.evaluation import Holdout, to_tensor
from tools.landscape_twin.features import Lpips, smooth_fill
from tools.landscape_twin.network import MULTIPLE, Discriminators, Landscape
from tools.landscape_twin.state import State

_RATE_STEPS = 100  # the generator's learning rate rises linearly over the first
_PENALTY_STEPS = 16  # between gradient penalties, which are scaled by it
_GRID_STEPS = 2  # between terms against a grid, which are scaled by it
_LOG_STEPS = 100


class Trainer:
  """Takes steps of both networks, and applies the generator."""

  def __init__(self, state: State, lpips: Lpips, args: argparse.Namespace):
    self.state, self.args = state, args
    self.totals: collections.Counter[str] = collections.Counter()  # since the last log
    self._features = lpips.features
    self._distance = lpips.distance
    if args.compile:
      self._distance = torch.compile(lpips.distance, dynamic=False)

  def paint(self, image, mask, noise, parameters=None):
    """Returns the output, image-sized, of the generator or of given parameters."""
    filled = smooth_fill(image, mask)
    inputs = torch.cat([filled, mask], 1)
    generator = self.state.generator
    with torch.autocast("cpu", torch.bfloat16):
      if parameters is None:
        return filled + generator(inputs, noise)
      return filled + torch.func.functional_call(generator, parameters, (inputs, noise))

  def paint_average(self, image, mask, noise):
    """Returns the output for the average of the parameters."""
    return self.paint(image, mask, noise, self.state.average)

  def step(self, image: torch.Tensor, mask: torch.Tensor) -> None:
    """Updates the generator, its average and, once it takes part, the discriminator."""
    state, args, progress = self.state, self.args, self.state.progress
    output = self.paint(image, mask, torch.randn_like(mask))
    composite = image * (1 - mask) + mask * output
    terms = self._reconstruction(image, mask, output, composite)
    total = torch.stack(list(terms.values())).sum()
    game = None
    if progress.images >= args.warm:
      # One pass of the discriminator serves both networks: its graph ends at `leaf`.
      leaf = composite.detach().requires_grad_(True)
      game, played = self._game(image, mask, leaf)
      (gradient,) = torch.autograd.grad(
        torch.stack(list(played.values())).sum(), leaf, retain_graph=True
      )
      terms |= played
      total = total + (composite * gradient).sum()
    state.generator_adam.zero_grad()
    total.backward()
    self._update_generator()
    if game is not None:
      self._update_discriminator(game, torch.cat([image, mask], 1))
    progress.step += 1
    progress.images += len(image)
    state.update_average(len(image), args.average)
    self.totals.update({name: term.item() for name, term in terms.items()})

  def _reconstruction(self, image, mask, output, composite):
    """Returns the weighted losses that need no discriminator."""
    args = self.args
    with torch.autocast("cpu", torch.bfloat16):
      with torch.no_grad():
        target = self._features(image.bfloat16())
      distance = self._distance(self._features(composite.bfloat16()), target)
      terms = {
        "hole": args.w_hole * losses.hole(composite, image, mask),
        "known": args.w_known * losses.known(output, image, mask),
        "perceptual": args.w_perceptual * distance.mean(),
      }
    if args.w_grid and self.state.progress.step % _GRID_STEPS == 0:
      terms["grid"] = _GRID_STEPS * args.w_grid * losses.grid(composite, mask)
    return terms

  def _game(self, image, mask, leaf):
    """Returns the discriminator's loss, and the generator's weighted losses from it."""
    args = self.args
    past = self.state.progress.images - args.warm
    ramp = min(1.0, past / args.ramp) if args.ramp else 1.0
    with torch.autocast("cpu", torch.bfloat16):
      reals = self.state.discriminator(torch.cat([image, mask], 1))
      fakes = self.state.discriminator(torch.cat([leaf, mask], 1))
      loss = adversarial = matching = torch.zeros(())
      weight = ramp  # of this scale
      for (real, real_features), (fake, fake_features) in zip(
        reals, fakes, strict=True
      ):
        loss = loss + losses.discrimination(real, fake, mask)
        adversarial = adversarial + weight * losses.adversarial(fake, mask)
        matching = matching + weight * losses.feature_matching(
          fake_features, real_features, mask
        )
        weight *= args.w_scale
      return loss, {
        "adversarial": args.w_adversarial * adversarial,
        "matching": args.w_matching * matching,
      }

  def _update_generator(self):
    adam, args = self.state.generator_adam, self.args
    norm = torch.nn.utils.clip_grad_norm_(self.state.generator.parameters(), 1.0)
    if not torch.isfinite(norm):
      self.totals["skipped"] += 1
      return
    warm = min(1, (self.state.progress.step + 1) / _RATE_STEPS)
    for group in adam.param_groups:
      group["lr"] = args.rate * warm
    adam.step()

  def _update_discriminator(self, loss, real):
    adam, args, progress = self.state.discriminator_adam, self.args, self.state.progress
    discriminator = self.state.discriminator
    parameters = list(discriminator.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
      parameter.grad = gradient
    if args.penalty and progress.adversarial_step % _PENALTY_STEPS == 0:
      half = real[: max(1, len(real) // 2)]  # saves time; the estimate is as good
      penalty = _PENALTY_STEPS * losses.gradient_penalty(discriminator, half)
      (args.penalty / 2 * penalty).backward()
      self.totals["penalty"] += penalty.item()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 5.0)
    if torch.isfinite(norm):
      adam.step()
    progress.adversarial_step += 1
    self.totals["discriminator"] += loss.item()


def make_parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__.partition("\n")[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add("--data", nargs="+", required=True, help="folders of photographs")
  add("--holdout", nargs="+", help="folders of pictures for evaluation")
  pair = {"nargs": 2, "required": True, "metavar": ("SQUEEZENET", "ALEXNET")}
  add("--trunk", **pair, help="torchvision's weights of SqueezeNet 1.1 and AlexNet")
  add("--heads", **pair, help="weights of their layers, from LPIPS v0.1")
  add("--out", required=True, type=pathlib.Path, help="folder of state and weights")
  start = parser.add_mutually_exclusive_group()
  start.add_argument("--resume", help="state.safetensors of a run to continue")
  start.add_argument("--init-from", help="weights of the Flax network, .safetensors")
  add("--images", type=int, default=100_000, help="stops after so many")
  add("--minutes", type=float, default=float("inf"), help="stops after so many")
  add("--size", type=int, default=128, help="side of crops in pixels")
  add("--smallest", type=int, default=128, help="least side of a crop before scaling")
  add("--batch", type=int, default=16)
  add("--w-hole", type=float, default=2.0, help="of L1 of 4x4 means in the hole")
  add("--w-known", type=float, default=1.0, help="of L1 outside the hole")
  add("--w-perceptual", type=float, default=1.5, help="of LPIPS of --features")
  add("--features", choices=("squeeze", "alex"), default="squeeze")
  add("--w-grid", type=float, default=0.02, help="of grid energy at period 2")
  add("--w-adversarial", type=float, default=1.5)
  add("--w-matching", type=float, default=4.0, help="of the discriminator's features")
  add("--attend", type=int, nargs="*", default=[3, 6], help="blocks before attention")
  add("--dilations", type=int, nargs="+", default=[1, 2], help="of blocks, in turn")
  add("--upsample", choices=("nearest", "bilinear", "transposed"), default="nearest")
  add(
    "--norm", choices=("none", "batch", "spectral"), default="none", help="of patches"
  )
  add("--scales", type=int, default=2, help="discriminators, each at half the size")
  add(
    "--w-scale", type=float, default=0.7, help="of a scale, relative to the one before"
  )
  add("--penalty", type=float, default=0.01, help="of R1; 0 leaves it out")
  add("--warm", type=int, default=6400, help="images before the discriminator")
  add("--ramp", type=int, default=6400, help="images until its losses have full weight")
  add("--rate", type=float, default=4e-4, help="learning rate of the generator")
  add("--discriminator-rate", type=float, default=2.5e-4)
  add("--beta", type=float, default=0.5, help="decay of Adam's first moment")
  add("--average", type=float, default=20_000, help="half-life of the EMA in images")
  add("--compile", action="store_true", help="compiles LPIPS; needs a C++ compiler")
  add("--threads", type=int, default=1, help="of PyTorch")
  add("--seed", type=int, default=0)
  add("--save-minutes", type=float, default=5)
  add("--evaluation-minutes", type=float, default=15)
  add("--evaluation-size", type=int, default=128, help="side in pixels")
  add("--evaluation-count", type=int, default=150, help="pictures")
  return parser


def make_trainer(args: argparse.Namespace) -> Trainer:
  """Returns the trainer of the networks that the arguments describe."""
  torch.manual_seed(args.seed)
  networks = (
    Landscape(attend=args.attend, dilations=args.dilations, upsample=args.upsample),
    Discriminators(args.scales, args.norm),
  )
  state = State(*networks, args.rate, args.discriminator_rate, args.beta)
  number = ("squeeze", "alex").index(args.features)
  return Trainer(
    state, Lpips(args.features, args.trunk[number], args.heads[number]), args
  )


def parse_args() -> argparse.Namespace:
  parser = make_parser()
  args = parser.parse_args()
  for name in ("size", "evaluation_size"):
    if getattr(args, name) % MULTIPLE or getattr(args, name) < 64:
      parser.error(f"--{name.replace('_', '-')} must be a multiple of 8 from 64 on.")
  return args


def main() -> None:
  args = parse_args()
  torch.set_num_threads(args.threads)
  args.out.mkdir(parents=True, exist_ok=True)
  trainer = make_trainer(args)
  state = trainer.state
  if args.resume:
    state.restore(args.resume)
  elif args.init_from:
    state.init_from(args.init_from)
  first = state.progress.images
  torch.manual_seed(args.seed + first)
  holdout = None
  if args.holdout:
    alexnet = Lpips("alex", args.trunk[1], args.heads[1])
    size, count = args.evaluation_size, args.evaluation_count
    holdout = Holdout(args.holdout, size, count, alexnet)
  feed = photographs.Feed(
    args.data, args.size, args.batch, args.seed + first, args.smallest
  )
  log(
    args.out, f"{len(feed.images)} photographs; {json.dumps(vars(args), default=str)}"
  )
  run(trainer, feed, holdout)


def run(trainer: Trainer, feed: photographs.Feed, holdout: Holdout | None) -> None:
  """Trains until the images or minutes are used up; logs, saves and evaluates."""
  args, progress = trainer.args, trainer.state.progress
  start = saved = evaluated = logged = time.monotonic()

  def evaluate():
    if holdout is not None:
      figures = holdout.figures(trainer.paint_average)
      log(args.out, f"{progress.images} images, {len(holdout)} pictures: {figures}")

  while progress.images < args.images and (
    time.monotonic() - start < 60 * args.minutes
  ):
    images, masks = feed.get()
    trainer.step(to_tensor(images), torch.from_numpy(masks).float()[:, None])
    if progress.step % _LOG_STEPS == 0:
      speed = _LOG_STEPS * args.batch / (time.monotonic() - logged)
      means = [f"{k} {v / _LOG_STEPS:.4f}" for k, v in trainer.totals.items()]
      log(args.out, f"{progress.images} images, {speed:.1f}/s: {', '.join(means)}")
      trainer.totals.clear()
      logged = time.monotonic()
    if time.monotonic() - saved > 60 * args.save_minutes:
      trainer.state.save(args.out)
      saved = time.monotonic()
    if time.monotonic() - evaluated > 60 * args.evaluation_minutes:
      evaluate()
      evaluated = time.monotonic()
  trainer.state.save(args.out)
  evaluate()


def log(folder: pathlib.Path, text: str) -> None:
  line = f"{time.strftime('%H:%M:%S')} {text}"
  print(line, flush=True)
  with (folder / "log.txt").open("a", encoding="utf-8") as file:
    file.write(line + "\n")


if __name__ == "__main__":
  main()
