"""From paths or standard input to ids on disk, split into training and validation text."""
