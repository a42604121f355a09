"""Files of tensors that others wrote, read without executing anything that they name."""

from vqjax.tensor_files.archives import open_npz, open_npz_rows
from vqjax.tensor_files.files import DAMAGE, read
from vqjax.tensor_files.names import Record
from vqjax.tensor_files.walk import walk

__all__ = ['DAMAGE', 'Record', 'open_npz', 'open_npz_rows', 'read', 'walk']
