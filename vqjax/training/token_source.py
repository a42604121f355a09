"""Where a generator's tokens come from: a folder of them, or images and their tokenizer."""

from collections.abc import Iterable
from typing import Any

import jax
import ml_collections

from vqjax import data as datasets
from vqjax import pretrained, saved_models
from vqjax.errors import UserError
from vqjax.training.experiment import Batches


class TokenSource:
  """The training and held-out tokens of a config, and the tokenizer that they are of.

  With `config.tokens.path` that folder is read, otherwise the images of `config.data`, which the
  step tokenizes. The tokenizer is that of `config.tokenizer`, or that which wrote the folder.
  `config.tokenizer` and `config.tokens` are completed: with them alone, whoever samples later knows
  the tokenizer, down to its checkpoint, and the shape of the tokens. So is `config.class_names`, of
  a generator with classes, where the data says them.

  Attributes:
    tokenizer: frozen.
    shape: of the tokens of an image, [h w] or [h w G].
    num_examples: of the training part.
    class_names: of the labels, empty if there are no classes; None where they are not known.

  Raises:
    UserError: what is named is not there, or does not fit together.
  """

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    self._config, tokens = config, config.tokens
    self._parts: dict[str, Any]
    if tokens.path:
      self._parts = dict(
        datasets.open_token_folder(tokens.path, tokens.eval_path, holdout=tokens.holdout)
      )
      self._index = self._parts['train'].tokens.index
    else:
      self._parts = {split: datasets.make_source(config.data, split) for split in ('train', 'eval')}
      self._index = {}
    self.num_examples = len(self._parts['train'])
    names = getattr(self._parts['train'], 'class_names', self._index.get('class_names'))
    self.class_names = None if names is None else tuple(names)
    if names and config.generator.num_classes:
      config.class_names = self.class_names
    self.tokenizer = self._load()
    if tokens.path:
      self._check_tokenizer()
      self.shape = tuple(self._index['token_shape'])
    else:
      size = config.data.image_size
      self.shape = self.tokenizer.token_shape(size, size)
    codes = self.tokenizer.model.quantizer.num_codes
    tokens.shape, tokens.num_codes = self.shape, codes
    tokens.weights_sha256 = self.tokenizer.weights_sha256
    tokens.step = self.tokenizer.step or 0

  @property
  def tokenizes(self) -> bool:
    """Whether batches are images."""
    return not self._index

  def descriptions(self) -> dict[str, str]:
    """What there is, by split: lines for the log."""
    return {split: part.description for split, part in self._parts.items()}

  def train(self, examples_seen: int) -> Batches:
    """Training batches of this process, from where a run stands that has seen so many examples."""
    make = datasets.train_batches if self.tokenizes else datasets.train_token_batches
    return make(
      self._parts['train'],
      self._config.data,
      batch_size=self._config.batch_size,
      seed=self._config.seed,
      start=examples_seen,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def held_out(self, batch_size: int) -> Batches:
    """The first `config.eval_images` held-out examples, once and in order, with a 'mask'."""
    make = datasets.eval_batches if self.tokenizes else datasets.eval_token_batches
    return make(
      self._parts['eval'],
      self._config.data,
      batch_size=batch_size,
      limit=self._config.eval_images,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def names(self, numbers: Iterable[int]) -> list[str]:
    """The examples of the run with these numbers, for a log."""
    return datasets.train_names(self._parts['train'], numbers, seed=self._config.seed)

  def _load(self):
    config, index = self._config, self._index
    source = config.tokenizer or index.get('source', '')
    if not source:
      raise UserError(
        "config.tokenizer is ''; name what images are tokenized by, a run folder or a published "
        'checkpoint: --config.tokenizer=runs/NAME.'
      )
    config.tokenizer = source
    # The checkpoint of the tokens, which need not be the best any more.
    step = config.tokens.step or index.get('step') or None
    try:
      found = pretrained.load(source, step=step if saved_models.is_run(source) else None)
    except UserError as error:
      raise UserError(f'config.tokenizer={source} cannot be loaded: {error}') from error
    if found.model.classifies:
      raise UserError(f'config.tokenizer={source} is a classifier; name one that makes images.')
    return found

  def _check_tokenizer(self):
    index, config = self._index, self._config
    if index['weights_sha256'] != self.tokenizer.weights_sha256:
      raise UserError(
        f'config.tokens.path={config.tokens.path} was written by {index["source"]!r} with other '
        f'weights than those of config.tokenizer={config.tokenizer}; name that one, or write the '
        f'folder again: python -m vqjax.tokenize {config.tokenizer} --out=DIR.'
      )
