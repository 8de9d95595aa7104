"""Reports in, the README.md of the model repository out."""
