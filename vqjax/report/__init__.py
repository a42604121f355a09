"""What an evaluation found, as files: pages, plots and pictures."""
