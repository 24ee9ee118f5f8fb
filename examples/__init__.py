"""The demo: simulated galaxies, two small Zoobot models trained on them, and a mosaic."""
