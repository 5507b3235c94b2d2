"""HTML out of functions: elements, pictures inside the page, and how it looks.

Whatever is not markup is escaped, so that names, paths and configurations may hold
anything. A page needs no other file, no script and no network.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --paper: #fff; --soft: #f4f3f0;
  --quiet: #5c5b57; --line: #d8d6d0; --link: #0b57d0; --best: #08683a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e4e0; --paper: #17181a;
  --soft: #222427; --quiet: #a8a6a0; --line: #3b3e42; --link: #8ab4f8;
  --best: #7ddba6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem;
  font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2rem 0 .5rem; break-after: avoid; }
h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 3rem; }
p, ul, dl, summary { max-width: 46rem; }
a { color: var(--link); }
nav a { display: inline-block; margin-right: 1rem; }
small, figcaption, caption { color: var(--quiet); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th:first-child, .words :is(th, td) { text-align: left; }
.words td { min-width: 5rem; overflow-wrap: anywhere; }
th:first-child { position: sticky; left: 0; background: var(--paper);
  min-width: 8rem; overflow-wrap: anywhere; }
thead th:nth-child(n), th[scope=rowgroup] { background: var(--soft); }
td small { display: block; white-space: nowrap; }
td b { color: var(--best); white-space: nowrap; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .3rem 1.5rem; }
dt { font-weight: 600; }
dd { margin: 0; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: .8rem; line-height: 1.3; padding-top: .2rem; }
img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.case { display: grid; gap: .5rem; margin-bottom: 1rem; break-inside: avoid;
  grid-template-columns: repeat(auto-fit, minmax(5rem, 1fr)); }
.cases { display: grid; gap: 0 2rem; margin: .5rem 0; align-items: end;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--wide)), 1fr)); }
.charts { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.chart { max-width: 40rem; image-rendering: auto; background: #fff; }
@media print { nav { display: none; } body { font-size: 10pt; max-width: none; }
  .scroll { overflow: visible; } table { font-size: 8pt; }
  tr, .cases > div { break-inside: avoid; } .charts { grid-template-columns: 1fr 1fr; }
  details::details-content { content-visibility: visible; display: block; } }
"""

# Nothing but what lies inside the page is loaded, whatever a name may contain.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
  """Markup: what is not escaped any more."""


def tag(name: str, /, *children: str, **attributes: Any) -> Html:
  """Returns an element.

  Args:
    name: of the element.
    children: in this order; those that are not `Html` are escaped.
    attributes: `class_` is class, `aria_label` is aria-label; values are escaped.
  """
  opening = "".join(
    f' {key.strip("_").replace("_", "-")}="{html.escape(_printable(value))}"'
    for key, value in attributes.items()
  )
  if name in ("img", "meta"):
    return Html(f"<{name}{opening}>")
  return Html(f"<{name}{opening}>{''.join(map(_escape, children))}</{name}>")


def document(title: str, *body: str) -> str:
  """Returns a page of HTML in English."""
  head = tag(
    "head",
    tag("meta", charset="utf-8"),
    tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
    tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
    tag("title", title),
    tag("style", Html(STYLE)),
  )
  page = tag("html", head, tag("body", tag("main", *body)), lang="en")
  return f"<!DOCTYPE html>\n{page}\n"


def image(png: bytes, alt: str, **attributes: Any) -> Html:
  """Returns a picture that is part of the page."""
  with Image.open(io.BytesIO(png)) as opened:
    width, height = opened.size
  source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
  return tag("img", src=source, alt=alt, width=width, height=height, **attributes)


def png(pixels: np.ndarray, side: int = 0) -> bytes:
  """Returns a PNG of uint8 `[S, S, 3]` or `[S, S]`, of at most `side` pixels."""
  picture = Image.fromarray(pixels)
  if 0 < side < picture.width:
    picture = picture.resize((side, side), Image.Resampling.BOX)
  file = io.BytesIO()
  picture.save(file, "PNG", optimize=True)
  return file.getvalue()


def table(
  label: str, head: Sequence[str], *bodies: Sequence[Html], **attributes: Any
) -> Html:
  """Returns a table of groups of rows that scrolls where the screen is narrow."""
  top = tag("tr", *(tag("th", text, scope="col") for text in head))
  groups = (tag("tbody", *rows) for rows in bodies)
  made = tag("table", tag("thead", top), *groups, **attributes)
  return tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=label)


def _escape(child: str) -> str:
  return child if isinstance(child, Html) else html.escape(_printable(child), False)


def _printable(text: Any) -> str:
  """Control characters are not allowed in HTML, not even escaped."""
  return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", str(text))
