"""Published generators: transformers over tokens, recognised by their keys like tokenizers."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vqjax.convert.names import Names
from vqjax.convert.recognise import has, some, strip, weights
from vqjax.errors import UserError, printable
from vqjax.tensor_files import DAMAGE

_Tensors = Mapping[str, np.ndarray]  # by their keys
_Config = dict[str, Any]  # a part of a config


@dataclasses.dataclass(frozen=True)
class GeneratorFormat:
  """One family of checkpoints of generators.

  Attributes:
    marks: patterns of keys, each of which fits one of a checkpoint's.
    describe: function (tensors, the file's other content) -> the `generator` part of a config, with
      what `generation.build` needs but for the layout of the tokens, which no key says.
    names: function (that part) -> their keys for our paths.
    skip: pattern of the keys that are no part of the transformer.
  """

  marks: tuple[str, ...]
  describe: Callable[[_Tensors, Mapping[str, Any]], _Config]
  names: Callable[[_Config], Names]
  skip: str = '$^'


@dataclasses.dataclass(frozen=True)
class PublishedGenerator:
  """A published generator, taken apart.

  Attributes:
    format: name in `GENERATORS`.
    generator: the `generator` part of a config.
    names: their keys for our paths.
    tensors: by their key.
    skipped: keys that are no part of it.
  """

  format: str
  generator: dict[str, Any]
  names: Names
  tensors: dict[str, np.ndarray]
  skipped: tuple[str, ...]


# The weights that were trained last come before their average, which the authors' samplers ignore.
_ENTRIES = ('model', 'module', 'model_state_dict', 'state_dict', 'ema')

GENERATORS: dict[str, GeneratorFormat] = {}


def take_apart_generator(
  content: Any, path: str | pathlib.Path, format: str = 'auto'
) -> PublishedGenerator:
  """Recognises a generator by its keys and describes it; arguments as in `take_apart`.

  Raises:
    UserError: it is of no known system, or not of the one that `format` names.
  """
  content = content if isinstance(content, Mapping) else {}
  tensors = strip(weights(content, path, _ENTRIES))
  found = [name for name, family in GENERATORS.items() if has(tensors, family.marks)]
  if not found or format not in ('auto', *found):
    wanted = 'any generator known here' if format == 'auto' else format
    raise UserError(
      f'{path} is no checkpoint of {wanted}; legal: {", ".join(GENERATORS)}. Its keys are '
      f'{some(tensors)}.'
    )
  name = found[0] if format == 'auto' else format
  family = GENERATORS[name]
  try:
    section = family.describe(tensors, content)
  except (*DAMAGE, ZeroDivisionError) as error:
    reason = printable(str(error)[:300])
    raise UserError(
      f'{path} looks like a checkpoint of {name} but lacks or garbles {reason}; fetch it again.'
    ) from error
  skipped = tuple(key for key in tensors if re.search(family.skip, key))
  tensors = {key: value for key, value in tensors.items() if key not in skipped}
  return PublishedGenerator(name, section, family.names(section), tensors, skipped)
