"""Every field of `config.data`, in one place."""

from typing import Any

# How images are read: on these fields no pixel depends.
READING = ('threads', 'prefetch', 'max_unreadable', 'stall_seconds')


def default_data() -> dict[str, Any]:
  """A fresh dict with every data field; the transforms are VQGAN's (shorter side 256, crop 256)."""
  # What is done to a decoded image, in this order: resized, cropped, recoloured, blurred, mirrored.
  transform = {
    # 'none'; 'shorter': the shorter side becomes resize_size; 'exact': both sides do.
    'resize': 'shorter',
    # In pixels; 0 means image_size.
    'resize_size': 0,
    # Of 'shorter' alone: the side of each image is drawn uniformly from resize_size to this; with
    # 0 it is resize_size for all.
    'resize_up_to': 0,
    # 'bilinear', 'bicubic', 'lanczos', 'box', or 'box_bicubic': halved by 'box' as often as the
    # shorter side allows, and 'bicubic' from there, as guided-diffusion and LlamaGen do.
    'filter': 'bilinear',
    # True: as Pillow and torchvision. False: as OpenCV and albumentations ('bilinear' only).
    'antialias': False,
    # 'center', 'random' or 'random_resized' (Inception's: random area and shape, then resized).
    'crop': 'random',
    # Of 'random_resized' alone: the bounds of the area, as a fraction, and of width / height.
    'scale': (0.08, 1.0),
    'ratio': (3 / 4, 4 / 3),
    # Brightness, contrast, saturation: factors uniform in 1 -+ each; hue: turned by up to this
    # fraction of the circle, 0.5 at most; in random order; and the probability that it happens.
    'color_jitter': (0.0, 0.0, 0.0, 0.0, 0.0),
    # The probability of a Gaussian blur over 3, 5 or 7 pixels.
    'blur': 0.0,
    # Mirror every other image, at random.
    'flip': False,
    # An image smaller than the crop: 'pad' with zeros, 'upscale' its shorter side, or 'error'.
    'small': 'pad',
  }
  return {
    # 'folder' of images, 'array_record' shards (python -m vqjax.data.prepare), 'tfds', or what
    # rides in wheels: 'photos', a few photographs, of scikit-image and scikit-learn; 'digits',
    # 1797 handwritten ones of 8 x 8 pixels, of scikit-learn.
    'source': 'folder',
    # The folder; for 'array_record' also a glob of shards; for 'tfds' its data_dir.
    'path': '',
    # The held-out folder or shards, where they are not val/, validation/ or test/ under path.
    'eval_path': '',
    # The fraction of a folder without a held-out part that is held out.
    'holdout': 0.05,
    # Height and width of every image in a batch, in pixels.
    'image_size': 256,
    # Of 'tfds' alone: the data set and its splits.
    'tfds_name': 'imagenet2012',
    'train_split': 'train',
    'eval_split': 'validation',
    # Decoding threads; 0 means one a core, 16 at most.
    'threads': 0,
    # Images decoded ahead of the consumer, in whole batches: at least one a thread, and two.
    'prefetch': 0,
    # The fraction of a source, rounded up, that may be unreadable. In training such images are
    # left out, counted and named; one more ends the run. Evaluation leaves out any number, but none
    # of what generated images are compared with.
    'max_unreadable': 0.1,
    # After so many seconds without a batch the log names the images that are waited for, and again
    # when the wait has doubled; 0 means never.
    'stall_seconds': 60.0,
    'train': transform,
    'eval': {**transform, 'crop': 'center'},
  }
