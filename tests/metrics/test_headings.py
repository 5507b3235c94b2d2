"""Headings of metrics in tables."""

import numpy as np

from ctx_encoder import metrics
from ctx_encoder.metrics import headings


def test_labels_and_numbers():
  psnr, l1 = headings.METRICS["psnr_hole"], headings.METRICS["l1_hole"]
  assert (psnr.label, psnr.number(23.456)) == ("PSNR hole (dB)", "23.46")
  assert (l1.label, l1.number(0.01234)) == ("L1 hole (%)", "1.23")
  assert headings.METRICS["ssim_hole"].label == "SSIM hole"


def test_fid_and_kid_name_their_network():
  fid, kid = (
    headings.of_network(headings.METRICS[name], "VGG-16 relu5_3")
    for name in ("fid", "kid")
  )
  assert fid.label == "FID, VGG-16 relu5_3"
  assert kid.label == "KID, VGG-16 relu5_3 (x 1000)"
  assert kid.number(0.0123) == "12.30"


def test_every_metric_of_a_region_has_its_name_and_its_direction():
  images = np.random.default_rng(0).random((2, 1, 4, 4, 3), np.float32)
  measured = metrics.by_region(*images, np.ones((1, 4, 4, 1), np.float32))
  shown = {name for name in headings.METRICS if name.startswith(("psnr", "l1", "l2"))}
  assert shown <= set(measured)
  better = {name for name, m in headings.METRICS.items() if m.higher_is_better}
  assert better == {"psnr_hole", "ssim_hole", "psnr_image"}
  assert len({m.label for m in headings.METRICS.values()}) == len(headings.METRICS)
  assert all(m.meaning for m in headings.METRICS.values())
