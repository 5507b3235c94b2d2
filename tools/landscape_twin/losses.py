"""Losses of the generator and the discriminator.

Images are `[B, 3, H, W]` in [-1, 1], masks `[B, 1, H, W]`, 1 = hole; `composite` is the
image outside the hole and the output inside.
"""

import torch
import torch.nn.functional as F

_POOL = 4  # pixels; L1 of the hole compares means of 4x4, and leaves texture free


def hole(composite, image, mask):
  """Returns the L1 distance of 4x4 means, per pixel and channel of the hole."""
  difference = F.avg_pool2d(composite, _POOL) - F.avg_pool2d(image, _POOL)
  return difference.abs().sum() * _POOL**2 / (3 * mask.sum())


def known(output, image, mask):
  """Returns the L1 distance outside the hole, per pixel and channel."""
  outside = 1 - mask
  return ((output - image).abs() * outside).sum() / (3 * outside.sum())


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
