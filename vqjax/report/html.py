"""A page of results: one HTML file that needs no other, from pieces made here.

Text given to these functions is escaped; `content` is what they returned.
"""

import base64
import html
import io
import pathlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from PIL import Image

_HERE = pathlib.Path(__file__).parent

# The policy lets the browser itself refuse whatever is not in the file.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
  style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
<h1>{title}</h1>
{content}
{zoom}</html>
"""

_ZOOM = """<dialog aria-label="images, large">
<div class="bar"><span></span>
<button name="previous" title="arrow left">previous</button>
<button name="next" title="arrow right">next</button>
<button name="near" autofocus title="Z, or click an image">close-up</button>
<button name="close" title="Escape">close</button></div>
<div class="images"></div>
</dialog>
<script>
{script}</script>
"""

_SMALL = 128  # pixels; an image below is drawn larger than it is, with its pixels visible

Labelled = tuple[str, np.ndarray]  # (label, uint8 [H W 3] or [H W])
Card = tuple[str, Sequence[Labelled]]  # (caption, what stands side by side above it)


def page(title: str, *content: str) -> str:
  """The whole file; the script for zooming is in it where there is a gallery."""
  below = '\n'.join(content)
  zoom = _ZOOM.format(script=_read('page.js')) if 'class="gallery"' in below else ''
  return _PAGE.format(title=_text(title), style=_read('page.css'), content=below, zoom=zoom)


def is_page(head: str) -> bool:
  """Whether a file that begins so is from `page`."""
  return head.startswith(_PAGE.partition(' content="default-src')[0])


def section(title: str, *content: str, level: int = 2) -> str:
  """A heading with what stands below it."""
  return '\n'.join((f'<h{level}>{_text(title)}</h{level}>', *content))


def paragraph(text: str) -> str:
  """A paragraph."""
  return f'<p>{_text(text)}</p>'


def items(texts: Iterable[str]) -> str:
  """A list."""
  return f'<ul>{"".join(f"<li>{_text(text)}" for text in texts)}</ul>'


def table(
  lines: Iterable[Sequence[str]],
  header: Sequence[str] = (),
  kinds: Sequence[str] = (),
  best: Collection[tuple[int, int]] = (),
) -> str:
  """A table of text.

  Args:
    lines: rows of cells.
    header: the cells above them.
    kinds: for each column a class of page.css, 'number' or 'note', or ''; a note at the end stands
      below its line where the screen is narrow.
    best: (row, column) of the cells to highlight.
  """
  numbers = max(kinds.count('number'), 1)
  notes = f' class="notes" style="--numbers: {numbers}"' if kinds[-1:] == ('note',) else ''
  kind = dict(enumerate(kinds))

  def row(tag, cells, i=None):
    names = [f'{kind.get(j, "")} {"best" * ((i, j) in best)}'.strip() for j in range(len(cells))]
    attributes = [f' class="{name}"' if name else '' for name in names]
    row = ''.join(f'<{tag}{a}>{_text(cell)}' for a, cell in zip(attributes, cells, strict=True))
    return f'<tr>{row}'

  rows = [row('th', header)] * bool(header) + [row('td', line, i) for i, line in enumerate(lines)]
  return f'<div class="scroll"><table{notes}>\n' + '\n'.join(rows) + '\n</table></div>'


def gallery(cards: Iterable[Card]) -> str:
  """Cards that zoom."""
  cards = list(cards)
  width = max(len(images) for _, images in cards)
  shown = '\n'.join(_card(*card) for card in cards)
  return f'<div class="gallery" style="--images: {width}">\n{shown}\n</div>'


def figures(drawings: Iterable[tuple[str, str]]) -> str:
  """Drawings beside or below each other, of (SVG, what it shows) each."""
  shown = (
    f'<figure role="img" aria-label="{_text(label)}">{svg}</figure>' for svg, label in drawings
  )
  return '<div class="figures">\n' + '\n'.join(shown) + '\n</div>'


def _card(caption, images):
  shown = ''.join(
    f'<span class="image"><span class="frame">{_image(image, label)}</span>'
    f'<span>{_text(label)}</span></span>'
    for label, image in images
  )
  return (
    f'<button class="card" type="button"><span class="images">{shown}</span>'
    f'<span class="caption">{_text(caption)}</span></button>'
  )


def _image(image, label):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'png')
  source = base64.b64encode(buffer.getvalue()).decode()
  pixels = ' class="pixels"' if max(image.shape[:2]) < _SMALL else ''
  return f'<img{pixels} alt="{_text(label)}" src="data:image/png;base64,{source}">'


def _text(text):
  return html.escape(str(text))


def _read(name):
  return (_HERE / name).read_text()
