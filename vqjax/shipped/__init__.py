"""Trained tokenizers that come with the package, each with its model card, NAME.md, beside it."""

import pathlib


def find(name: str) -> pathlib.Path | None:
  """The file of a tokenizer that ships, such as 'photos'; None if there is none of this name."""
  path = pathlib.Path(__file__).parent / f'{name}.safetensors'
  return path if name.isidentifier() and path.is_file() else None
