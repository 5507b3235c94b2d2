"""Compares choices of the recipe: every run gets the same CPU time; see README.md.

    python -m tools.landscape_twin.bakeoff --data PHOTOGRAPHS --holdout PICTURES \\
      --trunk squeezenet.pth alexnet.pth --heads squeeze.pth alex.pth --out BAKEOFF \\
      recipe:0 transposed:0
    python -m tools.landscape_twin.bakeoff --out BAKEOFF --table
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np
import torch

from ctx_encoder import metrics
from ctx_encoder.evaluation import baselines
from tools.landscape_twin import photographs, train
from tools.landscape_twin.evaluation import to_tensor, to_uint8
from tools.landscape_twin.features import Lpips

_COMMON = "--size 64 --batch 16 --warm 3200 --ramp 3200 --w-grid 0"
RUNS = {
  "recipe": "",
  "transposed": "--upsample transposed",
  "bilinear": "--upsample bilinear",
  "no_attention": "--attend",
  "dilations": "--attend --dilations 1 2 4 8",
  "one_scale": "--scales 1",
  "batch_norm": "--norm batch --penalty 0",
  "spectral": "--norm spectral --penalty 0",
  "no_matching": "--w-matching 0",
  "weak_game": "--w-perceptual 3 --w-adversarial 0.05 --w-matching 0.5",
  "no_game": "--w-adversarial 0 --w-matching 0 --warm 100000000",
  "grid": "--w-grid 0.02",
  "no_features": "--w-perceptual 0",
  "alexnet": "--features alex",
}
SIDES = (64, 128)  # of the pictures that are measured


class Judge:
  """Measures fills of pictures of one size, relative to Telea's."""

  def __init__(self, folders, side: int, count: int, networks: dict[str, Lpips]):
    loaded = photographs.load(folders, smallest=side)
    chosen = loaded[:: -(-len(loaded) // count)][:count]
    self._images = np.stack([photographs.centre(image, side) for image in chosen])
    self._networks = networks
    self._holes = {
      kind: photographs.draw_holes(kind, side, len(chosen), seed=7)
      for kind in photographs.KINDS
    }
    self._telea = {
      kind: np.stack(list(map(baselines.telea, self._images, holes > 0)))
      for kind, holes in self._holes.items()
    }

  @torch.no_grad()
  def figures(self, paint) -> dict[str, float]:
    """Returns means over kinds of holes: ratios to Telea's, and differences in dB."""
    rows = []
    for kind, holes in self._holes.items():
      random = torch.Generator().manual_seed(1)
      completed = []
      for start in range(0, len(holes), 25):
        image = to_tensor(self._images[start : start + 25])
        mask = torch.from_numpy(holes[start : start + 25]).float()[:, None]
        noise = torch.randn(1, 1, *mask.shape[2:], generator=random)
        output = paint(image, mask, noise.expand_as(mask))
        completed.append(to_uint8(image * (1 - mask) + output * mask))
      ours = self._measure(np.concatenate(completed), holes)
      theirs = self._measure(self._telea[kind], holes)
      row = {name: ours[name] / theirs[name] for name in ("alex", "squeeze", "kid")}
      rows.append(row | {"psnr": ours["psnr"] - theirs["psnr"], "grid": ours["grid"]})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

  def _measure(self, completed: np.ndarray, holes: np.ndarray) -> dict[str, float]:
    found = {}
    pair = [to_tensor(x) for x in (completed, self._images)]
    for name, network in self._networks.items():
      ours, theirs = (network.features(x) for x in pair)
      found[name] = float(network.distance(ours, theirs).mean())
      if name == "alex":
        deep = [np.asarray(x[-1].mean((2, 3))) for x in (ours, theirs)]
        found["kid"] = float(metrics.kernel_distance(deep[0][::2], deep[1][1::2]).mean)
    images = completed.astype(np.float32) / 255
    masks = holes[..., None].astype(np.float32)
    target = self._images.astype(np.float32) / 255
    found["psnr"] = float(metrics.psnr(images, target, masks).mean())
    grid = jax.jit(metrics.grid_energy, static_argnums=2)(images, masks, 2)
    found["grid"] = float(np.exp(np.log(np.asarray(grid)).mean()))
    return found


def train_one(name: str, seed: int, args: argparse.Namespace) -> dict:
  """Trains one variant for `args.cpu_minutes` and returns its figures by size."""
  common = [*_COMMON.split(), "--seed", str(seed), "--out", str(args.out)]
  common += ["--data", *args.data, "--trunk", *args.trunk, "--heads", *args.heads]
  settings = train.make_parser().parse_args([*common, *RUNS[name].split()])
  trainer = train.make_trainer(settings)
  feed = photographs.Feed(args.data, settings.size, settings.batch, seed)
  start = time.process_time()
  while time.process_time() - start < 60 * args.cpu_minutes:
    images, masks = feed.get()
    trainer.step(to_tensor(images), torch.from_numpy(masks).float()[:, None])
  row = {"run": name, "seed": seed, "images": trainer.state.progress.images}
  networks = {
    name: Lpips(name, *files)
    for name, *files in zip(("squeeze", "alex"), args.trunk, args.heads, strict=True)
  }
  for side in SIDES:
    judge = Judge(args.holdout, side, args.count, networks)
    row[str(side)] = judge.figures(trainer.paint_average)
  return row


def table(path: pathlib.Path) -> str:
  """Returns the results as Markdown: means over seeds, and their spread."""
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  names = ("alex", "squeeze", "kid", "grid", "psnr")
  lines = []
  for run in RUNS:
    found = [row for row in rows if row["run"] == run]
    if not found:
      continue
    cells = [run, str(len(found)), f"{np.mean([row['images'] for row in found]):,.0f}"]
    for side in map(str, SIDES):
      for name in names:
        values = [row[side][name] for row in found]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.3f}{spread}")
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  add = parser.add_argument
  add("runs", nargs="*", metavar="NAME:SEED", help=f"names: {', '.join(RUNS)}")
  for name in ("data", "holdout", "trunk", "heads"):
    add(f"--{name}", nargs="+", default=[], help=f"as of train.py --{name}")
  add("--out", required=True, type=pathlib.Path, help="folder of results.jsonl")
  add("--cpu-minutes", type=float, default=6, help="of each run's training")
  add("--count", type=int, default=100, help="pictures that are measured")
  add("--table", action="store_true", help="prints what there is as Markdown")
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  results = args.out / "results.jsonl"
  torch.set_num_threads(1)
  for run in args.runs:
    name, _, seed = run.partition(":")
    row = train_one(name, int(seed), args)
    print(json.dumps(row), flush=True)
    with results.open("a", encoding="utf-8") as file:
      file.write(json.dumps(row) + "\n")
  if args.table:
    print(table(results))


if __name__ == "__main__":
  main()
