"""An evaluation as files: metrics.json, pictures, and a page that holds everything.

`pictures.npz` is for `vqjax.compare`: fields `positions`, `psnr`, `originals`, `reconstructions`.
"""

import json
import math
import pathlib
import shutil
import textwrap

import numpy as np
from PIL import Image

from vqjax.errors import UserError
from vqjax.report import html, pictures, plots

_IMAGES = (
  'Original, reconstruction and error map of held-out images, numbered in the order of the set. '
  f'The map is the mean over channels of the absolute difference: black is none, white is '
  f'{pictures.ERROR_WHITE} of 255 levels or more, in every image alike. A click, or Enter, makes a '
  'row large; a second one shows the same place of all three close up.'
)
# Names in metrics.jsonl by the drawing that they share.
_CURVES = {
  'loss': ('loss', 'l1', 'l2', 'perceptual', 'cross_entropy', 'quantizer'),
  'quantizer terms': ('commitment', 'codebook', 'entropy', 'sample_entropy', 'code_entropy'),
  'discriminator': ('generator', 'discriminator', 'r1', 'gan_weight'),
  'usage': ('usage', 'eval/usage', 'dead'),
  'perplexity': ('perplexity', 'eval/perplexity'),
  'held-out PSNR, dB': ('eval/psnr', 'eval/psnr_mean_color'),
  'accuracy': ('accuracy', 'eval/accuracy'),
}
_REFERENCE = ('eval/psnr_mean_color',)


def write(folder, numbers: dict, protocol: dict, result, curves=None):
  """Writes metrics.json, reconstructions.png, pictures.npz and report.html into `folder`.

  The page is one self-contained file. Whatever the result does not have, such as a classifier's
  pictures, is left out of it, and a file for it is not written.

  Args:
    folder: made if need be.
    numbers: {name: number or None}. In metrics.json a number that is not finite is null too, and
      its definition there begins with `infinite: `.
    protocol: {'run': ..., 'metrics': {name: definition, or of a None what it needs}, ...}.
    result: an `evaluation.Evaluation`; its samples are the pictures of the two other files.
    curves: path of the run's metrics.jsonl; None, or one that does not exist: no training curves.

  Raises:
    UserError: the folder or a file in it cannot be written.
  """
  folder = pathlib.Path(folder)
  try:
    _write(folder, numbers, protocol, result, curves)
  except OSError as error:
    raise UserError(
      f'cannot write {error.filename or folder}: {error.strerror}; make room, or choose another '
      '--out.'
    ) from error


def _write(folder, numbers, protocol, result, curves):
  folder.mkdir(parents=True, exist_ok=True)
  _write_numbers(folder / 'metrics.json', numbers, protocol)
  if result.samples is not None:
    samples = result.samples
    picture = pictures.comparison(samples.originals, samples.reconstructions)
    Image.fromarray(picture).save(folder / 'reconstructions.png')
    np.savez_compressed(folder / 'pictures.npz', **samples._asdict())
  general = [(name, value) for name, value in protocol.items() if name != 'metrics']
  content = [
    html.table(
      _lines(numbers, protocol), ('metric', 'value', 'protocol'), kinds=('', 'number', 'note')
    ),
    *_galleries(result),
    *_drawings(result, _read_curves(curves)),
    html.section('Protocol', html.table(general, kinds=('', 'note'))),
  ]
  (folder / 'report.html').write_text(html.page(_title(numbers, protocol), *content))


def table(numbers: dict, protocol: dict) -> str:
  """The numbers as text, each with its protocol, in lines of 100 to 160 columns."""
  columns = min(max(shutil.get_terminal_size((100, 24)).columns, 100), 160)
  lines = _lines(numbers, protocol)
  widths = [max(len(line[i]) for line in lines) for i in range(2)]
  text = [
    _wrapped(f'{name:<{widths[0]}}  {value:>{widths[1]}}  ', definition, columns)
    for name, value, definition in lines
  ]
  general = [_wrapped(f'{k}: ', v, columns) for k, v in protocol.items() if k != 'metrics']
  return '\n'.join([*text, '', *general])


def words(value) -> str:
  """A number as text: four decimals, or four digits where it is small."""
  if value is None:
    return 'null'
  if isinstance(value, int):
    return str(value)
  if not math.isfinite(value):
    return 'not a number' if math.isnan(value) else 'infinite'
  return f'{value:.4g}' if 0 < abs(value) < 0.1 else f'{value:.4f}'


def decibels(psnr) -> str:
  """A PSNR below an image."""
  return f'{psnr:.2f} dB' if math.isfinite(psnr) else words(float(psnr))


def _wrapped(start, text, columns):
  lines = textwrap.wrap(
    str(text), columns - len(start), break_long_words=False, break_on_hyphens=False
  )
  return start + ('\n' + ' ' * len(start)).join(lines)


def _lines(numbers, protocol):
  return [
    (name, words(value), protocol['metrics'].get(name, '')) for name, value in numbers.items()
  ]


def _write_numbers(path, numbers, protocol):
  infinite = {
    name: value
    for name, value in numbers.items()
    if isinstance(value, float) and not math.isfinite(value)
  }
  # JSON has no infinity, and a reader of the null must learn that nothing is missing.
  definitions = {
    name: f'{words(infinite[name])}: {text}' if name in infinite else text
    for name, text in protocol['metrics'].items()
  }
  content = {**numbers, **dict.fromkeys(infinite), 'protocol': protocol | {'metrics': definitions}}
  path.write_text(json.dumps(content, indent=2) + '\n')


def _title(numbers, protocol):
  run = protocol.get('run', 'Evaluation')
  return f'{run}, step {numbers["step"]}' if 'step' in numbers else run


def _galleries(result):
  kinds = {
    'Evenly spread over the set': result.samples,
    'Best by PSNR': result.best,
    'Worst by PSNR': result.worst,
  }
  kinds = {title: found for title, found in kinds.items() if found is not None}
  if not kinds:
    return []
  shown = [
    html.section(title, html.gallery(_cards(found)), level=3) for title, found in kinds.items()
  ]
  return [html.section('Images', html.paragraph(_IMAGES), *shown)]


def _cards(found):
  maps = pictures.error_map(found.originals, found.reconstructions)
  names = ('original', 'reconstruction', 'error')
  for i, position in enumerate(found.positions):
    images = (found.originals[i], found.reconstructions[i], maps[i])
    caption = f'image {position}, PSNR {decibels(found.psnr[i])}'
    yield caption, list(zip(names, images, strict=True))


def _drawings(result, lines):
  counts = result.code_counts
  if counts is not None and counts.sum():
    yield html.section('Code usage', html.figures([plots.code_usage(counts)]))
  if result.cloud is not None:
    drawings, note = plots.clouds(result.cloud, counts)
    yield html.section('Latents and codes', html.figures(drawings), html.paragraph(note))
  drawings = []
  for title, names in _CURVES.items():
    if found := {name: lines[name] for name in names if name in lines}:
      drawings.append(plots.curves(title, found, _REFERENCE))
  if drawings:
    yield html.section('Training', html.figures(drawings))


def _read_curves(path):
  """metrics.jsonl as {name: (steps, values)}; without nulls and a line that a crash cut."""
  if path is None or not pathlib.Path(path).exists():
    return {}
  found = {}
  for line in pathlib.Path(path).read_text().splitlines():
    try:
      values = json.loads(line)
      step = values.pop('step')
    except (json.JSONDecodeError, KeyError):
      continue
    for name, value in values.items():
      if value is not None:
        steps, curve = found.setdefault(name, ([], []))
        steps.append(step)
        curve.append(value)
  return found
