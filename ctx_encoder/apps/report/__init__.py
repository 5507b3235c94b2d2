"""One HTML page about runs: their results, their pictures and how they were trained."""

from ctx_encoder.apps.report.records import Case, Kind, Report, Run
from ctx_encoder.apps.report.render import page

__all__ = ["Case", "Kind", "Report", "Run", "page"]
