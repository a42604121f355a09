"""Published checkpoints to our trees and back; needs no PyTorch and executes nothing of a file."""

from vqjax.convert.generators import GENERATORS, PublishedGenerator, take_apart_generator
from vqjax.convert.recognise import Published, take_apart
from vqjax.convert.systems import FORMATS, OWN
from vqjax.convert.trees import (
  abstract_variables,
  discriminator_from,
  export,
  export_generator,
  fill,
  generator_variables,
  initial_variables,
  open_generator,
  open_published,
  variables_from,
)

__all__ = [
  'FORMATS',
  'GENERATORS',
  'OWN',
  'Published',
  'PublishedGenerator',
  'abstract_variables',
  'discriminator_from',
  'export',
  'export_generator',
  'fill',
  'generator_variables',
  'initial_variables',
  'open_generator',
  'open_published',
  'take_apart',
  'take_apart_generator',
  'variables_from',
]
