"""Where this machine keeps what was fetched, or computed once."""

import os
import pathlib


def cache_folder() -> pathlib.Path:
  """The folder VQJAX_CACHE, or ~/.cache/vqjax."""
  return pathlib.Path(os.environ.get('VQJAX_CACHE') or '~/.cache/vqjax').expanduser()
