"""RGB image of any size -> the square that the model sees, as the published recipes cut it."""

import dataclasses
import math

import cv2
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vqjax.data.augment import blur_at_random, jitter_color
from vqjax.errors import UserError

# Images are read by as many threads as there are cores; OpenCV would start more for each image.
cv2.setNumThreads(0)

_FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS,
  'box': Image.Resampling.BOX,
  'box_bicubic': Image.Resampling.BICUBIC,
}
_LEGAL = {
  'resize': ('none', 'shorter', 'exact'),
  'filter': tuple(_FILTERS),
  'antialias': (True, False),
  'crop': ('center', 'random', 'random_resized'),
  'flip': (True, False),
  'small': ('pad', 'upscale', 'error'),
}


@dataclasses.dataclass(frozen=True)
class Transform:
  """Resize, crop, jitter, blur and flip: `transform(image [H W 3], rng) -> [S S 3]`, both uint8.

  The fields are those of `default_data()['train']`, described there; `where` is the name that
  errors give to the section. Raises `UserError` for a wrong field at construction.
  """

  where: str
  image_size: int
  resize: str
  resize_size: int
  resize_up_to: int
  filter: str
  antialias: bool
  crop: str
  scale: tuple[float, float]
  ratio: tuple[float, float]
  color_jitter: tuple[float, float, float, float, float]
  blur: float
  flip: bool
  small: str

  def __post_init__(self) -> None:
    if not (isinstance(self.image_size, int) and self.image_size > 0):
      raise UserError(
        f'data.image_size is {self.image_size!r}; give a number of pixels, 1 or more.'
      )
    for field, legal in _LEGAL.items():
      names = ', '.join(map(repr, legal))
      self._require(getattr(self, field) in legal, field, f'it can be one of {names}')
    pixels = lambda size: isinstance(size, int) and size >= 0
    advice = 'give a number of pixels, or 0 for data.image_size'
    self._require(pixels(self.resize_size), 'resize_size', advice)
    size, largest = self.resize_size or self.image_size, self.resize_up_to
    self._require(
      largest == 0 or (pixels(largest) and largest >= size and self.resize == 'shorter'),
      'resize_up_to',
      f"give {size} pixels or more, with {self.where}.resize='shorter', or 0 for one size",
    )
    self._require(
      self.filter != 'box_bicubic' or (self.resize == 'shorter' and self.crop != 'random_resized'),
      'filter',
      f"it goes with {self.where}.resize='shorter' and a crop that is 'center' or 'random'",
    )
    if not self.antialias and self.filter != 'bilinear':
      raise UserError(
        f"{self.where}.filter is {self.filter!r} with antialias=False, which 'bilinear' alone can"
        f" do; set {self.where}.antialias=True or {self.where}.filter='bilinear'."
      )
    for field, top in (('scale', 1.0), ('ratio', math.inf)):
      low, high = getattr(self, field) if len(getattr(self, field)) == 2 else (0, 0)
      advice = 'give (low, high) with 0 < low <= high' + (' <= 1' if top == 1 else '')
      self._require(0 < low <= high <= top, field, advice)
    jitter = self.color_jitter
    self._require(
      len(jitter) == 5 and min(jitter) >= 0 and jitter[3] <= 0.5 and jitter[4] <= 1,
      'color_jitter',
      'give (brightness, contrast, saturation, hue, probability), none of them below 0, a hue of'
      ' at most 0.5 and a probability of at most 1',
    )
    self._require(0 <= self.blur <= 1, 'blur', 'give a probability, 0 to 1')

  def __str__(self) -> str:
    """In words, and without what is switched off: a protocol, for people and for comparison."""
    size = f'{self.resize_size or self.image_size}'
    size += f' to {self.resize_up_to}' * bool(self.resize_up_to)
    sides = {'none': 'not resized', 'shorter': f'shorter side {size}', 'exact': f'sides {size}'}
    how = f'{self.filter}, {"with" if self.antialias else "without"} antialiasing'
    parts = [sides[self.resize]]
    if self.crop == 'random_resized':
      parts.append(f'random part of area {self.scale} and shape {self.ratio}')
      parts.append(f'resized to {self.image_size}')
    else:
      small = {'pad': 'padded', 'upscale': 'enlarged', 'error': 'refused'}[self.small]
      parts.append(f'{self.crop} crop of {self.image_size} (smaller ones {small})')
    if self.resize != 'none' or self.crop == 'random_resized':
      parts.append(how)
    parts += [f'color_jitter {self.color_jitter}'] * (self.color_jitter[-1] > 0)
    parts += [f'blur {self.blur}'] * (self.blur > 0) + ['flip'] * self.flip
    return '; '.join(parts)

  def _require(self, legal: bool, field: str, advice: str) -> None:
    if not legal:
      raise UserError(f'{self.where}.{field} is {getattr(self, field)!r}; {advice}.')

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Nothing is drawn for what is switched off, so that it changes no other choice.
    size = self.resize_size or self.image_size
    if self.resize_up_to:
      size = int(rng.integers(size, self.resize_up_to + 1))
    if self.resize == 'exact':
      image = self._resized(image, size, size)
    elif self.resize == 'shorter':
      image = self._shorter_side(image, size)
    if self.crop == 'random_resized':
      box = inception_box(image.shape[0], image.shape[1], self.scale, self.ratio, rng)
      top, left, height, width = box
      image = image[top : top + height, left : left + width]
      image = self._resized(image, self.image_size, self.image_size)
    else:
      image = self._cropped(self._large_enough(image), rng)
    brightness, contrast, saturation, hue, probability = self.color_jitter
    if probability and rng.random() < probability:
      image = jitter_color(image, brightness, contrast, saturation, hue, rng)
    if self.blur and rng.random() < self.blur:
      image = blur_at_random(image, rng)
    if self.flip and rng.random() < 0.5:
      image = image[:, ::-1]
    return image

  def _cropped(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (n - self.image_size for n in image.shape[:2])
    if self.crop == 'center':
      # torchvision's rounding, to the even; albumentations rounds down: a pixel, now and then.
      top, left = round(height / 2.0), round(width / 2.0)
    else:
      top, left = rng.integers(height + 1), rng.integers(width + 1)
    return image[top : top + self.image_size, left : left + self.image_size]

  def _large_enough(self, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) >= self.image_size:
      return image
    if self.small == 'error':
      raise UserError(
        f'an image of {height} x {width} pixels is smaller than data.image_size={self.image_size};'
        f" set {self.where}.small to 'pad' or 'upscale', or {self.where}.resize to 'shorter'."
      )
    if self.small == 'upscale':
      return self._shorter_side(image, self.image_size)
    missing = (max(0, self.image_size - height), max(0, self.image_size - width))
    # torchvision's CenterCrop: the odd row of zeros goes below, the odd column to the right.
    return np.pad(image, [*((n // 2, n - n // 2) for n in missing), (0, 0)])

  def _shorter_side(self, image: np.ndarray, size: int) -> np.ndarray:
    if self.filter == 'box_bicubic':
      while min(image.shape[:2]) >= 2 * size:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(Image.fromarray(image).resize(half, Image.Resampling.BOX))
    height, width = image.shape[:2]
    longer = size * max(height, width) / min(height, width)
    # torchvision cuts the fraction of a pixel off, albumentations and guided-diffusion round it.
    cut_off = self.antialias and self.filter != 'box_bicubic'
    longer = int(longer) if cut_off else round(longer)
    return self._resized(image, *((size, longer) if height <= width else (longer, size)))

  def _resized(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
      return image
    if not self.antialias:
      return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[self.filter]))


def make_transform(data: ConfigDict, split: str) -> Transform:
  """The transform that `data.train` or `data.eval` describes; `UserError` names a wrong field."""
  section = getattr(data, split)
  fields = (f.name for f in dataclasses.fields(Transform) if f.name not in ('where', 'image_size'))
  settings = {name: getattr(section, name) for name in fields}
  return Transform(where=f'data.{split}', image_size=data.image_size, **settings)


def inception_box(
  height: int,
  width: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
  rng: np.random.Generator,
) -> tuple[int, int, int, int]:
  """A random box (top, left, height, width) as torchvision's RandomResizedCrop draws it.

  The area is uniform in `scale` times the image's, width / height log-uniform in `ratio`; after ten
  boxes that do not fit, the largest central one that the bounds of `ratio` allow.
  """
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
    if 0 < w <= width and 0 < h <= height:
      return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
  shape = min(max(width / height, ratio[0]), ratio[1])
  w, h = min(width, round(height * shape)), min(height, round(width / shape))
  return (height - h) // 2, (width - w) // 2, h, w
