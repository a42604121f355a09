"""A trained generator with its tokenizer, ready for use; `vqjax.load_generator` gives one."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from vqjax import pretrained, saved_models, sharding
from vqjax.errors import UserError
from vqjax.generation import build
from vqjax.generation.contracts import Sampler, Transformer
from vqjax.generation.layout import MASKED

MOST_SEED = 2**32 - 1  # JAX would take another for one of these
_MOST_FILLED = 2  # times as many images as there are; making them takes as long as compiling does


class Generator:
  """A transformer over tokens with its weights, its sampler and its tokenizer.

  Images are drawn by number: image n depends on the key, n, its label and the sampler alone, so it
  is the same in any batch and on any devices, all of which share the work. (A program for another
  batch size may round its sums otherwise; a symbol whose two largest scores are closer than that
  may then be the other one.) What a batch is filled up with, to a size that is compiled and that
  the devices divide, is cut off.

  Labels are 0 to num_classes - 1, and num_classes stands for no class, where `model.has_null`. A
  key is a key of `jax.random` or a number of 0 to 2^32 - 1, the seed. Settings of the sampler, such
  as `guidance`, `temperature` or `steps`, may be given by name to whatever draws, for that call.

  Attributes:
    model: the linen module.
    variables: of the module, {'params': ...}, on every device of this process.
    config: ConfigDict with at least `generator`, `sampler`, `tokenizer` and `tokens`.
    tokenizer: a `Pretrained`.
    sampler: with the settings of the run or, of a published checkpoint, those that its authors
      report numbers by.
    num_classes: C; 0 if there are none.
    class_names: of 0 to C - 1, or empty where they are not known.
    source: where it was loaded from, as `load_generator` was told.
    step: of the run's checkpoint; None for a published one.
  """

  def __init__(
    self,
    model: Transformer,
    variables: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    tokenizer: pretrained.Pretrained,
    source: str | pathlib.Path = '',
    step: int | None = None,
  ) -> None:
    mesh, _ = tokenizer.everywhere
    self.model, self.config, self.tokenizer = model, config, tokenizer
    self.variables = jax.device_put(variables, sharding.replicated(mesh))
    self.sampler = build.build_sampler(config.sampler.to_dict(), config.generator.network)
    self.num_classes = model.num_classes
    self.class_names = tuple(config.get('class_names', ()))
    self.source, self.step = str(source), step
    self._compiled: dict[Any, set[int]] = {}  # batch sizes by sampler, and whether some is known

  def sample(
    self,
    labels: ArrayLike | None = None,
    *,
    key: jax.Array | int,
    count: int | None = None,
    first: int = 0,
    **settings: Any,
  ) -> jax.Array:
    """New images uint8 [B H W 3] of these labels [B]; arguments and errors as `tokens`."""
    return self._draw(labels, key, count, first, None, settings, decode=True)

  def tokens(
    self,
    labels: ArrayLike | None = None,
    *,
    key: jax.Array | int,
    count: int | None = None,
    first: int = 0,
    known: ArrayLike | None = None,
    **settings: Any,
  ) -> jax.Array:
    """New tokens int32 [B h w], with a last axis for groups or depth where the tokenizer has one.

    Args:
      labels: [B]; images without a class by default.
      key: what is drawn by.
      count: how many, in place of labels; 1, or as many as are known, by default.
      first: number of the first image; the others follow.
      known: tokens [B h w] that stay as they are, -1 where one is to be drawn.
      **settings: of the sampler, in place of its own.

    Raises:
      UserError: labels or tokens that the network does not have, a seed or a count that is none, or
        a setting that the sampler does not have or that does not fit the network.
    """
    return self._draw(labels, key, count, first, known, settings)

  def complete(
    self,
    images: ArrayLike,
    mask: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    key: jax.Array | int,
    first: int = 0,
    **settings: Any,
  ) -> jax.Array:
    """Images [B H W 3] with what is masked made anew: uint8 [B H W 3].

    What is not masked comes back as the tokenizer reconstructs it.

    Args:
      images: uint8 in [0, 255] or float in [0, 1].
      mask: bool [B H W] or [H W], True where pixels are to be made; see `known`.
      labels: [B]; as without a class by default.
      key: what is drawn by.
      first: as in `tokens`.
      **settings: of the sampler, in place of its own.

    Raises:
      UserError: as `tokens`; or images of another size than the generator's.
    """
    known = self.known(images, mask)
    return self._draw(labels, key, None, first, known, settings, decode=True)

  def known(self, images: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Tokens of images, -1 in each cell of which a pixel is masked; arguments as in `complete`."""
    grid, unit = self.model.layout.grid, self.tokenizer.model.downsample
    size = tuple(side * unit for side in grid)
    shape, masked = jnp.shape(images), np.asarray(mask)
    if shape[1:3] != size or masked.shape not in (size, shape[:3]) or masked.dtype != np.bool_:
      raise UserError(
        f'images are {list(shape)} and the mask is {masked.dtype}{list(masked.shape)}; legal: '
        f'images [batch, {size[0]}, {size[1]}, 3] and a bool mask [batch, {size[0]}, {size[1]}] or '
        f'{list(size)}.'
      )
    tokens = self.tokenizer.encode(images)
    cells = masked.reshape(-1, grid[0], unit, grid[1], unit).any(axis=(2, 4))
    cells = cells.reshape(*cells.shape, *(1,) * (tokens.ndim - 3))
    return jnp.where(jnp.broadcast_to(cells, tokens.shape), MASKED, tokens)

  def decode(self, tokens: ArrayLike) -> jax.Array:
    """Tokens int32 [B h w] -> images uint8 [B H W 3]; errors as `Pretrained.decode`."""
    return self.tokenizer.decode(tokens)

  def sampler_with(self, **settings: Any) -> Sampler:
    """The sampler with some of its settings changed.

    Raises:
      UserError: a setting that it does not have, or a value of another type.
    """
    section = self.config.sampler.to_dict()
    if 'name' in settings:
      legal = ', '.join(field for field in section if field != 'name')
      raise UserError(
        f'name is {settings["name"]!r}, but a call cannot change which sampler draws, '
        f'{section["name"]!r} here; legal: {legal}.'
      )
    section |= settings
    return build.build_sampler(section, self.config.generator.network)

  def check(self, batch_size: int = 1, **settings: Any) -> Sampler:
    """The sampler with these settings, which was seen to fit the network; draws nothing.

    Raises:
      UserError: as `tokens`.
    """
    sampler = self.sampler_with(**settings)
    numbers = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    params = self.variables['params']
    draw.eval_shape(self.model, sampler, params, jax.random.key(0), numbers, numbers)
    return sampler

  def class_number(self, name: str) -> int:
    """The label of a class by its name, or by its number as text.

    Raises:
      UserError: there is no such class.
    """
    if name in self.class_names:
      return self.class_names.index(name)
    if name.isdecimal() and int(name) < self.num_classes:
      return int(name)
    some = f', or {", ".join(self.class_names[:10])}' if self.class_names else ''
    legal = f'0 to {self.num_classes - 1}{some}' if self.num_classes else 'none, as it knows none'
    raise UserError(f'class {name!r} is unknown to the generator; legal: {legal}.')

  @functools.cached_property
  def weights_sha256(self) -> str:
    """Of names, types, shapes and values of the variables."""
    return saved_models.sha256_of(self.variables)

  def _draw(self, labels, key, count, first, known, settings, decode=False):
    sampler, key = self.sampler_with(**settings), _typed(key)
    known = self._tokens(known)
    if labels is None and count is None:
      count = 1 if known is None else len(known)
    if count is not None and count < 1:
      raise UserError(f'count is {count}; legal: 1 or more.')
    labels = self._labels(labels, count)
    count = len(labels)
    if known is not None and len(known) != count:
      raise UserError(f'there are {count} labels and {len(known)} images; legal: as many.')
    if first < 0:
      raise UserError(f'first is {first}; legal: 0 or more.')
    mesh, tokenizer_variables = self.tokenizer.everywhere
    sizes = self._compiled.setdefault((sampler, known is None), set())
    size = pretrained.filled_size(count, sizes, _MOST_FILLED, mesh.size)
    batch = {'labels': labels, 'numbers': np.arange(first, first + count, dtype=np.int32)}
    if known is not None:
      batch['known'] = known
    filled = {
      name: np.pad(x, [(0, size - count), *[(0, 0)] * (x.ndim - 1)]) for name, x in batch.items()
    }
    params = self.variables['params']
    put = sharding.put_batch(mesh, filled)
    found = draw(self.model, sampler, params, key, **put)
    sizes.add(size)
    if decode:
      found = pretrained.decode(self.tokenizer.model, tokenizer_variables, found)
    return found[:count]

  def _labels(self, labels, count):
    """As int32 [B]."""
    classes = self.num_classes
    if labels is None:
      if classes and not self.model.has_null:
        raise UserError(
          f'no labels are given, and {type(self.model).__name__} has no null class; legal: labels, '
          f'0 to {classes - 1}.'
        )
      labels = np.full(count, classes)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
      raise UserError(
        f'labels are {labels.dtype}{list(labels.shape)}; legal: whole numbers [batch], one or more.'
      )
    if count is not None and len(labels) != count:
      raise UserError(f'there are {len(labels)} labels and count is {count}; legal: as many.')
    most = classes if self.model.has_null or not classes else classes - 1
    if labels.min() < 0 or labels.max() > most:
      what = f'0 to {classes - 1}, its classes' if classes else '0, as there are no classes'
      raise UserError(f'labels are from {labels.min()} to {labels.max()}; legal: {what}.')
    return labels.astype(np.int32)

  def _tokens(self, known):
    """Those that are known, as int32 [B h w], or None."""
    if known is None:
      return None
    known, layout = np.asarray(known), self.model.layout
    shape = (*layout.grid, *(layout.groups,) * (layout.groups > 1))
    if known.shape[1:] != shape or not np.issubdtype(known.dtype, np.integer):
      raise UserError(
        f'known tokens are {known.dtype}{list(known.shape)}; legal: integers, batch and then '
        f'{list(shape)}.'
      )
    if known.size and (known.min() < MASKED or known.max() >= layout.num_codes):
      raise UserError(
        f'known tokens are from {known.min()} to {known.max()}; legal: 0 to '
        f'{layout.num_codes - 1}, and {MASKED} where one is to be drawn.'
      )
    return known.astype(np.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(
  model: Any,
  sampler: Sampler,
  params: Any,
  key: jax.Array,
  labels: jax.Array,
  numbers: jax.Array,
  known: jax.Array | None = None,
) -> jax.Array:
  """Labels [B] and numbers [B] of images -> tokens int32 [B h w]; what is known [B h w] stays.

  The key of image n is `fold_in(key, n)`.
  """
  keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
  symbols = None if known is None else model.layout.symbols(known)
  return model.layout.tokens(sampler(model, params, labels, keys, symbols))


def _typed(key):
  if isinstance(key, int | np.integer):
    if not 0 <= key <= MOST_SEED:
      raise UserError(f'the seed is {key}; legal: 0 to {MOST_SEED}, or a key of jax.random.')
    return jax.random.key(key)
  return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
