"""A trained tokenizer, ready for use: `vqjax.load(SOURCE)`."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Collection, Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from vqjax import convert, quantizers, saved_models, sharding, tokenizer
from vqjax.data import Source, default_data, eval_batches
from vqjax.data.folder import Folder
from vqjax.errors import UserError
from vqjax.task import task_of

_MOST_FILLED = 8  # times as many images as there are; compiling takes longer than a few, once


@dataclasses.dataclass(frozen=True)
class Encoded:
  """Images of a source and their tokens, without those that could not be read."""

  index: np.ndarray  # int [n]  positions in the source
  label: np.ndarray  # int32 [n]
  images: np.ndarray  # uint8 [n S S 3]  as they were cut
  tokens: np.ndarray  # int32 [n h w]
  pixels: np.ndarray | None  # uint8 [n S S 3]  what `decode` makes of them, where it is asked for


class Pretrained:
  """A tokenizer with its weights: images to tokens and back.

  Images are [B H W 3], for a grey model [B H W 1] as well, uint8 in [0, 255] or float in [0, 1],
  whatever range the model itself was trained in; tokens are int32 [B h w], with a last axis for
  groups or depth where the quantizer has one. Any batch size will do, and any size in pixels that
  `model.check_size` admits. Each new shape is compiled once, but a batch that is smaller than one
  before it, down to an eighth, is filled up to that and cut off after.

  Attributes:
    model: the linen module.
    variables: of the module, {'params': ..., 'vq': ...}.
    config: ConfigDict with at least its `model` and `quantizer` parts.
    source: where it was loaded from, as `load` was told.
    step: of the run's checkpoint; None for a published one.
  """

  def __init__(
    self,
    model: tokenizer.Tokenizer,
    variables: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    source: str | pathlib.Path = '',
    step: int | None = None,
  ) -> None:
    self.model, self.variables, self.config = model, variables, config
    self.source, self.step = str(source), step
    self._compiled: dict[Any, set[int]] = {}  # batch sizes by all else that a program depends on

  def encode(self, images: ArrayLike) -> jax.Array:
    """Images [B H W 3] -> tokens int32 [B h w].

    A token depends on no other image of the batch, unless the quantizer's `eval_assign` looks at
    all of it, as `Sinkhorn` does.

    Raises:
      UserError: images of another shape, type or size, or with values outside their range. (Under a
        `jit` of the caller's values are not known, and not checked.)
    """
    images = jnp.asarray(images)
    channels = (1, 3) if self.model.channels == 1 else (3,)
    if images.ndim != 4 or images.shape[-1] not in channels:
      legal = ' or '.join(map(str, channels))
      raise UserError(f'images are {list(images.shape)}; legal: [batch, height, width, {legal}].')
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
      raise UserError(f'images are {images.dtype}; legal: uint8 in [0, 255], float in [0, 1].')
    self.model.check_size(*images.shape[1:3])
    count, sizes = len(images), self._sizes('encode', images)
    images = _filled(images, sizes)
    if images.dtype != jnp.uint8:
      advice = 'legal: [0, 1], or uint8 in [0, 255]; convert or clip'
      _check_range('images', images, count, 0, 1, advice)
    mask = np.arange(len(images)) < count
    tokens = encode(self.model, self.variables, images, mask)
    sizes.add(len(images))
    return _first(count, tokens)

  def decode(self, tokens: ArrayLike) -> jax.Array:
    """Tokens int32 [B h w] -> images uint8 [B H W 3].

    Raises:
      UserError: tokens that are no integers or no codes, or the model is a classifier.
    """
    self._check_makes_images()
    tokens = jnp.asarray(tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.integer) or tokens.ndim < 3:
      raise UserError(
        f'tokens are {tokens.dtype}{list(tokens.shape)}; legal: integers [batch, height, width], '
        'as encode gives them.'
      )
    # Where a residual quantizer drops depths it writes -1.
    least = -1 if isinstance(self.model.quantizer, quantizers.Residual) else 0
    codes = self.model.quantizer.num_codes
    tokens = tokens.astype(jnp.int32)  # the range is no number of every dtype
    count, sizes = len(tokens), self._sizes('decode', tokens)
    tokens = _filled(tokens, sizes)
    _check_range('tokens', tokens, count, least, codes - 1, f'legal: {least} to {codes - 1}')
    images = decode(self.model, self.variables, tokens)
    sizes.add(len(tokens))
    return _first(count, images)

  def reconstruct(self, images: ArrayLike) -> jax.Array:
    """Images [B H W 3] -> uint8 [B H W 3]: `decode(encode(images))`."""
    return self.decode(self.encode(images))

  def token_shape(self, height: int, width: int) -> tuple[int, ...]:
    """The shape of the tokens of an image of so many pixels: [h w], or [h w G].

    Raises:
      UserError: images of this size are no whole tokens.
    """
    self.model.check_size(height, width)
    image = jax.ShapeDtypeStruct((1, height, width, 3), np.uint8)
    mask = jax.ShapeDtypeStruct((1,), np.bool_)
    return encode.eval_shape(self.model, self.variables, image, mask).shape[1:]

  def batched(
    self,
    source: str | pathlib.Path | Source,
    data: ml_collections.ConfigDict | None = None,
    *,
    batch_size: int = 16,
    start: int = 0,
    limit: int | None = None,
    reconstruct: bool = False,
  ) -> Generator[Encoded, None, None]:
    """Batches of a folder's images with their tokens, in order: read by threads that run ahead.

    All devices of this process share the work, which is compiled once, for full batches. With a
    quantizer whose `eval_assign` looks at the whole batch, tokens depend on `batch_size`.

    Args:
      source: a folder, of which all images are taken, or any `vqjax.data.Source`.
      data: section of a config, which says how images are read and, by its `eval`, cut; the run's
        own by default, and 256 pixels from the centre for a published checkpoint.
      batch_size: a multiple of the devices of this process.
      start: the first image.
      limit: the end, a number of images from the first of the source; all by default.
      reconstruct: whether `pixels` are wanted too.

    Raises:
      UserError: an argument, a folder or an image size that cannot be used.
    """
    data = self.config.get('data') if data is None else data
    data = ml_collections.ConfigDict(default_data()) if data is None else data
    self.model.check_size(data.image_size, data.image_size)
    if isinstance(source, str | pathlib.Path):
      source = Folder(pathlib.Path(source).expanduser())
    if reconstruct:
      self._check_makes_images()
    mesh, variables = self.everywhere
    sharding.check_batch_size(mesh, batch_size, 'batch_size')
    limit = len(source) if limit is None else limit
    if min(start, limit) < 0:
      raise UserError(f'start is {start} and limit {limit}; legal: 0 and more.')

    def begun(batches):
      for batch in batches:
        put = sharding.put_batch(mesh, {name: batch[name] for name in ('image', 'mask')})
        tokens = encode(self.model, variables, put['image'], put['mask'])
        yield batch, tokens, decode(self.model, variables, tokens) if reconstruct else None

    def finished(first):
      batches = eval_batches(source, data, batch_size=batch_size, start=start, limit=limit)
      # The next batch is on its way to the devices before the tokens of this one are waited for.
      with contextlib.closing(batches):
        ahead = itertools.chain(begun(batches), [None])
        for (batch, tokens, pixels), _ in itertools.pairwise(ahead):
          mask = batch['mask']
          yield Encoded(
            index=first + np.flatnonzero(mask),
            label=batch['label'][mask],
            images=batch['image'][mask],
            tokens=jax.device_get(tokens)[mask],
            pixels=None if pixels is None else jax.device_get(pixels)[mask],
          )
          first += batch_size

    return finished(start)

  @functools.cached_property
  def everywhere(self) -> tuple[jax.sharding.Mesh, Mapping[str, Any]]:
    """(mesh of this process's devices, the variables on each of them)."""
    mesh = sharding.make_mesh({'data': -1, 'fsdp': 1}, jax.local_devices())
    return mesh, jax.device_put(self.variables, sharding.replicated(mesh))

  @functools.cached_property
  def weights_sha256(self) -> str:
    """Of names, types, shapes and values of the variables."""
    return saved_models.sha256_of(self.variables)

  def _check_makes_images(self):
    if not task_of(self.model).makes_images:
      raise UserError('the model is a classifier and has no images to decode; legal: encode.')

  def _sizes(self, name: str, batch: jax.Array) -> set[int]:
    """The batch sizes that are compiled of a function, for all else that its program depends on.

    Under a `jit` of the caller's the program is the caller's, and there is none.
    """
    if isinstance(batch, jax.core.Tracer):
      return set()
    return self._compiled.setdefault((name, batch.shape[1:], batch.dtype), set())


def load(
  source: str | pathlib.Path,
  *,
  format: str = 'auto',
  step: int | None = None,
  eval_assign: str | Mapping[str, Any] | None = None,
  dtype: str | None = None,
) -> Pretrained:
  """Loads a trained tokenizer.

  Args:
    source: a run folder of train.py or vqjax.convert; 'photos', the tokenizer that comes with the
      package (a file of yours with that name is './photos'); a published checkpoint: a file of
      PyTorch, safetensors or flax, or a Hugging Face folder; or the name of one on the hub,
      'owner/name'.
    format: of a published checkpoint, a name in `vqjax.convert.FORMATS`; recognised by default.
    step: of a run folder's checkpoint; the best by held-out images by default.
    eval_assign: how codes are assigned, in place of the quantizer's own `eval_assign`; for OptVQ's
      own batch-dependent tokens 'sinkhorn'.
    dtype: 'float32' or 'bfloat16', of the network's arithmetic, in place of its own; quantizer and
      parameters stay float32. A latent between two codes may then get the other: of 'photos' on
      the held-out images of a demo 1.8% do, PSNR stays within 0.01 dB, and pixels of the same
      tokens within one of 255.

  Raises:
    UserError: there is no such source, or it cannot be used; the message says why.
  """
  path = pathlib.Path(source).expanduser()
  if saved_models.is_run(path):
    path, config = saved_models.read_run(path)
    saved_models.override(config, eval_assign, dtype)
    model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
    variables, step = saved_models.read_variables(path, config, model, step)
    return Pretrained(model, variables, config, source, step)
  if step is not None:
    raise UserError(f'step is {step}, but {source} is no run folder; leave it out.')
  published = convert.open_published(source, format)
  config = ml_collections.ConfigDict({'model': published.model, 'quantizer': published.quantizer})
  saved_models.override(config, eval_assign, dtype)
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  variables = convert.variables_from(published, model, source)
  return Pretrained(model, jax.tree.map(jnp.asarray, variables), config, source)


def _check_range(what, values, count, least, most, advice):
  """Refuses values outside [least, most], and NaN, in a batch of which the first `count` count."""
  if isinstance(values, jax.core.Tracer) or jnp.all((values >= least) & (values <= most)):
    return
  found = np.asarray(values)[:count]  # NumPy's extrema are NaN where a number is; XLA's need not be
  raise UserError(f'{what} are {values.dtype} from {found.min():g} to {found.max():g}; {advice}.')


def filled_size(count: int, sizes: Collection[int], most: int, unit: int = 1) -> int:
  """The least of these sizes, at most `most` times the count, that holds so many; or a new one.

  A new one is a multiple of `unit`.
  """
  fitting = (n for n in tuple(sizes) if count <= n <= most * count)
  return min(fitting, default=-(-count // unit) * unit)


def _filled(batch: jax.Array, sizes: set[int]) -> jax.Array:
  """A batch filled up with zeros to a size that is compiled; or as it is, to be compiled."""
  count = len(batch)
  size = filled_size(count, sizes, _MOST_FILLED)
  padding = [(0, size - count), *[(0, 0)] * (batch.ndim - 1)]
  return jnp.pad(batch, padding) if size > count else batch


def _first(count, batch):
  return batch if len(batch) == count else batch[:count]


@functools.partial(jax.jit, static_argnums=0)
def encode(
  model: tokenizer.Tokenizer, variables: Mapping[str, Any], images: jax.Array, mask: jax.Array
) -> jax.Array:
  """Images [B H W 3] -> tokens int32 [B h w], of which those where `mask` [B] is false are idle."""
  output: Any = model.apply(variables, model.normalize(images), mask=mask, method='encode')
  return output.indices


@functools.partial(jax.jit, static_argnums=0)
def decode(
  model: tokenizer.Tokenizer, variables: Mapping[str, Any], tokens: jax.Array
) -> jax.Array:
  """Tokens int32 [B h w] -> images uint8 [B H W 3]."""
  output: Any = model.apply(variables, tokens, method='decode_tokens')
  return tokenizer.to_uint8(model.denormalize(output))
