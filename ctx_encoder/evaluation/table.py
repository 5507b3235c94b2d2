"""One table of metrics that prints as text, Markdown, JSON and HTML."""

import dataclasses
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctx_encoder.metrics.headings import METRICS, Metric
from ctx_encoder.metrics.intervals import Interval

Cell = Interval | float | str
Row = Mapping[str, Cell]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Rows of metrics, in one group or several.

  Attributes:
    groups: {heading of the group: {row: {column: value}}}; "" is printed without a
      heading. An `Interval` is printed as "mean [low, high]", a missing value as "-".
    columns: {column: metric}; a column that no row has is left out, and so is what rows
      have without a column.
    corner: heading of the first column.
  """

  groups: Mapping[str, Mapping[str, Row]]
  columns: Mapping[str, Metric] = dataclasses.field(default_factory=lambda: METRICS)
  corner: str = ""

  @classmethod
  def of(cls, rows: Mapping[str, Row], columns: Any = METRICS, corner: str = ""):
    """Returns a table of one group, whose columns may be names of `METRICS`."""
    if not isinstance(columns, Mapping):
      columns = {name: METRICS[name] for name in columns}
    return cls({"": rows}, columns, corner)

  @property
  def used(self) -> dict[str, Metric]:
    """The columns that some row has."""
    found = {
      name for rows in self.groups.values() for row in rows.values() for name in row
    }
    return {name: metric for name, metric in self.columns.items() if name in found}

  def text(self) -> str:
    """Returns columns aligned with spaces."""
    lines = self._lines()
    widths = _widths(lines)
    return "\n".join(
      "   ".join(
        [line[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
      ).rstrip()
      for line in lines
    )

  def markdown(self) -> str:
    """Returns a Markdown table with aligned columns."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in self._lines()]
    widths = _widths(lines)
    rows = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])

  def as_json(self) -> dict[str, Any]:
    """Returns {row: {name: number or {"mean", "low", "high"}}}, all that rows have."""
    groups = {heading: as_json(rows) for heading, rows in self.groups.items()}
    return groups[""] if list(groups) == [""] else groups

  def html(self, label: str = "") -> str:
    """Returns a table element: intervals below means, ★ at the best of each column.

    Args:
      label: name of the table for screen readers.
    """
    arrows = {True: " ↑", False: " ↓", None: ""}
    head = [self.corner]
    head += [m.label + arrows[m.higher_is_better] for m in self.used.values()]
    lines = [_html_row(_html_cell("th", text, scope="col") for text in head)]
    lines = ["<thead>", *lines, "</thead>"]
    for heading, rows in self.groups.items():
      lines.append("<tbody>")
      if heading:
        wide = str(len(head))
        cell = _html_cell("th", heading, colspan=wide, scope="rowgroup")
        lines.append(_html_row([cell]))
      lines += [
        _html_row([_html_cell("th", name, scope="row"), *self._html_values(row, rows)])
        for name, row in rows.items()
      ]
      lines.append("</tbody>")
    name = html.escape(printable(label))
    return "\n".join([f'<table aria-label="{name}">', *lines, "</table>"])

  def _lines(self) -> list[list[str]]:
    """Returns the heading and every row as cells of text."""
    lines = [[self.corner, *(metric.label for metric in self.used.values())]]
    for heading, rows in self.groups.items():
      if heading:
        lines.append([heading, *[""] * len(self.used)])
      for name, row in rows.items():
        lines.append([name, *(_cell(m, row.get(c)) for c, m in self.used.items())])
    return lines

  def _html_values(self, row: Row, rows: Mapping[str, Row]) -> Iterable[str]:
    for column, metric in self.used.items():
      value = row.get(column)
      if value is None or isinstance(value, str):
        yield f"<td>{html.escape(printable(value or '-'))}</td>"
        continue
      shown = metric.number(_mean(value))
      if _mean(value) == _best(metric, (other.get(column) for other in rows.values())):
        shown = f"<b>{shown} ★</b>"
      if isinstance(value, Interval):
        low, high = metric.number(value.low), metric.number(value.high)
        shown += f"<small>{low} to {high}</small>"
      yield f"<td>{shown}</td>"


def as_json(rows: Mapping[str, Row]) -> dict[str, Any]:
  """Returns rows with every interval as {"mean", "low", "high"}."""
  return {
    name: {
      column: value._asdict() if isinstance(value, Interval) else value
      for column, value in row.items()
    }
    for name, row in rows.items()
  }


def printable(text: Any) -> str:
  """Replaces control characters, which HTML does not allow even escaped."""
  return "".join(
    "\ufffd" if (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f" else c
    for c in str(text)
  )


def _cell(metric: Metric, value: Cell | None) -> str:
  if value is None or isinstance(value, str):
    return value or "-"
  if isinstance(value, Interval):
    mean, low, high = map(metric.number, value)
    return f"{mean} [{low}, {high}]"
  return metric.number(value)


def _mean(value: Interval | float) -> float:
  return value.mean if isinstance(value, Interval) else value


def _best(metric: Metric, values: Iterable[Cell | None]) -> float:
  means = [_mean(v) for v in values if v is not None and not isinstance(v, str)]
  finite = [] if metric.higher_is_better is None else filter(math.isfinite, means)
  return (max if metric.higher_is_better else min)(finite, default=math.nan)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
  return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _html_row(cells: Iterable[str]) -> str:
  return f"<tr>{''.join(cells)}</tr>"


def _html_cell(tag: str, text: str, **attributes: str) -> str:
  given = "".join(f' {name}="{value}"' for name, value in attributes.items())
  return f"<{tag}{given}>{html.escape(printable(text), quote=False)}</{tag}>"
