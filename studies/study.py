"""What a study is: one training, again and again, with a thing or two of it changed."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

# A point of a study: {name of a choice: its value}, such as {'estimator': 'rotation', 'width': 8}.
Point = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Axes:
  """How the figure shows a study; each name is that of a choice or of a number.

  Attributes:
    x: along the horizontal axes.
    lines: choice, each value of which is a line.
    panels: numbers, each of which is a pair of axes.
    rows: choice, each value of which is a row of panels; '': a single row.
  """

  x: str
  lines: str
  panels: tuple[str, ...]
  rows: str = ''


@dataclasses.dataclass(frozen=True)
class Study:
  """What is asked, and all that it takes to answer.

  A number is called by its name in a run's eval/metrics.json, `baselines/NAME/NUMBER` where it
  stands deeper there; `train/NAME` is the last of that name in its metrics.jsonl.

  Attributes:
    question: title of the table.
    setting: what all runs share, and what the numbers are.
    claims: what authors say of it, with the source.
    config: configuration file whose argument are the choices of a point, and `size`.
    points: what is trained, in the order of the table.
    numbers: columns of the table: {name of a number: its heading}.
    axes: of the figure.
    options: of eval.py, besides.
  """

  question: str
  setting: str
  claims: tuple[str, ...]
  config: str
  points: tuple[Point, ...]
  numbers: Mapping[str, str]
  axes: Axes
  options: tuple[str, ...] = ()


def grid(**choices: tuple[Any, ...]) -> tuple[Point, ...]:
  """Every combination, the last choice changing fastest."""
  return tuple(
    dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
  )


def label(point: Point) -> str:
  """A point in one word, for folders: `kmeans-8-rotation`."""
  return '-'.join(str(value) for value in point.values())
