"""Published checkpoints to our trees and back; needs no PyTorch and executes nothing of a file."""

from vqjax.convert.recognise import Published, take_apart
from vqjax.convert.systems import FORMATS, OWN
from vqjax.convert.trees import (
  abstract_variables,
  discriminator_from,
  export,
  fill,
  initial_variables,
  open_published,
  variables_from,
)

__all__ = [
  'FORMATS',
  'OWN',
  'Published',
  'abstract_variables',
  'discriminator_from',
  'export',
  'fill',
  'initial_variables',
  'open_published',
  'take_apart',
  'variables_from',
]
