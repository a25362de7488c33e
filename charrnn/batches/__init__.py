"""Windows of ids for training and evaluation."""
