"""A model for others: one web page that writes and scores, or its arrays for other programs."""
