"""Numbers as drawings: SVG to stand in a page, in its text colour. The door to matplotlib.

Figures are made without pyplot, which would keep them in a process-wide list. Each holds one pair
of axes, so that a page can lay them out and a phone shows them one below the other.
"""

import contextlib
import io
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import matplotlib
import numpy as np
import scipy.linalg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from vqjax.evaluation.results import Baseline, Cloud

# Text stays text. The salt makes the ids, and so the file, the same each time.
_STYLE: dict[Any, Any] = {'svg.fonttype': 'none', 'svg.hashsalt': 'vqjax', 'font.size': 9}
# Blue and vermillion differ for every kind of colour vision; all are seen on white and on black.
USED, UNUSED, GREY = '#3987c9', '#d9662b', '#8c8c8c'
_COLOURS = (USED, UNUSED, '#2a9d74', '#b4699c', '#c9a227', '#5fb8d9', GREY)
_BESIDE = {
  'run': UNUSED,
  'jpeg': USED,
  'webp': '#2a9d74',
  'kmeans_patches': '#b4699c',
  'mean_color': GREY,
}
_INK = '#010203'  # stands for the page's text colour until the file is written

_MOST_POINTS = 2048  # of a scatter, and rows that its axes are fitted to
_MOST_STEPS = 500  # of a curve


def code_usage(counts: ArrayLike) -> tuple[str, str]:
  """How often each code occurs, most frequent first, on a logarithmic scale: (SVG, label).

  Args:
    counts: int [K], not all 0.
  """
  counts = np.sort(np.asarray(counts))[::-1]
  total, used = len(counts), int((counts > 0).sum())
  label = f'{used:,} of {total:,} codes used, {total - used:,} unused'
  with _figure() as (figure, axes):
    # Equal counts are one step of the line, so a codebook of any size is a few of them.
    starts = np.flatnonzero(np.diff(counts[:used], prepend=-1))
    starts = starts[_thin(len(starts), _MOST_POINTS)]
    axes.stairs(counts[starts], [*starts, used], baseline=None, color=USED, linewidth=1.4)
    mean = counts.sum() / total
    axes.axhline(mean, color=GREY, linewidth=1, linestyle='--', label=f'uniform: {mean:.4g} each')
    if used < total:
      axes.axvspan(used, total, color=UNUSED, alpha=0.25, linewidth=0, label='unused')
    axes.set(yscale='log', xlim=(0, total), xlabel='codes, most frequent first', ylabel='tokens')
    axes.xaxis.set_major_formatter(_thousands)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(label)
    axes.legend()
    return _svg(figure), label


def clouds(cloud: Cloud, counts: np.ndarray | None = None) -> tuple[list[tuple[str, str]], str]:
  """Latents (P), codes (C) and quantized latents (Q) in one plane: ([(SVG, label)], note).

  The plane is that of the two main directions of latents and codes together, each set of the same
  weight (without codes: of latents and quantized), so that codes far from every latent are seen to
  be. As vqtorch's page shows them (Huh et al., ICML 2023).

  Args:
    cloud: at most 2048 finite rows of each set are taken, evenly spread.
    counts: int [K], to tell used codes from unused, if `cloud.codes` has as many rows.
  """
  every = {'latents (P)': cloud.latents, 'codes (C)': cloud.codes, 'quantized (Q)': cloud.quantized}
  sets = {name: np.asarray(rows) for name, rows in every.items() if rows is not None}
  picks = {name: _picks(rows) for name, rows in sets.items()}
  fitted = ('latents (P)', 'codes (C)' if 'codes (C)' in sets else 'quantized (Q)')
  taken = {name: rows[picks[name]].astype(np.float64) for name, rows in sets.items()}
  points, shares = _project(taken, fitted)
  together = np.concatenate(list(points.values()))
  low, high = together.min(0), together.max(0)
  margin = 0.05 * np.maximum(high - low, 1e-6)
  used = None  # bool [K], where it can be told
  if cloud.codes is not None and counts is not None and len(counts) == len(cloud.codes):
    used = np.asarray(counts) > 0
  drawings = []
  for name, rows in points.items():
    colours: Any = USED
    if name == 'codes (C)' and used is not None:
      colours = np.where(used[picks[name]], USED, UNUSED)
    with _figure() as (figure, axes):
      # As pixels: thousands of marks would make the page slow.
      size = np.clip(6000 / len(rows), 4, 20)
      axes.scatter(*rows.T, s=size, c=colours, alpha=0.6, linewidths=0, rasterized=True)
      axes.set(
        xlim=(low[0] - margin[0], high[0] + margin[0]),
        ylim=(low[1] - margin[1], high[1] + margin[1]),
        xlabel='first direction',
        ylabel='second direction',
      )
      axes.set_title(f'{name}: {_shown(len(rows), len(sets[name]))}')
      drawings.append((_svg(figure), name))
  explained = ' and '.join(f'{s:.1%} of the variance of {name}' for name, s in shares.items())
  marked = ' Codes in blue are used, those in orange are not.' if used is not None else ''
  return drawings, f'The plane holds {explained}.{marked}'


