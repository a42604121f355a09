"""Parts of a config to networks, samplers and objectives, and what is wrong with one."""

import jax.numpy as jnp
import pytest

from vqjax.errors import UserError
from vqjax.generation import build, objectives
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT

SECTION = {
  **{'network': 'llamagen', 'num_classes': 3, 'digits': 2, 'dtype': 'bfloat16'},
  **{'width': 8, 'heads': 2},
}
LAYOUT = Layout((2, 2), 64, digits=2)


def test_a_network_of_its_fields():
  assert build.layout(SECTION, (2, 2), 64) == LAYOUT
  network = build.build({**SECTION, 'depth': 2}, LAYOUT)
  assert network == GPT(LAYOUT, 3, width=8, depth=2, heads=2, dtype=jnp.dtype('bfloat16'))


def test_a_sampler_and_an_objective_of_their_fields():
  assert build.build_sampler({'name': 'causal', 'top_k': 4}) == CausalSampler(top_k=4)
  assert build.build_objective({'name': 'causal'}, 'rar') == objectives.Causal()
  for network, family in build.NETWORKS.items():
    for name in family.samplers:
      assert build.build_sampler({'name': name}, network) == build.SAMPLERS[name]()
    for name in family.objectives:
      assert build.build_objective({'name': name}, network) == objectives.OBJECTIVES[name]()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'network': 'gpt2'}, "network is 'gpt2'; legal: llamagen, rar, halton_maskgit, maskgit"),
    ({'widht': 8}, 'widht is unknown to GPT; legal: width, depth, heads, token_dropout'),
    ({'width': 8.5}, 'width is 8.5; legal: a whole number'),
    ({'width': 0}, 'width is 0; legal: 1 or more'),
    ({'depth': 0}, 'depth is 0; legal: 1 or more'),
    ({'heads': 0}, 'heads is 0; legal: 1 or more'),
    ({'heads': 3}, 'heads is 3 and width 8; legal: heads that divide the width'),
    ({'heads': 16}, 'heads is 16 and width 8; legal: heads that divide the width'),
    ({'dropout': 1.0}, r'dropout is 1\.0; legal: 0 \(none\) to below 1'),
    ({'network': 'rar', 'mlp_width': 0}, 'mlp_width is 0; legal: 1 or more'),
    ({'network': 'maskgit', 'heads': 3}, 'heads is 3 and width 8; legal: heads that divide the'),
    ({'network': 'halton_maskgit', 'heads': 9}, 'heads is 9 and width 8; legal: heads that divide'),
    ({'num_classes': -1}, 'num_classes is -1; legal: 0, for none, or more'),
    ({'num_classes': '3'}, "num_classes is '3'; legal: a whole number"),
    ({'dtype': 'float64'}, "dtype is 'float64'; legal: float32, bfloat16"),
  ],
  ids=str,
)
def test_a_wrong_field_of_a_network_is_named(change, message):
  with pytest.raises(UserError, match=rf'config\.generator\.{message}'):
    build.build({**SECTION, **change}, LAYOUT)


def test_heads_of_halton_maskgit_may_be_narrower_together():
  network = build.build({**SECTION, 'network': 'halton_maskgit', 'heads': 3}, LAYOUT)
  assert network.heads == 3


@pytest.mark.parametrize('name', build.FIELDS)
def test_a_missing_field_is_named(name):
  with pytest.raises(UserError, match=f"config.generator has no '{name}'; every network needs"):
    build.build({key: value for key, value in SECTION.items() if key != name}, LAYOUT)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'name': 'halton'}, "name is 'halton'; legal with config.generator.network='rar': causal"),
    ({}, 'name is None; legal'),
    (
      {'name': 'causal', 'steps': 3},
      'steps is unknown to CausalSampler; legal: temperature, top_k',
    ),
    ({'name': 'causal', 'top_k': 0.5}, r'top_k is 0\.5; legal: a whole number'),
  ],
  ids=str,
)
def test_a_wrong_sampler_is_named(section, message):
  with pytest.raises(UserError, match=rf'config\.sampler\.{message}'):
    build.build_sampler(section, 'rar')


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'name': 'halton'}, "name is 'halton'; legal with .*: permuted, causal"),
    ({'name': 'causal', 'label_drop': 1}, r'label_drop is 1; legal: 0 \(none\) to below 1'),
    ({'name': 'permuted', 'start': 1}, 'start is unknown to Permuted; legal: label_drop, anneal'),
  ],
  ids=str,
)
def test_a_wrong_objective_is_named(section, message):
  with pytest.raises(UserError, match=rf'config\.objective\.{message}'):
    build.build_objective(section, 'rar')
