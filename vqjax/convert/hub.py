"""Checkpoints on the Hugging Face hub. The door to huggingface_hub."""

import pathlib
import re
import socket
import urllib.parse
import urllib.request

import huggingface_hub
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vqjax.errors import UserError


def fetch(name: str) -> pathlib.Path:
  """Downloads config.json and model.safetensors of 'owner/name' into the hub's cache.

  Raises:
    UserError: it is neither a path nor such a name, or cannot be fetched.
  """
  # A name whose first part is a folder here, such as runs/, is a path with a slip.
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', name) or pathlib.Path(name).parent.is_dir():
    raise UserError(
      f'{name} does not exist; legal: a run folder, a checkpoint file, a Hugging Face folder, the '
      "name 'owner/name' of one on the hub, or 'photos', which comes with the package."
    )
  reachable = _reachable()
  try:
    files = [
      huggingface_hub.hf_hub_download(name, part, local_files_only=not reachable)
      for part in ('config.json', 'model.safetensors')
    ]
  except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not reachable:
      reason = f'{ENDPOINT} has no address from here'
    raise UserError(
      f'{name} is no path here and could not be fetched from the Hugging Face hub ({reason}); '
      'mend the name or the connection, or name a downloaded folder with config.json and '
      'model.safetensors.'
    ) from error
  return pathlib.Path(files[0]).parent


def _reachable() -> bool:
  """Whether the hub has an address; without one, huggingface_hub tries again for half a minute."""
  if urllib.request.getproxies():
    return True  # that have addresses of their own
  try:
    socket.getaddrinfo(urllib.parse.urlsplit(ENDPOINT).hostname, None)
  except OSError:
    return False
  return True
