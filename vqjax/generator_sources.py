"""Generators from where they are, a run folder or a published file: `vqjax.load_generator`."""

import math
import pathlib
from typing import Any

import ml_collections

from vqjax import convert, pretrained, saved_models, sharding
from vqjax.errors import UserError
from vqjax.generation.layout import Layout
from vqjax.generator import Generator

# The samplers of the published networks, and the settings that their authors report numbers by, by
# width: of LlamaGen at 384 pixels, of Halton-MaskGIT by 32 steps, of MaskGIT as its demo samples.
_SAMPLERS: dict[str, tuple[dict[str, Any], dict[int, dict[str, Any]]]] = {
  'llamagen': (
    {'name': 'causal'},
    {
      768: {'guidance': 2.0},
      1024: {'guidance': 2.0},
      1280: {'guidance': 1.75},
      1536: {'guidance': 1.75},
      3200: {'guidance': 1.65},
    },
  ),
  'rar': (
    {'name': 'causal'},
    {
      768: {'guidance': 16.0, 'guidance_power': 2.75},
      1024: {'guidance': 15.5, 'guidance_power': 2.5, 'temperature': 1.02},
      1280: {'guidance': 6.9, 'guidance_power': 1.5, 'temperature': 1.02},
      1408: {'guidance': 8.0, 'guidance_power': 1.2, 'temperature': 1.02},
    },
  ),
  'halton_maskgit': (
    {'name': 'halton', 'steps': 32},
    {
      384: {'guidance': 2.5},
      512: {'guidance': 2.0},
      768: {'guidance': 1.7},
      1024: {'guidance': 1.5},
    },
  ),
  'maskgit': ({'name': 'maskgit', 'steps': 16, 'choice_temperature': 4.5}, {}),
}


def load_generator(
  source: str | pathlib.Path,
  *,
  tokenizer: str | pathlib.Path | pretrained.Pretrained | None = None,
  step: int | None = None,
  dtype: str | None = None,
  **published: Any,
) -> Generator:
  """Loads a trained generator.

  Args:
    source: a run folder of train.py or vqjax.convert, or the file of a published checkpoint.
    tokenizer: what makes images of its tokens, as `vqjax.load` takes or gives it; a run knows its
      own, which may have moved but must have the same weights.
    step: of a run folder's checkpoint; the best by held-out tokens by default.
    dtype: 'float32' or 'bfloat16', of the network's arithmetic, in place of its own.
    **published: of a published checkpoint: `format` and `heads`, see `convert.open_generator`, and
      `image_size`, see `describe`.

  Raises:
    UserError: there is no such source, or it cannot be used; the message says why.
  """
  path = pathlib.Path(source).expanduser()
  if saved_models.is_run(path):
    if published:
      raise UserError(
        f'{next(iter(published))} is given, but {path} is a run folder, whose config says it; '
        'leave it out.'
      )
    path, config = saved_models.read_generator_run(path)
    found = _tokenizer(tokenizer or config.tokenizer, config)
    model = saved_models.build_generator(config, dtype)
    mesh, _ = found.everywhere
    place = lambda tree: sharding.target(tree, sharding.state(mesh, tree))
    variables, step = saved_models.read_generator_variables(path, config, model, step, place)
    return Generator(model, variables, config, found, source, step)
  if step is not None:
    raise UserError(f'step is {step}, but {source} is no run folder; leave it out.')
  of_file = {name: published.pop(name) for name in ('format', 'heads') if name in published}
  checkpoint = convert.open_generator(source, **of_file)
  if tokenizer is None:
    raise UserError(
      f'{source} is a checkpoint of {checkpoint.format} and does not say its tokenizer; name the '
      'one that it was trained with, as vqjax.load takes it: tokenizer=..., or --tokenizer=...'
    )
  found = _tokenizer(tokenizer)
  config = describe(checkpoint, found, **published)
  config.converted = {'source': str(source), 'format': checkpoint.format}
  model = saved_models.build_generator(config, dtype)
  variables = convert.generator_variables(checkpoint, model, source)
  return Generator(model, variables, config, found, source)


def _tokenizer(source, config=None):
  """A tokenizer, loaded if it is not; with the weights that a run's config says."""
  found = source
  if not isinstance(source, pretrained.Pretrained):
    # The checkpoint of the tokens, which need not be the best any more.
    trained = config is not None and saved_models.is_run(source)
    step = config.tokens.step or None if trained else None
    try:
      found = pretrained.load(source, step=step)
    except UserError as error:
      raise UserError(f'the tokenizer cannot be loaded: {error}') from error
  if found.model.classifies:
    raise UserError(f'{found.source} is a classifier and makes no images; name another tokenizer.')
  if config is not None and config.tokens.weights_sha256 != found.weights_sha256:
    raise UserError(
      f'the generator was trained on tokens of {config.tokenizer} as it was then, and '
      f'{found.source or "the tokenizer"} has other weights; name the same one: tokenizer=..., or '
      '--tokenizer=...'
    )
  return found


def describe(
  published: convert.PublishedGenerator,
  tokenizer: pretrained.Pretrained,
  *,
  image_size: int | None = None,
) -> ml_collections.ConfigDict:
  """The config of a published checkpoint that was trained on the tokens of a tokenizer.

  Args:
    published: the checkpoint.
    tokenizer: it.
    image_size: of the images in pixels, squares; a LlamaGen checkpoint does not say it, of others
      it follows from the number of positions.

  Raises:
    UserError: the checkpoint is of other tokens, or `image_size` is needed or wrong.
  """
  codes, unit = tokenizer.model.quantizer.num_codes, tokenizer.model.downsample
  name = f'a checkpoint of {published.format}'
  predicted, length = published.tokens
  if predicted not in (None, codes):
    raise UserError(
      f'{name} predicts {predicted} codes, but {tokenizer.source} has {codes}; name the '
      'tokenizer that it was trained with.'
    )
  if length is not None:
    side = math.isqrt(length) * unit
    if image_size not in (None, side):
      raise UserError(
        f'{name} is of {length} tokens an image, which {tokenizer.source} has at '
        f'{side}x{side} pixels; image_size is {image_size}; legal: {side}, or leave it out.'
      )
    image_size = side
  if image_size is None:
    raise UserError(
      f'{name} does not say how large its images are; give image_size=..., or --image_size=...: '
      '256 for 16x16 tokens of 16x16 pixels, 384 for 24x24.'
    )
  shape = tokenizer.token_shape(image_size, image_size)
  generator = {**published.generator, 'digits': 1, 'dtype': 'float32'}
  generator['num_classes'] = published.num_classes(Layout.of(shape, codes))
  sampler, by_width = _SAMPLERS[generator['network']]
  return ml_collections.ConfigDict(
    {
      'generator': generator,
      'sampler': {**sampler, **by_width.get(generator['width'], {})},
      'tokenizer': tokenizer.source,
      'tokens': {
        'shape': shape,
        'num_codes': codes,
        'weights_sha256': tokenizer.weights_sha256,
        'step': tokenizer.step or 0,
      },
    }
  )
