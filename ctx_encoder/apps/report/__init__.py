"""One HTML page about runs: what their generators reach, and how they were trained."""

from ctx_encoder.apps.report.charts import curves, histogram
from ctx_encoder.apps.report.page import page
from ctx_encoder.apps.report.records import Case, Kind, Report, Run

__all__ = ["Case", "Kind", "Report", "Run", "curves", "histogram", "page"]
