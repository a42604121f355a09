"""A study's table as a picture."""

import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from studies.study import Axes
from vqjax.report.plots import GREY, UNUSED, USED

_COLOURS = (USED, UNUSED, '#2a9d74', '#b4699c', '#c9a227', '#5fb8d9')
_MARKERS = 'osD^vP*X'
_DASHES = ('-', '--', ':')
# Of what eval.py sets beside a run.
_BASELINES = {'jpeg': 'JPEG', 'webp': 'WebP', 'kmeans_patches': 'k-means on patches'}


def draw(
  table: Mapping[str, Any], axes: Axes, headings: Mapping[str, str], path: pathlib.Path
) -> None:
  """Writes the `figure` of these as a PNG."""
  figure(table, axes, headings).savefig(path, dpi=120)


def figure(table: Mapping[str, Any], axes: Axes, headings: Mapping[str, str]) -> Figure:
  """Means with their intervals, and in grey the baselines that have the numbers on both axes.

  Args:
    table: of `table.collect`.
    axes: of the study.
    headings: {name of a number: how it is called}.
  """
  rows = [row for row in table['rows'] if row['numbers']]
  sections = _values(rows, axes.rows) or ['']
  size = (1 + 3.2 * len(axes.panels), 0.8 + 2.8 * len(sections))
  drawn = Figure(figsize=size, layout='constrained')
  panels = drawn.subplots(len(sections), len(axes.panels), squeeze=False)
  for section, line in zip(sections, panels, strict=True):
    here = [row for row in rows if not axes.rows or row['point'][axes.rows] == section]
    for name, panel in zip(axes.panels, line, strict=True):
      _panel(panel, here, axes, name)
      panel.set_xlabel(headings.get(axes.x, axes.x))
      panel.set_ylabel(headings.get(name, name))
      panel.set_title(f'{axes.rows}: {section}' if axes.rows else '', fontsize=9)
  handles = {}
  for panel in panels.flat:
    handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
  if handles:
    drawn.legend(
      handles.values(), handles.keys(), loc='outside right upper', title=axes.lines, fontsize=8
    )
  drawn.suptitle(table['question'], fontsize=11)
  return drawn


def _panel(panel, rows, axes, name):
  lines = _values(rows, axes.lines)
  for i, line in enumerate(lines):
    points = [_point(row, axes.x, name) for row in rows if row['point'][axes.lines] == line]
    points = sorted(point for point in points if point)
    if points:
      x, y, error = zip(*points, strict=True)
      style = {
        'color': _COLOURS[i % len(_COLOURS)],
        'marker': _MARKERS[i % len(_MARKERS)],
        'linestyle': _DASHES[i // len(_COLOURS) % len(_DASHES)],
      }
      panel.errorbar(x, y, error, label=line, markersize=4, linewidth=1.2, capsize=2, **style)
  for i, (baseline, words) in enumerate(_BASELINES.items()):
    of = f'baselines/{baseline}/'
    if found := {_point(row, of + axes.x, of + name) for row in rows} - {None}:
      x, y, _ = zip(*sorted(found), strict=True)
      style = {'color': GREY, 'marker': _MARKERS[-1 - i], 'linestyle': _DASHES[i % len(_DASHES)]}
      panel.plot(x, y, label=words, markersize=4, linewidth=1, **style)
  panel.spines[['top', 'right']].set_visible(False)
  places = sorted({row['point'][axes.x] for row in rows if axes.x in row['point']})
  if places:  # a choice: its values, at even ratios
    panel.set_xscale('log')
    panel.set_xticks(places, [f'{place:,}' for place in places])
    panel.xaxis.set_minor_locator(NullLocator())
  values = [row['numbers'][name]['mean'] for row in rows if name in row['numbers']]
  if values and min(values) > 0 and max(values) > 20 * min(values):
    panel.set_yscale('log')
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter('{x:,g}'))
    panel.yaxis.set_minor_locator(NullLocator())


def _point(row, x, y):
  """(x, y, half the interval of y), or None."""
  numbers = row['numbers']
  at = row['point'].get(x, numbers.get(x, {}).get('mean'))
  if at is None or y not in numbers:
    return None
  return at, numbers[y]['mean'], numbers[y]['interval'] or 0.0


def _values(rows, choice):
  """The values of a choice, in the order of the table."""
  return list(dict.fromkeys(row['point'][choice] for row in rows)) if choice else []
