"""Events and reports turned into what people look at; no files, no tensors."""
