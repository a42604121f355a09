"""Files of causal transformers, as their authors write them, read and written back."""

import jax
import numpy as np
import pytest
from generation.causal_goldens import GOLDENS, opened
from golden_data import CHECKPOINTS, checkpoint
from safetensors.numpy import save_file

import vqjax
from vqjax import convert, tensor_files
from vqjax.convert import trees
from vqjax.errors import UserError
from vqjax.generation import llamagen, rar
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT
from vqjax.generation.rar import RAR


def theirs(name):
  content = tensor_files.read(opened(name).path)
  return content.get('model', content)


@pytest.mark.parametrize('name', GOLDENS)
def test_export_gives_back_every_tensor(name):
  golden, tensors = opened(name), theirs(name)
  assert golden.published.skipped == ()
  assert len(tensors) == golden.sidecar['n_model_tensors']
  format = 'rar' if name.startswith('rar') else 'llamagen_gpt'
  assert golden.published.format == format
  exported = convert.export_generator(golden.variables, golden.published.generator, format)
  assert exported.keys() == tensors.keys()
  for key, tensor in tensors.items():
    np.testing.assert_array_equal(exported[key], tensor, key)


@pytest.mark.parametrize('name', GOLDENS)
def test_a_file_says_all_but_the_grid(name):
  golden = opened(name)
  shape = golden.sidecar['architecture']
  classes = shape.get('num_classes', shape.get('condition_num_classes'))
  assert golden.model.num_classes == classes
  fields = golden.published.generator
  assert fields['width'] == shape.get('dim', shape.get('hidden_size'))
  assert fields['depth'] == shape.get('n_layer', shape.get('num_hidden_layers'))
  if name.startswith('rar'):
    assert fields['heads'] == shape['num_attention_heads']
    assert fields['mlp_width'] == shape['intermediate_size']


COUNTS = {
  (GPT, 'B'): 110_888_448,
  (GPT, 'L'): 342_910_976,
  (GPT, 'XL'): 774_699_520,
  (GPT, 'XXL'): 1_410_972_672,
  (GPT, '3B'): 3_096_659_200,
  (GPT, 'XXXL'): 3_893_027_840,
  (GPT, '1B'): 1_199_616_000,
  (GPT, '7B'): 6_614_589_440,
  (RAR, 'B'): 260_923_648,
  (RAR, 'L'): 461_668_352,
  (RAR, 'XL'): 955_425_024,
  (RAR, 'XXL'): 1_498_520_704,
}


@pytest.mark.parametrize(('kind', 'size'), COUNTS)
def test_published_sizes(kind, size):
  """Their numbers of parameters, and what is read off their files; no key says the heads."""
  sizes, codes, format = {
    GPT: (llamagen.SIZES, 16384, 'llamagen_gpt'),
    RAR: (rar.SIZES, 1024, 'rar'),
  }[kind]
  fields = sizes[size]
  model = kind(Layout((16, 16), codes), 1000, **fields)
  leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(convert.initial_variables(model)))
  assert sum(leaf.size for _, leaf in leaves) == COUNTS[kind, size]
  names, tensors = convert.GENERATORS[format].names(fields), {}
  for keys, leaf in leaves:
    path = jax.tree_util.keystr(keys[1:], simple=True, separator='/')
    tensors[names.key(path)] = names.to_theirs(path, np.broadcast_to(np.int8(0), leaf.shape))
  published = convert.take_apart_generator(tensors, 'file')
  assert published.generator == {'network': 'llamagen' if kind is GPT else 'rar', **fields}
  assert published.num_classes(model.layout) == 1000


CONTAINERS = {
  'as trained': lambda tensors: {'model': tensors, 'ema': {}, 'steps': 1},
  'DeepSpeed': lambda tensors: {'module': tensors},
  'state dict': lambda tensors: {'state_dict': tensors},
  'safetensors': lambda tensors: {'tensors': tensors, 'metadata': {}},
  'FSDP': lambda tensors: tensors,
  'the average alone': lambda tensors: {'ema': tensors},
  'the last before the average': lambda tensors: {
    'ema': {key: value + 1 for key, value in tensors.items()},
    'model': tensors,
  },
  'compiled': lambda tensors: {f'_orig_mod.{key}': value for key, value in tensors.items()},
  'an old table': lambda tensors: tensors | {'freqs_cis': np.ones((2, 2), np.float32)},
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_containers(container):
  name = 'llamagen_gpt_24_a'
  published = convert.take_apart_generator(CONTAINERS[container](theirs(name)), 'file')
  variables = convert.generator_variables(published, opened(name).model, 'file')
  jax.tree.map(np.testing.assert_array_equal, variables, opened(name).variables)
  assert published.skipped == (('freqs_cis',) if container == 'an old table' else ())


def test_heads_that_no_tensor_says_have_to_be_named():
  path = opened('llamagen_gpt_24_a').path
  with pytest.raises(UserError, match=r'is 48 wide and 2 layers deep, .*; name their'):
    convert.open_generator(path)


def test_heads_that_are_named_win_over_a_published_size(monkeypatch):
  monkeypatch.setitem(llamagen.SIZES, 'tiny', {'width': 48, 'depth': 2, 'heads': 4})
  path = opened('llamagen_gpt_24_a').path
  assert convert.open_generator(path).generator['heads'] == 4
  assert convert.open_generator(path, heads=6).generator['heads'] == 6


def test_heads_that_a_tensor_says_are_not_for_the_caller():
  path, heads = opened('rar_a').path, opened('rar_a').published.generator['heads']
  assert convert.open_generator(path, heads=heads).generator['heads'] == heads
  with pytest.raises(UserError, match=rf'heads is 7, but .* has {heads}, as its tensors say; leav'):
    convert.open_generator(path, heads=7)


def test_another_grid_is_refused():
  golden = opened('rar_a')
  other = golden.model.clone(layout=Layout((4, 4), 40))
  with pytest.raises(UserError, match=r'different: pos_embed is \[1, 1088, 48\], expected \[1, 10'):
    convert.generator_variables(golden.published, other, 'file')


def test_each_kind_of_file_says_who_loads_it():
  with pytest.raises(UserError, match=r'rar_a\.bin is a generator and no tokenizer; .*load_gen'):
    vqjax.load(opened('rar_a').path)
  with pytest.raises(UserError, match=r'is a tokenizer and no generator; load it by vqjax\.load\.'):
    trees.open_generator(checkpoint(CHECKPOINTS[0])[0])


def test_files_that_are_no_generators(tmp_path):
  file = tmp_path / 'x.safetensors'
  save_file({'x.weight': np.ones(2, np.float32)}, file)
  with pytest.raises(UserError, match=r'is no checkpoint of any generator known here; legal: .* x'):
    convert.open_generator(file)
  with pytest.raises(UserError, match=r'is no checkpoint of rar; legal: .* Its keys are cls_emb'):
    convert.open_generator(opened('llamagen_gpt_24_a').path, 'rar')
  with pytest.raises(UserError, match=r"format is 'gpt'; legal: auto, llamagen_gpt, rar"):
    convert.open_generator(file, 'gpt')
  tensors = dict(theirs('rar_a'))
  del tensors['blocks.0.mlp.fc1.weight']
  with pytest.raises(UserError, match=r'looks like a checkpoint of rar but lacks .*fc1\.weight'):
    convert.take_apart_generator(tensors, 'file')
