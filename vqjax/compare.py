"""Evaluations of several runs in one table and on one page.

python -m vqjax.compare RUN RUN ... --out=DIR [--allow_different_protocols]

RUN is the folder of a run that eval.py has evaluated, or the folder that it wrote. Writes
DIR/comparison.json and DIR/comparison.html, and prints the table. Evaluations whose protocols
differ are refused, because their numbers do not compare.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vqjax import commands
from vqjax.errors import UserError
from vqjax.evaluation import saved
from vqjax.evaluation.table import METRICS, OF_SAMPLES, decibels, in_table
from vqjax.report import html
from vqjax.whole_files import reason, replacing

_IMAGES = (
  'Originals and what each run made of them. A click, or Enter, makes a row large; a second one '
  'shows the same place of all close up.'
)
_NULL = 'Null, and why'
_UNLIKE = 'The protocols differ, so these numbers do not compare'
_NO_IMAGES = 'None: no original is shown by all of these evaluations.'


def compare(
  runs: Sequence[str | pathlib.Path],
  out: str | pathlib.Path,
  *,
  allow_different_protocols: bool = False,
) -> dict[str, Any]:
  """Writes comparison.json and comparison.html into `out` and prints the table.

  Args:
    runs: folders of runs, or of their evaluations; at least two.
    out: the folder to write, made if need be.
    allow_different_protocols: name the differences instead of refusing; no value is best then.

  Returns:
    What comparison.json holds: 'runs' {name: folder}, 'metrics' {metric: {run: number or None}},
    'best' {metric: [runs]}, 'missing' {metric: {run: why it is null}}, 'differences' {field: {run:
    value}}, 'protocol', of the first run.

  Raises:
    UserError: fewer than two runs, a run that is not evaluated, or protocols that differ.
  """
  if len(runs) < 2:
    raise UserError(
      f'a comparison takes two runs or more, and {len(runs)} is given; add folders of runs that '
      'eval.py has saved.'
    )
  found = {name: saved.read(run) for name, run in saved.named(runs).items()}
  differences = saved.differences(found)
  if differences and not allow_different_protocols:
    raise UserError(
      f'the evaluations differ in {saved.listed(differences)}; make them alike with eval.py, or'
      ' add --allow_different_protocols to see numbers that do not compare side by side.'
    )
  metrics = {
    metric: {name: run.numbers.get(metric) for name, run in found.items()}
    for metric in dict.fromkeys(metric for run in found.values() for metric in run.numbers)
  }
  content = {
    'runs': {name: str(run.folder) for name, run in found.items()},
    'metrics': metrics,
    'best': {} if differences else _best(metrics),
    'missing': _missing(metrics, found),
    'differences': differences,
    'protocol': next(iter(found.values())).protocol,
  }
  out = pathlib.Path(out).expanduser()  # no shell does that behind --out=
  try:
    out.mkdir(parents=True, exist_ok=True)
    texts = {'json': json.dumps(content, indent=2) + '\n', 'html': _page(content, found)}
    for kind, text in texts.items():
      with replacing(out / f'comparison.{kind}') as partial:
        partial.write_text(text)
  except OSError as error:
    raise UserError(f'cannot write {out}: {reason(error, out)}; choose another --out.') from error
  print(_text(content))
  print(f'written: {out / "comparison.html"}')
  return content


def _best(metrics):
  """{metric: names of the runs whose value is best}, of the rows where that can be said.

  Not where all are alike, where a run has no number, which may be infinite, or where neither
  direction is the better one.
  """
  best = {}
  rows = METRICS | OF_SAMPLES
  for name, values in metrics.items():
    numbers = set(values.values())
    better = rows[name].better if name in rows else ''
    if better and len(numbers) > 1 and None not in numbers:
      top = max(numbers) if better == 'higher' else min(numbers)
      best[name] = [run for run, value in values.items() if value == top]
  return best


def _missing(metrics, found):
  missing: dict[str, dict[str, str]] = {}
  for metric, values in metrics.items():
    for name, value in values.items():
      if value is None:
        known = found[name].protocol['metrics'] if metric in found[name].numbers else {}
        missing.setdefault(metric, {})[name] = known.get(metric, 'not measured')
  return missing


def _lines(content):
  return [
    (metric, *map(in_table, values.values())) for metric, values in content['metrics'].items()
  ]


def _reasons(content):
  return [
    f'{metric} of {", ".join(run for run in reasons if reasons[run] == reason)}: {reason}'
    for metric, reasons in content['missing'].items()
    for reason in dict.fromkeys(reasons.values())
  ]


def _unlike(content):
  return [saved.listed({name: of}) for name, of in content['differences'].items()]


def _text(content):
  marked = [
    [
      cell + ('*' if name in content['best'].get(line[0], ()) else ' ')
      for name, cell in zip(content['runs'], line[1:], strict=True)
    ]
    for line in _lines(content)
  ]
  table = [['', *(f'{name} ' for name in content['runs'])]]
  table += [[metric, *cells] for metric, cells in zip(content['metrics'], marked, strict=True)]
  first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
  text = [
    '  '.join([f'{line[0]:<{first}}', *map(str.rjust, line[1:], widths)]).rstrip() for line in table
  ]
  if content['best']:
    text += ['', '* best of its row']
  for title, lines in ((_NULL, _reasons(content)), (_UNLIKE, _unlike(content))):
    if lines:
      text += ['', f'{title}:', *lines]
  return '\n'.join(text)


def _page(content, found):
  names = list(content['runs'])
  best = {
    (i, 1 + names.index(name))
    for i, metric in enumerate(content['metrics'])
    for name in content['best'].get(metric, ())
  }
  sections = []
  if unlike := _unlike(content):
    sections.append(html.section(_UNLIKE, html.items(unlike)))
  kinds = ('', *['number'] * len(names))
  sections.append(html.table(_lines(content), ('metric', *names), kinds, best))
  if best:
    sections.append(html.paragraph('Bold: the best of its row.'))
  if reasons := _reasons(content):
    sections.append(html.section(_NULL, html.items(reasons)))
  cards = _cards(found)
  images = [html.paragraph(_IMAGES), html.gallery(cards)] if cards else [html.paragraph(_NO_IMAGES)]
  sections.append(html.section('Images', *images))
  general = [(k, v) for k, v in content['protocol'].items() if k not in saved.OF_THE_RUN]
  definitions = {
    metric: definition
    for run in found.values()
    for metric, definition in run.protocol['metrics'].items()
    if run.numbers.get(metric) is not None
  }
  sections += [
    html.section('Protocol', html.table([*general, *definitions.items()], kinds=('', 'note'))),
    html.section('Runs', html.table(list(content['runs'].items()), kinds=('', 'note'))),
  ]
  return html.page(' and '.join(names) if len(names) == 2 else f'{len(names)} runs', *sections)


def _cards(found):
  """For each original that every run has shown: it, and what each run made of it."""
  if any(run.pictures is None for run in found.values()):
    return []
  rows = [
    {int(position): i for i, position in enumerate(run.pictures['positions'])}
    for run in found.values()
  ]
  cards = []
  for position in rows[0]:
    if not all(position in row for row in rows):
      continue
    shown = [
      {field: values[row[position]] for field, values in run.pictures.items()}
      for run, row in zip(found.values(), rows, strict=True)
    ]
    original = shown[0]['originals']
    if all(np.array_equal(original, one['originals']) for one in shown):
      images = [('original', original)]
      for name, one in zip(found, shown, strict=True):
        images.append((f'{name}, {decibels(one["psnr"])}', one['reconstructions']))
      cards.append((f'image {position}', images))
  return cards


def _arguments(parser):
  parser.add_argument('runs', nargs='*', metavar='RUN', help='a run, or its evaluation')
  parser.add_argument('--out', required=True, help='the folder to write')
  parser.add_argument(
    '--allow_different_protocols', action='store_true', help='compare what does not compare'
  )


def _main(args):
  compare(args.runs, args.out, allow_different_protocols=args.allow_different_protocols)


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.compare runs/A runs/B --out=comparison',
  uses_jax=False,
)

if __name__ == '__main__':
  commands.run(COMMAND)
