"""What an evaluation found: read by the report, by comparisons and by the training loop."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqjax.evaluation.statistics import FeatureStatistics

# What was found on a batch, NumPy arrays by name: `mask`, bool [B]; `values`, float32 [B] by name;
# and where there are such: `images`, originals uint8 and what they are compared with [B H W 3];
# `tokens`, int32 [B T]; what `scoring.score` sees.
Found = Mapping[str, Any]


class Pictures(NamedTuple):
  """Some images with their reconstructions."""

  positions: np.ndarray  # int64 [n], in the order of the set
  psnr: np.ndarray  # float64 [n], dB
  originals: np.ndarray  # uint8 [n H W 3]
  reconstructions: np.ndarray  # uint8 [n H W 3]


class Generated(NamedTuple):
  """Some images that a generator made, each with those of other images that are nearest to it."""

  positions: np.ndarray  # int64 [n], in the set; in the order of classes where there are such
  images: np.ndarray  # uint8 [n H W 3]
  classes: Sequence[str] | None  # of each; None where there are none
  # Of some, by their index: the nearest images, uint8 [H W 3], and their distances.
  nearest: Mapping[int, tuple[Sequence[np.ndarray], Sequence[float]]]
  near_to: str  # of what images these are


class Cloud(NamedTuple):
  """Latents of some images, the code that each became, and the codebook, all in one space."""

  latents: np.ndarray  # float32 [n D]
  quantized: np.ndarray  # float32 [n D]
  codes: np.ndarray | None  # float32 [K D]; None where codes are not vectors of this space


@dataclasses.dataclass(frozen=True)
class Baseline:
  """What one way to code images makes of those that a run was evaluated on, at its rate or below.

  Attributes:
    label: its name in tables.
    protocol: what was done, and which bits are counted.
    num_images: on how many images.
    setting: of the coder, as 'quality 37'; '' where there is nothing to set.
    numbers: 'bits_per_pixel', 'psnr', 'ssim' and 'lpips'; those that are not there are missing.
    reason: why there are no numbers, or ''.
    curve: (bits a pixel, PSNR) at other settings.
  """

  label: str
  protocol: str
  num_images: int
  setting: str = ''
  numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
  reason: str = ''
  curve: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass
class Evaluation:
  """The numbers of a set of images, what they mean, and what can be shown beside them."""

  metrics: dict[str, float | int | None]  # by name, and `num_images`, and `step` of a run
  missing: dict[str, str]  # by the name of a metric that is None: what it needs, and the command
  code_counts: np.ndarray | None = None  # int64 [K]; None where there are no tokens
  samples: Pictures | None = None  # evenly spread over the set; None of a classifier
  best: Pictures | None = None  # by PSNR, the best first
  worst: Pictures | None = None  # the worst first
  cloud: Cloud | None = None
  generated: Generated | None = None  # of a generator, which has none of the three above
  statistics: FeatureStatistics | None = None  # of the originals' features
  # {'run': ..., 'data': ..., 'metrics': {name: meaning, or of a None what it needs}, ...}
  protocol: dict[str, Any] = dataclasses.field(default_factory=lambda: {'metrics': {}})
  curves: pathlib.Path | None = None  # the run's metrics.jsonl
  # By name, the run on the same images first; empty where nothing has a rate.
  baselines: dict[str, Baseline] = dataclasses.field(default_factory=dict)
