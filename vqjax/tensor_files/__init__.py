"""Files of tensors that others wrote, read without executing anything that they name."""

from vqjax.tensor_files.files import read
from vqjax.tensor_files.pickles import Record

__all__ = ['Record', 'read']
