"""Looking inside a model: activations, what units stand for, how far gradients reach."""
