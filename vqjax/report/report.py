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
from vqjax.evaluation.results import Evaluation
from vqjax.evaluation.table import METRICS, decibels, in_table
from vqjax.report import html, pictures, plots

_IMAGES = (
  'Original, reconstruction and error map of held-out images, numbered in the order of the set. '
  f'The map is the mean over channels of the absolute difference: black is none, white is '
  f'{pictures.ERROR_WHITE} of 255 levels or more, in every image alike. A click, or Enter, makes a '
  'row large; a second one shows the same place of all three close up.'
)


def make_folder(out: str | pathlib.Path) -> pathlib.Path:
  """Makes the folder of a report: before the work, so that a wrong one costs none.

  Raises:
    UserError: it cannot be made.
  """
  folder = pathlib.Path(out).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'cannot make {folder}: {error.strerror}; choose another --out.') from error
  return folder


def write(folder: pathlib.Path, found: Evaluation) -> None:
  """Writes metrics.json, reconstructions.png, pictures.npz and report.html into `folder`.

  The page is one self-contained file. What the evaluation does not have, such as a classifier's
  pictures, is left out of it, and a file for it is not written. In metrics.json a number that is
  not finite is null, as one that is missing, and its meaning there begins with `infinite: `.

  Raises:
    UserError: a file cannot be written.
  """
  try:
    _write(folder, found)
  except OSError as error:
    raise UserError(
      f'cannot write {error.filename or folder}: {error.strerror}; make room, or choose another '
      '--out.'
    ) from error


def _write(folder, found):
  _write_numbers(folder / 'metrics.json', found.metrics, found.protocol)
  if found.samples is not None:
    samples = found.samples
    picture = pictures.comparison(samples.originals, samples.reconstructions)
    Image.fromarray(picture).save(folder / 'reconstructions.png')
    np.savez_compressed(folder / 'pictures.npz', **samples._asdict())
  general = [(name, value) for name, value in found.protocol.items() if name != 'metrics']
  content = [
    html.table(_lines(found), ('metric', 'value', 'protocol'), kinds=('', 'number', 'note')),
    *_galleries(found),
    *_drawings(found),
    html.section('Protocol', html.table(general, kinds=('', 'note'))),
  ]
  (folder / 'report.html').write_text(html.page(_title(found), *content))


def table(found: Evaluation) -> str:
  """The numbers as text, each with its meaning, in lines of 100 to 160 columns."""
  columns = min(max(shutil.get_terminal_size((100, 24)).columns, 100), 160)
  lines = _lines(found)
  widths = [max(len(line[i]) for line in lines) for i in range(2)]
  text = [
    _wrapped(f'{name:<{widths[0]}}  {value:>{widths[1]}}  ', meaning, columns)
    for name, value, meaning in lines
  ]
  general = [_wrapped(f'{k}: ', v, columns) for k, v in found.protocol.items() if k != 'metrics']
  return '\n'.join([*text, '', *general])


def _wrapped(start, text, columns):
  lines = textwrap.wrap(
    str(text), columns - len(start), break_long_words=False, break_on_hyphens=False
  )
  return start + ('\n' + ' ' * len(start)).join(lines)


def _lines(found):
  meaning = found.protocol['metrics']
  return [(name, in_table(value), meaning.get(name, '')) for name, value in found.metrics.items()]


def _write_numbers(path, numbers, protocol):
  infinite = {
    name: value
    for name, value in numbers.items()
    if isinstance(value, float) and not math.isfinite(value)
  }
  # JSON has no infinity, and a reader of the null must learn that nothing is missing.
  definitions = {
    name: f'{in_table(infinite[name])}: {text}' if name in infinite else text
    for name, text in protocol['metrics'].items()
  }
  content = {**numbers, **dict.fromkeys(infinite), 'protocol': protocol | {'metrics': definitions}}
  path.write_text(json.dumps(content, indent=2) + '\n')


def _title(found):
  run = found.protocol.get('run', 'Evaluation')
  return f'{run}, step {found.metrics["step"]}' if 'step' in found.metrics else run


def _galleries(found):
  kinds = {
    'Evenly spread over the set': found.samples,
    'Best by PSNR': found.best,
    'Worst by PSNR': found.worst,
  }
  kinds = {title: shown for title, shown in kinds.items() if shown is not None}
  if not kinds:
    return []
  sections = [
    html.section(title, html.gallery(_cards(shown)), level=3) for title, shown in kinds.items()
  ]
  return [html.section('Images', html.paragraph(_IMAGES), *sections)]


def _cards(shown):
  maps = pictures.error_map(shown.originals, shown.reconstructions)
  names = ('original', 'reconstruction', 'error')
  for i, position in enumerate(shown.positions):
    images = (shown.originals[i], shown.reconstructions[i], maps[i])
    caption = f'image {position}, PSNR {decibels(shown.psnr[i])}'
    yield caption, list(zip(names, images, strict=True))


def _drawings(found):
  counts = found.code_counts
  if counts is not None and counts.sum():
    yield html.section('Code usage', html.figures([plots.code_usage(counts)]))
  if found.cloud is not None:
    drawings, note = plots.clouds(found.cloud, counts)
    yield html.section('Latents and codes', html.figures(drawings), html.paragraph(note))
  if drawings := [plots.curves(*drawing) for drawing in _curves(_read_curves(found.curves))]:
    yield html.section('Training', html.figures(drawings))


def _curves(lines):
  """(title, lines, names of those that are drawn for comparison) of every drawing of curves."""
  titles = dict.fromkeys(metric.curve for metric in METRICS.values() if metric.curve)
  for title in titles:
    of = {
      key: metric
      for name, metric in METRICS.items()
      for key in (name, f'eval/{name}')
      if metric.curve == title and key in lines
    }
    if of:
      baselines = tuple(key for key, metric in of.items() if metric.baseline)
      yield title, {key: lines[key] for key in of}, baselines


def _read_curves(path):
  """metrics.jsonl as {name: (steps, values)}; without nulls and a line that a crash cut."""
  if path is None or not pathlib.Path(path).exists():
    return {}
  found: dict[str, tuple[list[int], list[float]]] = {}
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
