"""Tensors from bytes: what each byte of a quantised block means, and how activations are rounded to 8 bits."""
