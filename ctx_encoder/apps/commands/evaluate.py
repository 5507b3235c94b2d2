"""Measures trained generators against baselines, with 95 % confidence intervals.

All systems complete the same images with the same holes, which depend only on --seed
and the image's name. Prints a table for each kind of hole and, with --json, writes
every figure: L1, L2, PSNR and SSIM of the hole, the whole image and the centre patch,
and the error at the seam, for each image and by the hole's area.

    ctx-encoder evaluate --workdir runs/photos_block --images photos
    ctx-encoder evaluate --workdir runs/photos_block --masks center brush \\
        --baselines mean telea nearest --json results.json
    ctx-encoder evaluate --workdir landscape --images photos

Several runs are compared with each other too. Of the images that the first run was
trained on only its validation part is used, unless --all is given. The weights of a
published network (--trunk) add FID and KID in its features, those of LPIPS (--heads)
add LPIPS.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from ctx_encoder import config
from ctx_encoder.apps import runs
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data import files
from ctx_encoder.data.paths import printable
from ctx_encoder.evaluation import baselines, perceptual
from ctx_encoder.evaluation.compare import Comparison


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--workdir",
    nargs="+",
    required=True,
    help="folders of runs, as launch.py made them, or landscape, the package's network"
    " at 128x128; NAME=FOLDER names a run otherwise",
  )
  add_request_arguments(parser)
  parser.add_argument("--json", help="file to write every figure to")


def add_request_arguments(parser: Parser, *, max_images: int = 0) -> None:
  """Adds the arguments of a `runs.Request`, except the runs.

  Args:
    parser: of a command.
    max_images: default of --max-images.
  """
  add_image_arguments(parser, required=False, max_images=max_images)
  add = parser.add_argument
  add("--all", action="store_true", help="use all images, not only the validation part")
  add(
    "--masks",
    nargs="+",
    choices=runs.KINDS,
    default=config.MASK_KINDS,
    metavar="KIND",
    help=f"kinds of holes, of: {', '.join(runs.KINDS)}",
  )
  add("--mask-dir", default="", help="folder of mask images, brighter than half = hole")
  parser.number("--seed", 0, "seed of the holes")
  add(
    "--baselines",
    nargs="*",
    choices=(*baselines.BASELINES, "nearest"),
    metavar="NAME",
    help="classical methods to compare with, of: mean, telea, navier_stokes, biharmonic"
    " (a second an image), nearest (the training patch whose surroundings fit best)"
    f" (default: {' '.join(baselines.DEFAULT)}, if installed)",
  )
  parser.number("--batch-size", 16, "images a call", 1)
  add(
    "--network",
    choices=tuple(perceptual.NETWORKS),
    default="alex",
    help="network whose features LPIPS, FID and KID use",
  )
  add("--trunk", help="its weights from torchvision: .pth, .safetensors or .npz")
  add("--heads", help="weights of LPIPS v0.1 for this network: .pth or .npz")


def add_image_arguments(parser: Parser, *, required: bool, max_images: int = 0) -> None:
  """Adds the arguments of `runs.Images`, except `everything`."""
  default = "" if required else " (default: what the first run was trained on)"
  add = parser.add_argument
  add(
    "--images",
    required=required,
    help=f"folder of images or of TFRecords, or name of a TFDS data set{default}",
  )
  add("--split", help="TFDS: the split of --images (default: train, or the run's own)")
  add(
    "--data-dir",
    help="TFDS: where its data sets are kept (default: where the run looked for them)",
  )
  most = "use at most this many, chosen by a hash of their names; 0 = all"
  parser.number("--max-images", max_images, most, 0)


def images_of(args: argparse.Namespace) -> runs.Images:
  """Returns what the arguments of `add_image_arguments` say, and --all."""
  everything = getattr(args, "all", True)
  return runs.Images(
    args.images, args.split, args.data_dir, everything, args.max_images
  )


def request_of(args: argparse.Namespace, workdirs: Sequence[str]) -> runs.Request:
  """Returns what the arguments of `add_request_arguments` say."""
  names = ("mask_dir", "seed", "baselines", "batch_size", "network", "trunk", "heads")
  return runs.Request(
    workdirs,
    images_of(args),
    tuple(dict.fromkeys(args.masks)),
    **{name: getattr(args, name) for name in names},
  )


def run(args: argparse.Namespace) -> int:
  """Prints the tables and writes the figures."""
  write_json(args.json, evaluate(request_of(args, args.workdir)))
  return 0


def evaluate(request: runs.Request) -> dict[str, Any]:
  """Prints the tables and returns all figures; raises as `runs.make_plan`."""
  plan = announced(request)
  kinds = {}
  for kind in plan.samplers:
    found = plan.compare(kind)
    print_kind(kind, found, list(plan.models))
    kinds[kind] = found.as_json() | {
      "differences_psnr_hole": {
        model: {other: interval._asdict() for other, interval in row.items()}
        for model, row in differences(found, list(plan.models)).items()
      }
    }
  return plan.header() | {"kinds": kinds}


def announced(request: runs.Request) -> runs.Plan:
  """Returns the plan of a request after printing what will be compared."""
  plan = runs.make_plan(request)
  for note in plan.notes:
    print(printable(note), file=sys.stderr)
  size = plan.examples.image_size
  print(f"{plan.about_images}, at {size}x{size}, holes of seed {request.seed}.")
  for name, model in plan.models.items():
    print(f"{name}: step {model.step} of {model.workdir}")
  return plan


def print_kind(kind: str, found: Comparison, models: list[str]) -> None:
  """Prints the tables and the differences of one kind of hole."""
  print(
    f"\n## {kind}: {len(found.names)} images, holes of {100 * found.area.mean():.1f} %"
    f" of the image on average\n\n{found.table().markdown()}\n"
  )
  for model, row in differences(found, models).items():
    for other, (mean, low, high) in row.items():
      print(f"{model} minus {other}: {mean:+.2f} dB [{low:+.2f}, {high:+.2f}]")
  if len(found.by_area()) > 1:
    print(f"\n{found.area_table().markdown()}")


def differences(found: Comparison, models: list[str]) -> dict[str, dict[str, Any]]:
  """Returns {model: {system: difference of PSNR in the hole}}, each pair once."""
  rows: dict[str, dict[str, Any]] = {}
  for number, model in enumerate(models):
    others = [name for name in found.values if name not in models[: number + 1]]
    if others:
      rows[model] = {
        other: found.difference(model, other, "psnr_hole") for other in others
      }
  return rows


def write_json(path: str | None, figures: dict[str, Any]) -> None:
  """Writes what --json asks for."""
  if path:
    files.write(path, json.dumps(figures, indent=1) + "\n")
    print(f"All figures are in {path}.")
