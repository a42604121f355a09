"""The numbers of a tokenizer: what each means, how it is computed, what was found."""
