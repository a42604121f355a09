"""What a run trains, as the training loop sees it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np


class Look(NamedTuple):
  """What a look at held-out data found."""

  num_images: int  # that were looked at, or made
  numbers: dict[str, float]  # by name, see `evaluation.table`
  pictures: dict[str, np.ndarray]  # by name, uint8 [H W 3]


class Batches(Iterator[Any], Protocol):
  """Batches of one process, without end."""

  def close(self) -> None:
    """Stops the threads behind them."""


class Experiment(Protocol):
  """What train.py trains: it loops, logs and saves, and asks this for all the rest.

  It is made of (config, mesh). Whatever is wrong with the config or the data is raised then, before
  anything is written. The loop itself reads the fields of a config that are about runs: durations,
  `batch_size`, `mesh`, `keep_checkpoints`.

  Attributes:
    total_steps: length of the run.
    num_examples: size of the training set.
    best_metric: the held-out number that ranks checkpoints; the larger, the better.
    tokens_per_example: what the pace of training is told in, beside images; 0: in those alone.
    next_command: what to do with the run when it is done, a command with {workdir} in it.
    abstract_state: shapes, dtypes and shardings of the state, for a checkpoint to be restored to.
    parameters: shapes and dtypes of what is trained, a nested dict, for a summary.
  """

  total_steps: int
  num_examples: int
  best_metric: str
  tokens_per_example: int
  next_command: str
  abstract_state: Any
  parameters: Mapping[str, Any]

  def start(self) -> Any:
    """The state before the first step."""

  def batches(self, examples_seen: int) -> Batches:
    """Training batches of this process, from where a run stands that has seen so many examples."""

  def step(self, state: Any, batch: Any, step: int) -> tuple[Any, Mapping[str, jax.Array]]:
    """One optimizer step, number `step` of the run: (state, float32 scalars by name).

    The state that is given is donated. Beside scalars there may be `code_counts` [K].
    """

  def examples(self, numbers: Iterable[int]) -> list[str]:
    """Names, for a log, of the examples of the run with these numbers, counted from 0."""

  def look(self, state: Any) -> Look:
    """Looks at held-out data."""
