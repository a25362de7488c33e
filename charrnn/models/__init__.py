"""The networks that torch trains."""
