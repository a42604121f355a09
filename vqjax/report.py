"""An evaluation as files: metrics.json, a picture, and a page that holds both."""

import base64
import html
import json
import pathlib

import numpy as np
from PIL import Image

from vqjax import pictures

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
    padding: 0 1rem }}
  table {{ border-collapse: collapse; margin: 1rem 0 }}
  td, th {{ text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
    border-bottom: 1px solid #ddd }}
  td:nth-child(2) {{ font-variant-numeric: tabular-nums; white-space: nowrap }}
  img {{ width: 100%; image-rendering: pixelated }}
</style>
<h1>{title}</h1>
<table><tr><th>metric<th>value<th>protocol{metrics}</table>
{picture}<h2>Protocol</h2>
<table>{protocol}</table>
</html>
"""

_PICTURE = """<h2>Originals above reconstructions</h2>
<img alt="held-out images above their reconstructions" src="data:image/png;base64,{}">
"""


def write(folder, numbers: dict, protocol: dict, result):
  """Writes metrics.json, reconstructions.png and report.html (self-contained) into `folder`.

  Without pictures in the result, a classifier's, there is no PNG.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  content = {**{k: _finite(v) for k, v in numbers.items()}, 'protocol': protocol}
  (folder / 'metrics.json').write_text(json.dumps(content, indent=2) + '\n')
  shown = ''
  if result.pictures:
    picture = folder / 'reconstructions.png'
    Image.fromarray(pictures.comparison(*result.pictures)).save(picture)
    shown = _PICTURE.format(base64.b64encode(picture.read_bytes()).decode())
  row = lambda *cells: '<tr>' + ''.join(f'<td>{html.escape(str(cell))}' for cell in cells)
  general = {k: v for k, v in protocol.items() if k != 'metrics'}
  page = _PAGE.format(
    title=html.escape(f'{protocol["run"]}, step {numbers["step"]}'),
    metrics='\n'.join(row(*line) for line in _lines(numbers, protocol)),
    picture=shown,
    protocol='\n'.join(row(*item) for item in general.items()),
  )
  (folder / 'report.html').write_text(page)


def table(numbers: dict, protocol: dict) -> str:
  """The numbers as text, one a line, each with its protocol."""
  lines = _lines(numbers, protocol)
  widths = [max(len(line[i]) for line in lines) for i in range(2)]
  text = '\n'.join(f'{n:<{widths[0]}}  {v:>{widths[1]}}  {p}' for n, v, p in lines)
  general = '\n'.join(f'{k}: {v}' for k, v in protocol.items() if k != 'metrics')
  return f'{text}\n\n{general}'


def _lines(numbers, protocol):
  return [
    (name, _words(value), protocol['metrics'].get(name, '')) for name, value in numbers.items()
  ]


def _words(value):
  if value is None:
    return 'null'
  return str(value) if isinstance(value, int) else f'{value:.4f}'


def _finite(value):
  return None if isinstance(value, float) and not np.isfinite(value) else value
