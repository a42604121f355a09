"""Combinations of a vector quantizer's choices that cannot work, or are known to fail."""

import functools
import warnings
from typing import Protocol

from vqjax.quantizers import losses
from vqjax.quantizers.assignments import Assignment
from vqjax.quantizers.declarations import declares
from vqjax.quantizers.estimators import EstimatorLike, straight_through
from vqjax.quantizers.learners import Learner
from vqjax.quantizers.regularizers import Regularizer
from vqjax.quantizers.transforms import Transform


class Choices(Protocol):
  """The fields of a `VectorQuantizer` that must go together."""

  @property
  def num_codes(self) -> int: ...

  @property
  def assign(self) -> Assignment: ...

  @property
  def eval_assign(self) -> Assignment: ...

  @property
  def estimator(self) -> EstimatorLike: ...

  @property
  def transform(self) -> Transform | None: ...

  @property
  def learner(self) -> Learner | None: ...

  @property
  def loss(self) -> str: ...

  @property
  def regularizers(self) -> tuple[Regularizer, ...]: ...

  @property
  def codes_learn(self) -> bool: ...


def check(vq: Choices) -> None:
  """Refuses fields and combinations that cannot work; warns of those that are known to fail."""
  if vq.num_codes < 2:
    raise ValueError(f'VectorQuantizer.num_codes is {vq.num_codes}; legal: at least 2.')
  groups = 1 if vq.transform is None else vq.transform.groups
  if groups < 1 or vq.num_codes % groups:
    raise ValueError(
      f'VectorQuantizer.transform has groups={groups}; legal: divisors of num_codes={vq.num_codes}.'
    )
  if vq.loss not in losses.KINDS:
    raise ValueError(f'VectorQuantizer.loss is {vq.loss!r}; legal: {", ".join(losses.KINDS)}.')
  if declares(vq.eval_assign, 'uses_key'):
    raise ValueError(
      f'VectorQuantizer.eval_assign is {vq.eval_assign}, so tokens would be random; legal: '
      'assignments without a draw, such as Nearest().'
    )
  if declares(vq.assign, 'relaxes') and vq.estimator != straight_through:
    raise ValueError(
      f'VectorQuantizer.estimator is {vq.estimator}, but assign={type(vq.assign).__name__} brings '
      'its own gradient; leave estimator=straight_through.'
    )
  if declares(vq.estimator, 'moves_codes') and not vq.codes_learn:
    raise ValueError(
      f'VectorQuantizer.estimator is {vq.estimator}, but with learner={vq.learner} no gradient '
      'reaches the codes; set learner=None or a learned transform, or take another estimator.'
    )
  for regularizer in vq.regularizers:
    if declares(regularizer, 'codes_only') and not vq.codes_learn:
      raise ValueError(
        f'VectorQuantizer.regularizers has {type(regularizer).__name__}, but with '
        f'learner={vq.learner} no gradient reaches the codes; set learner=None or a learned '
        'transform, or leave it out.'
      )
  if declares(vq.assign, 'uses_key') and declares(vq.estimator, 'needs_near_codes'):
    _warn_of_draws(f'{vq.estimator} with {vq.assign}')


@functools.cache  # once a process: flax builds a module anew whenever it is bound
def _warn_of_draws(combination: str) -> None:
  warnings.warn(
    f'{combination} is known to diverge: a drawn code may lie anywhere, and angle and '
    'ratio of lengths to it scale the gradient '
    '(https://github.com/lucidrains/vector-quantize-pytorch/issues/223); use straight_through, or '
    'an assignment without a draw.',
    stacklevel=6,
  )
