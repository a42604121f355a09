"""Which published system a checkpoint is of, and its parts."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vqjax.convert.names import Names
from vqjax.convert.systems import FORMATS
from vqjax.errors import UserError, printable
from vqjax.tensor_files import DAMAGE, walk


@dataclasses.dataclass(frozen=True)
class Published:
  """A published checkpoint, taken apart.

  Attributes:
    format: name in `FORMATS`.
    model: the `model` part of a config.
    quantizer: the `quantizer` part of a config.
    names: their keys for our paths.
    tensors: the tokenizer's, by their key.
    discriminator: its tensors by their key, empty if the file has none.
    skipped: keys that are no part of either.
  """

  format: str
  model: dict[str, Any]
  quantizer: dict[str, Any]
  names: Names
  tensors: dict[str, np.ndarray]
  discriminator: dict[str, np.ndarray]
  skipped: tuple[str, ...]


_DISCRIMINATOR = 'loss.discriminator.'


def take_apart(content: Any, path: str | pathlib.Path, format: str = 'auto') -> Published:
  """Recognises a checkpoint by its keys and describes it.

  Args:
    content: what `files.read` gave.
    path: of the file, for messages.
    format: a name in `FORMATS`, or 'auto'.

  Raises:
    UserError: it is of no known system, or not of the one that `format` names.
  """
  if format != 'auto' and format not in FORMATS:
    raise UserError(f'format is {format!r}; legal: auto, {", ".join(FORMATS)}.')
  content = content if isinstance(content, Mapping) else {}
  tensors = strip(weights(content, path, _ENTRIES))
  if not tensors:
    raise UserError(f'{path} holds no weights; its entries are {some(content)}.')
  found = [name for name, family in FORMATS.items() if has(tensors, family.marks)]
  if not found or format not in ('auto', *found):
    wanted = 'any system known here' if format == 'auto' else format
    raise UserError(
      f'{path} is no checkpoint of {wanted}; legal: {", ".join(FORMATS)}. Its keys are '
      f'{some(tensors)}.'
    )
  name = found[0] if format == 'auto' else format
  family = FORMATS[name]
  discriminator = _below(tensors, _DISCRIMINATOR)
  if isinstance(content.get('discriminator'), Mapping):
    discriminator = strip(_arrays(content['discriminator']))
  try:
    model, quantizer = family.describe(tensors, content)
  except (*DAMAGE, ZeroDivisionError) as error:
    reason = printable(str(error)[:300])
    raise UserError(
      f'{path} looks like a checkpoint of {name} but lacks or garbles {reason}; fetch it again.'
    ) from error
  tensors = {key: value for key, value in tensors.items() if not key.startswith(_DISCRIMINATOR)}
  skipped = tuple(key for key in tensors if re.search(family.skip, key))
  tensors = {key: value for key, value in tensors.items() if key not in skipped}
  return Published(name, model, quantizer, family.names(model), tensors, discriminator, skipped)


def is_tokenizer(content: Any, path: str | pathlib.Path) -> bool:
  """Whether a file holds a tokenizer that is known here."""
  content = content if isinstance(content, Mapping) else {}
  tensors = strip(weights(content, path, _ENTRIES))
  return any(has(tensors, family.marks) for family in FORMATS.values())


# Of a file that holds several sets of weights: LlamaGen's average before its last weights.
_ENTRIES = ('ema', 'model', 'state_dict', 'tensors')


def weights(
  content: Mapping[str, Any], path: str | pathlib.Path, entries: Sequence[str]
) -> dict[str, np.ndarray]:
  """The state dict within a file: the first of these entries that it has, or the file itself."""
  for entry in entries:
    if isinstance(content.get(entry), Mapping) and (arrays := _arrays(content[entry])):
      return arrays
  if isinstance(content.get('params'), Mapping):  # a tree of flax's
    return {
      '/'.join(('params', *keys)): leaf
      for keys, leaf in walk(content['params'], path)
      if isinstance(leaf, np.ndarray) and all(isinstance(name, str) for name in keys)
    }
  return _arrays(content)


def _arrays(tree):
  return {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, np.ndarray)}


def strip(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Drops what wrappers put before every key: DistributedDataParallel, compile, Hugging Face."""
  for prefix in ('module.', '_orig_mod.', 'model.'):
    if tensors and all(key.startswith(prefix) for key in tensors):
      tensors = _below(tensors, prefix)
  return tensors


def _below(tensors, prefix):
  return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def has(tensors: Mapping[str, Any], marks: Iterable[str]) -> bool:
  """Whether every pattern fits a key."""
  return all(any(re.match(mark, key) for key in tensors) for mark in marks)


def some(names: Iterable[Any]) -> str:
  """The first few of names, for a message."""
  names = [printable(str(name)[:100]) for name in names]
  return ', '.join(names[:6]) + (f' and {len(names) - 6} more' if len(names) > 6 else '') or 'none'
