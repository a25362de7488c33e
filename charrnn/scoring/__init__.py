"""How probable a text is under a model.

Log-probabilities are natural (nats) and float64; names say the base where it is another. Sums and
counts travel; division happens once, at the end.
"""
