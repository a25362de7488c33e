"""What is kept on disk: atomic writes, the model file, run directories, the bundled model."""
