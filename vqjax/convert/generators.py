"""Published generators: transformers over tokens, recognised by their keys like tokenizers."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vqjax.convert import generator_names
from vqjax.convert.names import Names
from vqjax.convert.recognise import has, some, strip, weights
from vqjax.errors import UserError, printable
from vqjax.generation import halton_maskgit, llamagen, rar
from vqjax.generation.layout import Layout
from vqjax.tensor_files import DAMAGE

_Tensors = Mapping[str, np.ndarray]  # by their keys
_Config = dict[str, Any]  # a part of a config


@dataclasses.dataclass(frozen=True)
class GeneratorFormat:
  """One family of checkpoints of generators.

  Attributes:
    network: its name in `generation.build.NETWORKS`.
    marks: patterns of keys, each of which fits one of a checkpoint's.
    describe: function (tensors, the file's other content) -> the `generator` part of a config, with
      what `generation.build` needs but for the layout of the tokens, which no key says. `heads` is
      None where nothing tells it.
    classes: function (tensors, the layout of the tokens) -> how many classes there are.
    tokens: function (tensors) -> (how many codes a token has, how many tokens an image), each None
      where no tensor's shape tells it.
    names: function (that part) -> their keys for our paths.
    says_heads: whether a tensor's shape tells how many heads share the width; otherwise `describe`
      takes those of the published size, if it is one.
    skip: pattern of the keys that are no part of the transformer.
    tied: keys of tensors that a file holds twice -> the keys that ours are read from.
  """

  network: str
  marks: tuple[str, ...]
  describe: Callable[[_Tensors, Mapping[str, Any]], _Config]
  classes: Callable[[_Tensors, Layout], int]
  tokens: Callable[[_Tensors], tuple[int | None, int | None]]
  names: Callable[[_Config], Names]
  says_heads: bool = True
  skip: str = '$^'
  tied: Mapping[str, str] = dataclasses.field(default_factory=dict)


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

  def num_classes(self, layout: Layout) -> int:
    """Classes that it was trained on, when it is of tokens of this layout."""
    return GENERATORS[self.format].classes(self.tensors, layout)

  @property
  def tokens(self) -> tuple[int | None, int | None]:
    """(codes of a token, tokens of an image), None for what the checkpoint does not say."""
    return GENERATORS[self.format].tokens(self.tensors)


# The weights that were trained last come before their average, which the authors' samplers ignore.
_ENTRIES = ('model', 'module', 'model_state_dict', 'state_dict', 'tensors', 'ema')


def _depth(tensors, pattern):
  return len({match[1] for key in tensors if (match := re.match(pattern, key))})


def _heads(sizes, width, depth):
  """Of the published size that is so wide and so deep, None if there is none."""
  heads = {(size['width'], size['depth']): size['heads'] for size in sizes.values()}
  return heads.get((width, depth))


def _llamagen(tensors, _):
  width = tensors['tok_embeddings.weight'].shape[1]
  depth = _depth(tensors, r'layers\.(\d+)\.')
  return {
    'width': width,
    'depth': depth,
    'heads': _heads(llamagen.SIZES, width, depth),
  }


def _rar(tensors, _):
  width = tensors['lm_head.weight'].shape[1]
  return {
    'width': width,
    'depth': _depth(tensors, r'blocks\.(\d+)\.'),
    'heads': width // len(tensors['blocks.0.attn.q_norm.weight']),
    'mlp_width': len(tensors['blocks.0.mlp.fc1.weight']),
  }


def _halton_maskgit(tensors, _):
  registers, width = tensors.get('reg_tokens.weight', tensors['pos_emb.weight'][:0]).shape
  depth = _depth(tensors, r'transformer\.layers\.(\d+)\.')
  return {
    'width': width,
    'depth': depth,
    'heads': _heads(halton_maskgit.SIZES, width, depth),
    'registers': registers,
  }


def _maskgit_transformer(tensors, _):
  layer = 'params/TransformerLayer_0'
  width, heads, _ = tensors[f'{layer}/Attention_0/self_attention/query/kernel'].shape
  return {
    'width': width,
    'depth': _depth(tensors, r'params/TransformerLayer_(\d+)/'),
    'heads': heads,
    'mlp_width': tensors[f'{layer}/Mlp_0/intermediate_output/kernel'].shape[-1],
  }


def _classes_of_one_table(tensors, layout):
  # Codes, classes and the mask.
  return len(tensors['params/Embed_0/word_embeddings/embedding']) - layout.parts * layout.base - 1


GENERATORS: dict[str, GeneratorFormat] = {
  'llamagen_gpt': GeneratorFormat(
    network='llamagen',
    marks=(r'cls_embedding\.embedding_table\.weight$', r'layers\.0\.attention\.wqkv\.weight$'),
    describe=_llamagen,
    classes=lambda tensors, layout: len(tensors['cls_embedding.embedding_table.weight']) - 1,
    tokens=lambda tensors: (len(tensors['tok_embeddings.weight']), None),
    names=lambda generator: generator_names.LLAMAGEN_GPT,
    says_heads=False,
    skip='^freqs_cis$',  # the rotary table, in old files
  ),
  'rar': GeneratorFormat(
    network='rar',
    marks=(r'target_aware_pos_embed$', r'adaln_before_head\.', r'lm_head\.weight$'),
    describe=_rar,
    # Behind the codes stand the mask, the classes and the null class.
    classes=lambda tensors, layout: (
      len(tensors['embeddings.weight']) - len(tensors['lm_head.weight']) - 2
    ),
    tokens=lambda tensors: (
      len(tensors['lm_head.weight']),
      tensors['pos_embed'].shape[1] - rar.SPARE_POSITIONS,
    ),
    names=lambda generator: generator_names.RAR,
  ),
  'halton_maskgit': GeneratorFormat(
    network='halton_maskgit',
    marks=(r'tok_emb\.weight$', r'transformer\.layers\.0\.attn\.wq\.'),
    describe=_halton_maskgit,
    classes=lambda tensors, layout: len(tensors['cls_emb.weight']) - 1,
    tokens=lambda tensors: (len(tensors['tok_emb.weight']) - 1, len(tensors['pos_emb.weight'])),
    names=lambda generator: generator_names.HALTON_MASKGIT,
    says_heads=False,
    tied={'head.weight': 'tok_emb.weight'},
  ),
  'maskgit_transformer': GeneratorFormat(
    network='maskgit',
    marks=(r'params/MlmLayer_0/', r'params/TransformerLayer_0/'),
    describe=_maskgit_transformer,
    classes=_classes_of_one_table,
    tokens=lambda tensors: (
      None,
      len(tensors['params/Embed_0/position_embeddings/embedding']) - 1,
    ),
    names=lambda generator: generator_names.MASKGIT_TRANSFORMER,
  ),
}


def take_apart_generator(
  content: Any, path: str | pathlib.Path, format: str = 'auto'
) -> PublishedGenerator:
  """Recognises a generator by its keys and describes it; arguments as in `take_apart`.

  Raises:
    UserError: it is of no known system, or not of the one that `format` names, or damaged.
  """
  if format != 'auto' and format not in GENERATORS:
    raise UserError(f'format is {format!r}; legal: auto, {", ".join(GENERATORS)}.')
  tensors = _tensors(content, path)
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
    generator = {'network': family.network, **family.describe(tensors, content)}
  except (*DAMAGE, ZeroDivisionError) as error:
    reason = printable(str(error)[:300])
    raise UserError(
      f'{path} looks like a checkpoint of {name} but lacks or garbles {reason}; fetch it again.'
    ) from error
  for copy, kept in family.tied.items():
    if copy in tensors and not np.array_equal(tensors.pop(copy), tensors[kept]):
      raise UserError(
        f'{copy} of {path} is not {kept}, which the network has it share; fetch it again.'
      )
  skipped = tuple(key for key in tensors if re.search(family.skip, key))
  tensors = {key: value for key, value in tensors.items() if key not in skipped}
  return PublishedGenerator(name, generator, family.names(generator), tensors, skipped)


def is_generator(content: Any, path: str | pathlib.Path) -> bool:
  """Whether a file holds a generator that is known here."""
  tensors = _tensors(content, path)
  return any(has(tensors, family.marks) for family in GENERATORS.values())


def _tensors(content, path):
  content = content if isinstance(content, Mapping) else {}
  return strip(weights(content, path, _ENTRIES))
