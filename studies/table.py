"""What a study found, from the files of its runs: means and intervals over seeds, as a table."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from studies.plan import read_numbers, run_folder
from studies.study import Study

CONFIDENCE = 0.95
FAILED = 'failed.txt'  # in the folder of a run that failed: why
MADE = 'made.json'  # in the folder of every run: on which machine, by what, when


def interval(values: Sequence[float]) -> float | None:
  """Half the width of the mean's 95% interval by Student's t; None of a single value."""
  if len(values) < 2:
    return None
  error = np.std(values, ddof=1) / math.sqrt(len(values))
  return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error)


def collect(study: Study, out: pathlib.Path) -> dict[str, Any]:
  """The content of table.json, from the folders of runs in `out` and nothing else.

  Returns:
    `rows`, for every point its `point`, `numbers` as {name: {'mean', 'interval', 'seeds'}} and
    `failed` as {seed: reason}; and `made`: machines, versions, dates and data, each a list.
  """
  rows, made = [], []
  for point in study.points:
    found, failed = [], {}
    pattern = run_folder(pathlib.Path(), point, '*')
    for folder in sorted(
      out.glob(str(pattern)), key=lambda path: int(path.name.removeprefix('seed'))
    ):
      if reason := _reason(folder):
        failed[folder.name.removeprefix('seed')] = reason
      elif evaluated := read_numbers(folder):
        found.append(_numbers(folder, evaluated))
        made.append(_made(folder, evaluated))
    names = dict.fromkeys(name for numbers in found for name in numbers)
    values = {name: [numbers[name] for numbers in found if name in numbers] for name in names}
    numbers = {
      name: {'mean': float(np.mean(v)), 'interval': interval(v), 'seeds': len(v)}
      for name, v in values.items()
    }
    rows.append({'point': dict(point), 'seeds': len(found), 'numbers': numbers, 'failed': failed})
  return {
    'question': study.question,
    'setting': study.setting,
    'claims': list(study.claims),
    'rows': rows,
    'made': {key: sorted({m[key] for m in made if key in m}) for key in _MADE},
  }


def markdown(table: Mapping[str, Any], numbers: Mapping[str, str]) -> str:
  """The content of table.md: of `collect`'s table the columns `numbers`, {name: heading}."""
  rows = table['rows']
  choices = tuple(rows[0]['point'])
  failed = ('failed',) if any(row['failed'] for row in rows) else ()
  lines = [(*choices, 'seeds', *numbers.values(), *failed)]
  for row in rows:
    reasons = '; '.join(f'seed {seed}: {reason}' for seed, reason in row['failed'].items())
    lines.append(
      (
        *(f'{v:,}' if isinstance(v, int) else v for v in row['point'].values()),
        str(row['seeds']),
        *(shown(row['numbers'].get(name)) for name in numbers),
        *(reasons.replace('|', r'\|') for _ in failed),
      )
    )
  lines.insert(1, ('---',) * len(lines[0]))
  claims = [f'- {claim}' for claim in table['claims']]
  made = [f'- {heading}: {"; ".join(table["made"][key])}' for key, heading in _MADE.items()]
  return '\n'.join(
    [
      f'# {table["question"]}\n',
      f'{table["setting"]}\n',
      *(f'| {" | ".join(line)} |' for line in lines),
      "\nMean over seeds, and half its 95% interval (Student's t) where there is more than one.\n",
      *(['Authors say:\n', *claims, ''] if claims else []),
      'Made:\n',
      *made,
      '- commands: commands.sh\n',
    ]
  )


def shown(number: Mapping[str, Any] | None) -> str:
  """A mean and its interval in the same decimals, four digits of the mean: `25.41 ± 0.30`."""
  if number is None:
    return ''
  mean = number['mean']
  digits = 3 - math.floor(math.log10(abs(mean))) if mean else 3
  decimals = min(max(digits, 0), 4)
  text = f'{mean:,.{decimals}f}'
  return text if number['interval'] is None else f'{text} ± {number["interval"]:,.{decimals}f}'


# Of `made`: {key: how the table says it}.
_MADE = {
  'data': 'held-out images',
  'steps': 'steps of training',
  'device': 'computed on',
  'machine': 'machine',
  'versions': 'versions',
  'date': 'dates',
}


def _reason(folder):
  """Why a run failed; '' if it did not, or has just begun again."""
  try:
    return (folder / FAILED).read_text().strip()
  except FileNotFoundError:
    return ''


def _made(folder, evaluated):
  protocol = evaluated['protocol']
  found = {
    'data': f'{protocol["data"]}, {protocol["images"]}',
    'steps': f'{evaluated["step"]:,}',
    'device': protocol['computed on'],
  }
  if (folder / MADE).exists():
    found |= json.loads((folder / MADE).read_text())
  return found


def _numbers(folder, evaluated):
  """{name: number} of a run, as `Study` names them; what is null is left out."""
  numbers = _flat({name: value for name, value in evaluated.items() if name != 'protocol'})
  path = folder / 'metrics.jsonl'
  for line in path.read_text().splitlines() if path.exists() else ():
    numbers |= {f'train/{name}': value for name, value in _flat(json.loads(line)).items()}
  return numbers


def _flat(values, prefix=''):
  flat = {}
  for name, value in values.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name}/')
    elif isinstance(value, int | float):
      flat[prefix + name] = value
  return flat
