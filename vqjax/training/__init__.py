"""A config made concrete, and one optimizer step of it."""
