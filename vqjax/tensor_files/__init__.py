"""Files of tensors that others wrote, read without executing anything that they name."""
