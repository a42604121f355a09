"""The tokenizers that come with the package, and what their cards say of them."""

import hashlib
import pathlib
import re

import jax
import numpy as np
import pytest

import vqjax
from configs.shipped import photos
from vqjax import shipped, tokenizer
from vqjax.data.photos import Photos
from vqjax.evaluation.metrics import psnr
from vqjax.runs.folder import to_json
from vqjax.training import recipe as recipes

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = pathlib.Path(shipped.__file__).parent


def card(name):
  return (FOLDER / f'{name}.md').read_text()


def test_names_that_ship_are_found_and_others_are_not():
  assert shipped.find('photos') == FOLDER / 'photos.safetensors'
  for name in ('photo', './photos', '../shipped/photos', 'photos.safetensors', ''):
    assert shipped.find(name) is None


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.safetensors')), ids=lambda path: path.stem)
def test_a_file_is_small_and_the_one_that_its_card_is_of(path):
  assert path.stat().st_size <= 2e6
  assert hashlib.sha256(path.read_bytes()).hexdigest() in card(path.stem)


def test_photos_is_what_its_config_trains():
  config, tok = photos.get_config(), vqjax.load('photos')
  recipes.build(config, 240)  # its optimizer, data and losses are legal
  asked = to_json(config)
  assert {name: to_json(tok.config)[name] for name in ('model', 'quantizer')} == {
    name: asked[name] for name in ('model', 'quantizer')
  }
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  assert tok.model == model
  count = sum(leaf.size for leaf in jax.tree.leaves(tok.variables['params']))
  assert f'{count:,} parameters' in card('photos')


def test_photos_reconstructs_photographs_that_it_was_not_trained_on():
  tok, images = vqjax.load('photos'), Photos('eval')
  crops = np.stack([images[i]['image'][:128, :128] for i in range(0, len(images), 6)])
  tokens = tok.encode(crops)
  assert tokens.shape == (len(crops), 32, 32)
  again = tok.decode(tokens)
  measure = lambda a: float(np.mean(psnr(np.float32(a) / 255, np.float32(crops) / 255)))
  mean = np.broadcast_to(crops.mean((1, 2), keepdims=True), crops.shape)
  assert measure(again) > measure(mean) + 8
  usage = np.unique(np.asarray(tokens)).size
  assert usage > 500  # of 4096, by nine crops of 1024 tokens


def test_the_commands_of_the_card_are_those_of_the_config():
  commands = re.findall(r'^  (\S.*)$', photos.__doc__, re.MULTILINE)
  assert len(commands) == 4
  assert all(command in card('photos') for command in commands)
  (config,) = re.findall(r'--config=(\S+)', photos.__doc__)
  assert ROOT / config == pathlib.Path(photos.__file__)