def curves(
  title: str, lines: Mapping[str, tuple[ArrayLike, ArrayLike]], reference: Collection[str] = ()
) -> tuple[str, str]:
  """Numbers over steps: (SVG, label); logarithmic where all are positive and span a decade.

  Args:
    title: of the drawing.
    lines: {name: (steps, values)}; more than 500 values become means of neighbours.
    reference: names of lines to draw dashed and grey.
  """
  with _figure() as (figure, axes):
    for i, (name, line) in enumerate(lines.items()):
      style = {'color': _COLOURS[i % len(_COLOURS)]}
      if name in reference:
        style = {'color': GREY, 'linestyle': '--'}
      steps, values = (_means(np.asarray(numbers, np.float64)) for numbers in line)
      marker = 'o' if len(steps) < 8 else ''
      axes.plot(steps, values, linewidth=1.2, marker=marker, markersize=3, label=name, **style)
    values = np.concatenate([values for _, values in lines.values()])
    if values.min() > 0 and values.max() > 10 * values.min():
      axes.set_yscale('log')
      axes.yaxis.set_major_formatter(_short)
      axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
      many = values.max() > 100 * values.min()
      axes.yaxis.set_minor_formatter(NullFormatter() if many else _short)
    axes.set(xlabel='step')
    axes.set_title(title)
    axes.xaxis.set_major_formatter(_thousands)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend()
    return _svg(figure), title


def rate_distortion(baselines: Mapping[str, Baseline]) -> tuple[str, str]:
  """PSNR by bits a pixel, of a run, a star, and of what is beside it: (SVG, label).

  A codec is a curve, with a point where it was measured; the mean colour a dashed line.

  Args:
    baselines: by the names that `evaluation.baselines.measure` gives.
  """
  rate = baselines['run'].numbers['bits_per_pixel']
  # Around the rate, and to where each curve begins.
  right = max([1.5 * rate] + [1.1 * b.curve[0][0] for b in baselines.values() if b.curve])
  label = 'PSNR by bits a pixel, dB'
  with _figure() as (figure, axes):
    for name, baseline in baselines.items():
      style: dict[str, Any] = {'color': _BESIDE[name], 'label': baseline.label}
      if curve := [point for point in baseline.curve if point[0] <= right]:
        axes.plot(*zip(*curve, strict=True), linewidth=1.2, **style)
        style['label'] = None  # once in the legend
      psnr = baseline.numbers.get('psnr', math.nan)
      if name == 'mean_color':
        axes.axhline(psnr, linewidth=1, linestyle='--', **style)
      elif math.isfinite(psnr):
        mark, size = ('*', 13) if name == 'run' else ('o', 5)
        point = baseline.numbers['bits_per_pixel'], psnr
        axes.plot(*point, mark, markersize=size, zorder=3, **style)
    axes.set(xlim=(0, right), xlabel='bits a pixel')
    axes.set_title(label)
    axes.legend()
    return _svg(figure), label


def _project(sets, fitted):
  """(rows of each set in the plane [N 2], the share of each set's variance that it holds).

  The right singular vectors of the fitted sets, as eigenvectors of the sum of their second moments:
  only two of them are computed, so that wide latents do not take long.
  """
  centre = np.mean([sets[name].mean(0) for name in fitted], 0)
  sets = {name: rows - centre[None] for name, rows in sets.items()}
  moments = sum(sets[name].T @ sets[name] / len(sets[name]) for name in fitted)
  width = len(moments)
  plane = scipy.linalg.eigh(moments, subset_by_index=(max(width - 2, 0), width - 1))[1][:, ::-1]
  if plane.shape[1] == 1:  # latents of one number
    plane = np.pad(plane, ((0, 0), (0, 1)))
  points = {name: rows @ plane for name, rows in sets.items()}
  spread = lambda rows: rows.var(0).sum()
  shares = {name: spread(points[name]) / max(spread(sets[name]), 1e-30) for name in fitted}
  return points, shares


def _picks(rows):
  """Positions of at most _MOST_POINTS finite rows, evenly spread."""
  finite = np.flatnonzero(np.isfinite(rows).all(1))
  return finite[_thin(len(finite), _MOST_POINTS)]


def _thin(count, most):
  """At most `most` positions in `range(count)`, evenly spread."""
  kept = min(count, most)
  return np.arange(kept) * count // max(kept, 1)


def _shown(count, total):
  return f'{total:,}' if count == total else f'{count:,} of {total:,}'


def _means(values):
  parts = np.array_split(values, min(len(values), _MOST_STEPS))
  return np.array([part.mean() for part in parts])


@contextlib.contextmanager
def _figure():
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(4.6, 3.1), layout='constrained')
    axes = figure.subplots()
    yield figure, axes


def _svg(figure):
  """The figure as an SVG element; what has no colour of its own gets the page's."""
  (axes,) = figure.axes
  axes.patch.set_alpha(0)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(GREY)
  axes.tick_params(which='both', color=GREY, labelcolor=_INK)
  axes.title.set(color=_INK, fontsize=9)
  axes.xaxis.label.set_color(_INK)
  axes.yaxis.label.set_color(_INK)
  if legend := axes.get_legend():
    legend.set_frame_on(False)
    for text in legend.get_texts():
      text.set(color=_INK, fontsize=8)
  buffer = io.StringIO()
  nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
  figure.savefig(buffer, format='svg', transparent=True, metadata=nothing, dpi=160)
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :].replace(_INK, 'currentColor')
  # It would style the whole page.
  return re.sub(r'<style type="text/css">.*?</style>', '', svg, flags=re.DOTALL).strip()


_thousands = FuncFormatter(lambda value, _: f'{value:,.0f}')
_short = FuncFormatter(lambda value, _: f'{value:g}')
