"""An evaluation as files: metrics.json, pictures, and a page that holds everything.

`pictures.npz` is for `vqjax.compare`: fields `positions`, `psnr`, `originals`, `reconstructions`.
"""

import contextlib
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
from vqjax.report import generated, html, pictures, plots
from vqjax.runs.log import read_metrics
from vqjax.whole_files import reason, replacing

_IMAGES = (
  'Original, reconstruction and error map of held-out images, numbered in the order of the set. '
  f'The map is the mean over channels of the absolute difference: black is none, white is '
  f'{pictures.ERROR_WHITE} of 255 levels or more, in every image alike. A click, or Enter, makes a '
  'row large; a second one shows the same place of all three close up.'
)
_NUMBERS = {'bits_per_pixel': 'bits a pixel', 'psnr': 'PSNR', 'ssim': 'SSIM', 'lpips': 'LPIPS'}


def make_folder(out: str | pathlib.Path) -> pathlib.Path:
  """Makes the folder of a report: before the work, so that a wrong one costs none.

  Raises:
    UserError: it cannot be made; or a file there has the name of one of ours, and is not.
  """
  folder = pathlib.Path(out).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'cannot make {folder}: {error.strerror}; choose another --out.') from error
  for name, ours in _FILES.items():
    path = folder / name
    if path.exists() and not ours(path):
      raise UserError(
        f'{path} is there already and eval.py did not write it; choose another --out, or move it.'
      )
  return folder


def _has_protocol(path):
  try:
    return 'protocol' in json.loads(path.read_text())
  except (OSError, ValueError, TypeError, RecursionError):
    return False


def _is_page(path):
  with contextlib.suppress(OSError), path.open('rb') as file:
    return html.is_page(file.read(1000).decode(errors='replace'))
  return False


# Whether a file that is there is of a report; the pictures are nobody's without its numbers.
_FILES = {
  'metrics.json': _has_protocol,
  'report.html': _is_page,
  'reconstructions.png': lambda path: path.with_name('metrics.json').exists(),
  'pictures.npz': lambda path: path.with_name('metrics.json').exists(),
}


def write(folder: pathlib.Path, found: Evaluation) -> None:
  """Writes metrics.json, reconstructions.png, pictures.npz and report.html into `folder`.

  The page is one self-contained file. What the evaluation does not have, such as a classifier's
  pictures, is left out of it, and a file for it is not written. In metrics.json a number that is
  not finite is null, as one that is missing, and its meaning there begins with `infinite: `.
  `baselines` there is {name: {'bits_per_pixel', 'psnr', 'ssim', 'lpips': number or None, 'setting',
  'num_images', 'protocol', and where there are such: 'reason', why a number is None, and 'curve',
  [[bits a pixel, PSNR], ...]}}; see `evaluation.baselines`.

  Raises:
    UserError: a file cannot be written.
  """
  try:
    _write(folder, found)
  except OSError as error:
    raise UserError(
      f'cannot write {error.filename or folder}: {reason(error, folder)}; make room, or choose '
      'another --out.'
    ) from error


def _write(folder, found):
  _write_numbers(folder / 'metrics.json', found)
  if found.samples is not None:
    samples = found.samples
    picture = pictures.comparison(samples.originals, samples.reconstructions)
    with replacing(folder / 'reconstructions.png') as partial:
      Image.fromarray(picture).save(partial, 'png')
    with replacing(folder / 'pictures.npz') as partial, partial.open('wb') as file:
      np.savez_compressed(file, **samples._asdict())
  general = [(name, value) for name, value in found.protocol.items() if name != 'metrics']
  content = [
    html.table(_lines(found), ('metric', 'value', 'protocol'), kinds=('', 'number', 'note')),
    *_beside(found),
    *_galleries(found),
    *([] if found.generated is None else generated.sections(found.generated)),
    *_drawings(found),
    html.section('Protocol', html.table(general, kinds=('', 'note'))),
  ]
  with replacing(folder / 'report.html') as partial:
    partial.write_text(html.page(_title(found), *content))


def table(found: Evaluation) -> str:
  """The numbers as text, each with its meaning, in lines of 100 to 160 columns."""
  columns = min(max(shutil.get_terminal_size((100, 24)).columns, 100), 160)
  text = _in_columns(_lines(found), columns)
  if found.baselines:
    text += ['', *_in_columns([('', *_NUMBERS.values(), ''), *_baselines(found)], columns)]
  general = [_wrapped(f'{k}: ', v, columns) for k, v in found.protocol.items() if k != 'metrics']
  return '\n'.join([*text, '', *general])


def _in_columns(lines, columns):
  """Rows of a name, numbers and a note, which is wrapped."""
  first, *widths = (max(map(len, column)) for column in list(zip(*lines, strict=True))[:-1])
  return [
    _wrapped('  '.join([f'{name:<{first}}', *map(str.rjust, numbers, widths), '']), note, columns)
    for name, *numbers, note in lines
  ]


def _wrapped(start, text, columns):
  lines = textwrap.wrap(
    str(text), columns - len(start), break_long_words=False, break_on_hyphens=False
  )
  return start + ('\n' + ' ' * len(start)).join(lines)


def _lines(found):
  meaning = found.protocol['metrics']
  return [(name, in_table(value), meaning.get(name, '')) for name, value in found.metrics.items()]


def _baselines(found):
  """The rows of the run and of what is beside it."""
  for baseline in found.baselines.values():
    numbers = (in_table(baseline.numbers.get(name)) for name in _NUMBERS)
    note = baseline.reason or f'{baseline.setting}; {baseline.protocol}'.removeprefix('; ')
    yield baseline.label, *numbers, note


def _beside(found):
  if not found.baselines:
    return []
  count = found.baselines['run'].num_images
  total = found.metrics['num_images']
  of = f'{count:,} of the {total:,} images, evenly spread' if count < total else 'the same images'
  kinds = ('', *['number'] * len(_NUMBERS), 'note')
  return [
    html.section(
      'Beside other coders',
      html.paragraph(f'On {of}, at no more bits a pixel than the run.'),
      html.figures([plots.rate_distortion(found.baselines)]),
      html.table(_baselines(found), ('', *_NUMBERS.values(), ''), kinds),
    )
  ]


def _write_numbers(path, found):
  numbers, protocol = found.metrics, found.protocol
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
  content = {**numbers, **dict.fromkeys(infinite)}
  if found.baselines:
    content['baselines'] = {name: _baseline(of) for name, of in found.baselines.items()}
  content['protocol'] = protocol | {'metrics': definitions}
  with replacing(path) as partial:
    partial.write_text(json.dumps(content, indent=2) + '\n')


def _baseline(of):
  infinite = {name: value for name, value in of.numbers.items() if not math.isfinite(value)}
  said = [of.reason] * bool(of.reason) + [f'{n} is {in_table(v)}' for n, v in infinite.items()]
  optional = {'reason': '; '.join(said), 'curve': list(of.curve)}
  return {
    **{name: None if name in infinite else of.numbers.get(name) for name in _NUMBERS},
    'setting': of.setting,
    'num_images': of.num_images,
    'protocol': of.protocol,
    **{name: value for name, value in optional.items() if value},
  }


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
  """metrics.jsonl as {name: (steps, values)}; without nulls."""
  if path is None or not pathlib.Path(path).exists():
    return {}
  found: dict[str, tuple[list[int], list[float]]] = {}
  for _, row in read_metrics(pathlib.Path(path)):
    for name, value in row.items():
      if name != 'step' and isinstance(value, int | float):
        steps, curve = found.setdefault(name, ([], []))
        steps.append(row['step'])
        curve.append(value)
  return found
