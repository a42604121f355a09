"""The input of a training in PyTorch: a DataLoader over JPEGs, with Pillow, as torchvision has it.

    python -m benchmarks.torch_input FOLDER

Shorter side 256 (bilinear, antialiased), random crop, flip, uint8. Prints images a second. Needs
PyTorch and Pillow alone: the transforms are written as torchvision writes them for Pillow's images.
"""

import argparse
import pathlib

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks import timing

EPOCH = 1_281_167  # images, as ImageNet has


class Folder(Dataset):
  """The images of a folder, over and over."""

  def __init__(self, folder, size):
    self.paths = sorted(pathlib.Path(folder).rglob('*.jpg'))
    self.size = size

  def __len__(self):
    return EPOCH

  def __getitem__(self, index):
    with open(self.paths[index % len(self.paths)], 'rb') as file:
      image = Image.open(file).convert('RGB')
    width, height = image.size
    longer = int(self.size * max(width, height) / min(width, height))
    sides = (longer, self.size) if width >= height else (self.size, longer)
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (int(torch.randint(n - self.size + 1, (1,))) for n in sides)
    image = image.crop((left, top, left + self.size, top + self.size))
    if torch.rand(1) < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), 0


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder')
  parser.add_argument('--image_size', type=int, default=256)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--batches', type=int, default=40, help='that are timed')
  parser.add_argument('--workers', type=int, default=2)
  args = parser.parse_args()
  images = Folder(args.folder, args.image_size)
  # Neither shuffled by the sampler, which lists the whole epoch first, nor pinned: a CPU is enough.
  batches = iter(DataLoader(images, args.batch, num_workers=args.workers))
  print(timing.images_per_second(batches, args.batch, args.batches))


if __name__ == '__main__':
  main()
