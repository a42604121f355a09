"""One file per published system; its docstring names the paper, the numbers and the command."""
