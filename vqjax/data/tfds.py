"""A data set that tensorflow_datasets has prepared, read without TensorFlow."""

from typing import Any

from vqjax.data.decode import UnreadableImage
from vqjax.data.folder import DEMO
from vqjax.errors import UserError


class Tfds:
  """One split of a prepared data set; the images stay encoded, for our own decoder.

  `records[i]` is {'image': bytes, 'label': int, 0 if it has none, 'name': its file_name, if any}.
  Raises `UserError` if the data set or the split is not there, is not in ArrayRecord format (the
  only one that can be read in random order without TensorFlow), or has no images, and
  `UnreadableImage` for a damaged record.
  """

  def __init__(self, name: str, data_dir: str, split: str) -> None:
    # Seconds to import, and nobody else needs it.
    import tensorflow_datasets as tfds

    prepare = (
      f"tfds.builder({name!r}, data_dir=..., file_format='array_record').download_and_prepare()"
    )
    try:
      builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
      raise UserError(
        f'data.tfds_name={name!r} is no data set that tensorflow_datasets knows, and is not in'
        f' data.path={data_dir!r}; {DEMO}.'
      ) from None
    if not builder.is_prepared():
      raise UserError(
        f'{name} is not prepared in {builder.data_path}; run {prepare}, or set data.path to where'
        f' it is; {DEMO}.'
      )
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      raise UserError(
        f'{builder.data_path} is in {builder.info.file_format.value} format, which has no random'
        f' access; prepare it again, in another folder, with {prepare}.'
      )
    # A split may be a slice such as train[:10%].
    if split.split('[')[0] not in builder.info.splits:
      raise UserError(
        f'{name} has no split {split!r}; set data.train_split and data.eval_split to some of'
        f' {", ".join(sorted(builder.info.splits))}.'
      )
    if not isinstance(dict(builder.info.features).get('image'), tfds.features.Image):
      raise UserError(
        f"{name} has no feature 'image' but {', '.join(sorted(builder.info.features))}; choose"
        ' another data.tfds_name.'
      )
    label = dict(builder.info.features).get('label')
    self.class_names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None
    self._name = f'{name}/{split}'
    self._records = builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    self.description = f'{len(self)} images of {self._name} in {builder.data_path}'

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      record = self._records[index]
    except (RuntimeError, ValueError) as error:  # a damaged shard; a record that is no example
      raise UnreadableImage(self.name_of(index), str(error) or 'cut off') from error
    name = record.get('file_name', self.name_of(index))
    return {
      'image': record['image'],
      'label': int(record.get('label', 0)),
      'name': name.decode() if isinstance(name, bytes) else name,
    }

  def name_of(self, index: int) -> str:
    """The position of the image in its split."""
    return f'{self._name}[{index}]'
