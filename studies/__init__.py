"""What published ideas do on real images: `python -m studies.run NAME`, see README.md."""
