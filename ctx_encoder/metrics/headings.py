"""The headings of all metrics in tables: name, unit, digits, better high or low."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a metric is printed.

  Attributes:
    heading: name in tables.
    unit: printed after the heading, or "".
    factor: multiplies values, to convert them to `unit`.
    digits: number of digits after the decimal point.
    higher_is_better: whether the best value is the highest; None if there is no best.
    meaning: a short explanation for readers who do not know the metric.
  """

  heading: str
  unit: str = ""
  factor: float = 1
  digits: int = 2
  higher_is_better: bool | None = None
  meaning: str = ""

  @property
  def label(self) -> str:
    return f"{self.heading} ({self.unit})" if self.unit else self.heading

  def number(self, value: float) -> str:
    """Returns a value in `unit`, rounded."""
    return f"{self.factor * value:.{self.digits}f}"


def of_network(metric: Metric, network: str) -> Metric:
  """Returns a metric on features with their network in its heading.

  Args:
    metric: one of `METRICS`, such as "fid" or "kid".
    network: name of the network and layer, such as "VGG-16 relu5_3".
  """
  return dataclasses.replace(metric, heading=f"{metric.heading}, {network}")


# In the order of the columns of a table.
METRICS = {
  "psnr_hole": Metric(
    "PSNR hole", "dB", 1, 2, True, "similarity to the original inside the hole"
  ),
  "l1_hole": Metric(
    "L1 hole", "%", 100, 2, False, "mean absolute error inside the hole"
  ),
  "l2_hole": Metric(
    "L2 hole", "%", 100, 2, False, "mean squared error inside the hole"
  ),
  "ssim_hole": Metric(
    "SSIM hole", "", 1, 3, True, "similarity of structure in the hole, 1 = the same"
  ),
  "psnr_image": Metric(
    "PSNR image", "dB", 1, 2, True, "similarity to the original over the full picture"
  ),
  "seam": Metric(
    "Seam", "%", 100, 2, False, "error of the colour steps across the hole's border"
  ),
  "grid_2": Metric(
    "Grid 2",
    higher_is_better=False,
    meaning="energy of a grid of period 2, 1 = no grid",
  ),
  "grid_4": Metric(
    "Grid 4",
    higher_is_better=False,
    meaning="energy of a grid of period 4, 1 = no grid",
  ),
  "grid_8": Metric(
    "Grid 8",
    higher_is_better=False,
    meaning="energy of a grid of period 8, 1 = no grid",
  ),
  "lpips": Metric(
    "LPIPS", "", 1, 3, False, "distance of the full pictures in a network's features"
  ),
  "fid": Metric(
    "FID",
    higher_is_better=False,
    meaning="Fréchet distance of the completed pictures from the originals, as sets, in"
    " a network's features; smaller sets give higher values",
  ),
  "kid": Metric(
    "KID",
    "x 1000",
    1000,
    higher_is_better=False,
    meaning="kernel distance of the completed pictures from the originals, as sets, in"
    " a network's features",
  ),
}
