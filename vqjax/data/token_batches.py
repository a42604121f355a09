"""Batches of tokens that were written to a folder, for training and evaluation.

As `batches` has them of images: example n of a run is a function of (folder, seed, n) alone.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqjax.data.shares import endless, once
from vqjax.data.stalls import Batches, Reads
from vqjax.data.tokens import Tokens
from vqjax.errors import UserError


class TokenPart:
  """Some images of a folder of tokens, for training or held out.

  Attributes:
    tokens: the folder.
    images: numbers of images that have records in it.
    description: for a log.
  """

  def __init__(self, tokens: Tokens, images: Sequence[int], what: str) -> None:
    self.tokens, self._images = tokens, images
    self.description = f'{len(images)} {what} of {tokens.description}'

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.view(index, 0)

  def view(self, index: int, view: int) -> dict[str, Any]:
    """The record of a view of an image, 0..views - 1; see `Tokens`."""
    return self.tokens[self._images[index] * self.tokens.views + view]

  def name_of(self, index: int) -> str:
    """The image by its first record in the folder."""
    return f'record {self._images[index] * self.tokens.views}'


def open_token_folder(
  path: str | pathlib.Path, eval_path: str | pathlib.Path = '', holdout: float = 0.05
) -> dict[str, TokenPart]:
  """The 'train' and 'eval' parts of a folder that `python -m vqjax.tokenize` wrote.

  Held out are the tokens at `eval_path`, else every n-th image of the folder, 1 / n the fraction
  `holdout`: of all classes, where images of one stand together.

  Raises:
    UserError: as `Tokens`; a fraction that leaves nothing on one side; two folders that differ in
      tokenizer or shape.
  """
  found = Tokens(path)
  count = len(found) // found.views
  if eval_path:
    held_out = Tokens(eval_path)
    for name in ('weights_sha256', 'token_shape', 'num_codes'):
      if (theirs := held_out.index.get(name)) != (own := found.index.get(name)):
        raise UserError(
          f'tokens.eval_path={eval_path} has {name} {theirs}, tokens.path={path} {own}; write both '
          'by one tokenizer at one image size: python -m vqjax.tokenize SOURCE --out=DIR '
          '--split=eval.'
        )
    return {
      'train': TokenPart(found, range(count), 'images'),
      'eval': TokenPart(held_out, range(len(held_out) // held_out.views), 'images'),
    }
  if not 0 < holdout <= 0.5:
    raise UserError(
      f'tokens.holdout is {holdout}; give a fraction above 0, 0.5 at most, or held-out tokens of '
      'their own: --config.tokens.eval_path.'
    )
  if count < 2:
    raise UserError(
      f'{path} holds tokens of a single image; two are the least, since one is held out: add more, '
      'or give --config.tokens.eval_path.'
    )
  every = min(round(1 / holdout), count)
  last = np.arange(count) % every == every - 1
  return {
    'train': TokenPart(found, np.flatnonzero(~last).tolist(), 'training images'),
    'eval': TokenPart(found, np.flatnonzero(last).tolist(), 'held-out images'),
  }


def train_token_batches(
  part: TokenPart,
  data: ConfigDict,
  *,
  batch_size: int,
  seed: int,
  start: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Batches {'tokens': int32 [local_B h w], 'label': int32 [local_B]} without end.

  Of a folder with several views of each image, a visit draws one. `data` says how many threads
  read; other arguments, and what an example depends on, as in `batches.train_batches`.
  """
  views = part.tokens.views

  def load(index: int, rng: np.random.Generator) -> dict[str, Any]:
    record = part.view(index, int(rng.integers(views)))
    return {'tokens': record['tokens'], 'label': record['label']}

  return endless(
    *(load, part, data, Reads()),
    batch_size=batch_size,
    seed=seed,
    start=start,
    process_index=process_index,
    process_count=process_count,
  )


def eval_token_batches(
  part: TokenPart,
  data: ConfigDict,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  limit: int | None = None,
) -> Batches:
  """The first view of the first `limit` images of a part, once and in order, in full batches.

  A batch is as in training, with 'mask' bool [local_B], False where it is padding.
  """
  count = len(part) if limit is None else min(limit, len(part))

  def load(index: int, _: np.random.Generator) -> dict[str, Any]:
    record = part[index if index < count else 0]
    return {
      'tokens': record['tokens'],
      'label': record['label'],
      'mask': np.bool_(index < count),
    }

  return once(
    *(load, count, data, Reads()),
    batch_size=batch_size,
    start=0,
    process_index=process_index,
    process_count=process_count,
  )
