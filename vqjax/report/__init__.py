"""What an evaluation found, as files to look at; `report` writes them all."""
