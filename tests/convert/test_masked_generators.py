"""Files of masked transformers, as their authors write them, read and written back."""

import jax
import numpy as np
import pytest
from generation import masked_goldens as goldens
from golden_data import checkpoint

from vqjax import convert, tensor_files
from vqjax.errors import UserError
from vqjax.generation import halton_maskgit
from vqjax.generation.layout import Layout

ALL = goldens.HALTON + goldens.MASKGIT


def theirs(name):
  """What their own file holds."""
  path, *_ = checkpoint(name, 'generation')
  content = tensor_files.read(path)
  if name in goldens.HALTON:
    return path, content, content['model_state_dict']
  leaves = jax.tree_util.tree_leaves_with_path(content)
  return path, content, {'/'.join(k.key for k in keys): leaf for keys, leaf in leaves}


@pytest.mark.parametrize('name', ALL)
def test_there_and_back(name):
  _, variables, published, *_ = goldens.load(name)
  *_, tensors = theirs(name)
  exported = convert.export_generator(variables, published.generator, published.format)
  assert exported.keys() == tensors.keys()
  for key, tensor in tensors.items():
    np.testing.assert_array_equal(exported[key], tensor, err_msg=key)


@pytest.mark.parametrize('name', ALL)
def test_described(name):
  model, _, published, _, sidecar = goldens.load(name)
  halton = name in goldens.HALTON
  assert published.format == ('halton_maskgit' if halton else 'maskgit_transformer')
  assert published.skipped == ()
  architecture = sidecar['architecture']
  if halton:
    assert published.generator == {
      'network': 'halton_maskgit',
      'width': architecture['hidden_dim'],
      'depth': architecture['depth'],
      'heads': architecture['heads'],  # which nothing says but the caller
      'registers': architecture['register'],
    }
    assert model.num_classes == architecture['nclass']
  else:
    assert published.generator == {
      'network': 'maskgit',
      'width': architecture['hidden_size'],
      'depth': architecture['num_hidden_layers'],
      'heads': architecture['num_attention_heads'],
      'mlp_width': architecture['intermediate_size'],
    }
    assert model.num_classes == architecture['num_class']


@pytest.mark.parametrize('fields', halton_maskgit.SIZES.values(), ids=halton_maskgit.SIZES)
def test_heads_of_the_published_sizes(fields):
  rows = {'tok_emb': 5, 'cls_emb': 4, 'pos_emb': 4, 'head': 5, 'reg_tokens': 2}
  rows |= {f'transformer.layers.{i}.attn.wq': 1 for i in range(fields['depth'])}
  tensors = {
    f'module.{key}.weight': np.zeros((n, fields['width']), np.float32) for key, n in rows.items()
  }
  content = {'iter': 1, 'model_state_dict': tensors, 'optimizer_state_dict': None}
  published = convert.take_apart_generator(content, 'file')
  assert published.generator == {'network': 'halton_maskgit', **fields, 'registers': 2}
  assert published.num_classes(Layout((2, 2), 4)) == 3
  assert 'head.weight' not in published.tensors


def test_a_head_that_is_not_the_tables():
  path, content, tensors = theirs('halton_conf_8_a')
  tensors = tensors | {'head.weight': tensors['head.weight'] + 1}
  with pytest.raises(UserError, match=r'^head\.weight of .* is not tok_emb\.weight, which'):
    convert.take_apart_generator(content | {'model_state_dict': tensors}, path)


def test_another_grid():
  model, _, published, *_ = goldens.load('halton_conf_8_a')
  other = model.clone(layout=Layout((16, 16), 40))
  with pytest.raises(UserError, match=r'different: pos_emb\.weight is \[64, 48\], expected \[256'):
    convert.generator_variables(published, other, 'file')
