"""Losses of the generator and the discriminator.

Images are `[B, 3, H, W]` in [-1, 1], masks `[B, 1, H, W]`, 1 = hole; `composite` is the
image outside the hole and the output inside.
"""

import torch
import torch.nn.functional as F

_FLAT = 2e-5  # energy that is added to both: flat holes have no grid
_POOL = 4  # pixels; L1 of the hole compares means of 4x4, and leaves texture free


def hole(composite, image, mask):
  """Returns the L1 distance of 4x4 means, per pixel and channel of the hole."""
  difference = F.avg_pool2d(composite, _POOL) - F.avg_pool2d(image, _POOL)
  return difference.abs().sum() * _POOL**2 / (3 * mask.sum())


def known(output, image, mask):
  """Returns the L1 distance outside the hole, per pixel and channel."""
  outside = 1 - mask
  return ((output - image).abs() * outside).sum() / (3 * outside.sum())


def grid(composite, mask):
  """Returns the mean over images of max(0, log P), for the luminance.

  P is that of `ctx_encoder.metrics.grid_energy` in the hole at period 2: the energy of
  a pattern that repeats every two pixels, relative to neighbouring frequencies, which
  are taken as constants. Photographs have a mean of log P of about 0. Holes of fewer
  than some 100 pixels do not count.
  """
  luminance = composite.mean(1, keepdim=True)
  taps = torch.tensor([0.25, 0.5, 0.25])
  low = F.conv2d(
    F.pad(luminance, (1, 1, 1, 1), "reflect"), torch.outer(taps, taps)[None, None]
  )
  inside = 1 - F.max_pool2d(1 - mask, 3, 1, 1)
  counted = F.pixel_unshuffle(inside, 2)
  phases = F.pixel_unshuffle((luminance - low) * inside, 2)

  def sums(x, side):
    return F.avg_pool2d(x, side, 1, side // 2) * side**2

  n3, n7 = (sums(counted, side).clamp(min=1) for side in (3, 7))
  c3, c7 = sums(phases, 3) / n3, sums(phases, 7) / n7
  axes = (1, 2, 3)
  freedom = (counted * (1 - n3 / n7)).sum(axes)
  energy = (counted * n7 * c7.square()).sum(axes) / counted.sum(axes).clamp(min=1)
  near = (counted * n3 * (c3 - c7).square()).sum(axes) / freedom.clamp(min=1)
  ratio = (energy + _FLAT) / (near.detach() + _FLAT)
  return (F.relu(torch.log(ratio)) * (freedom > 100)).mean()


def patches(mask, scores):
  """Returns the share of the hole in each patch that a discriminator has scored."""
  return F.avg_pool2d(mask, mask.shape[2] // scores.shape[2])


def adversarial(fake, mask):
  """Returns the non-saturating loss, a mean of patches weighted by their hole."""
  weight = patches(mask, fake)
  return (weight / weight.sum() * F.softplus(-fake.float())).sum()


def feature_matching(fake, real, mask):
  """Returns the L1 distance of the discriminator's features where there is a hole.

  Each layer's distance is divided by the mean magnitude of the real image's features.
  """
  total = torch.zeros(())
  for ours, theirs in zip(fake, real, strict=True):
    theirs = theirs.detach()
    inside = F.max_pool2d(mask, mask.shape[2] // ours.shape[2])
    difference = ((ours - theirs).abs() * inside.to(ours.dtype)).sum(
      dtype=torch.float32
    )
    size = theirs.abs().mean(dtype=torch.float32).clamp(min=0.05)
    total = total + difference / (inside.sum() * ours.shape[1]) / size
  return total / len(fake)


def discrimination(real, fake, mask):
  """Returns the discriminator's loss.

  Patches of the output count by their share of the hole; of the real image's, half of
  the weight is spread over all patches.
  """
  weight = patches(mask, real)
  inside = weight / weight.sum()
  anywhere = 0.5 * inside + 0.5 / weight.numel()
  return (anywhere * F.softplus(-real.float())).sum() + (
    inside * F.softplus(fake.float())
  ).sum()


def gradient_penalty(discriminator, inputs):
  """Returns R1, the mean square norm of the scores' gradient by the image.

  References: Mescheder et al., Which Training Methods for GANs do actually Converge?,
    ICML 2018, eq. 9.
  """
  inputs = inputs.detach().requires_grad_(True)
  scores = sum(scores.sum() for scores, _ in discriminator(inputs))
  (gradient,) = torch.autograd.grad(scores, inputs, create_graph=True)
  return gradient[:, :3].square().sum((1, 2, 3)).mean()
