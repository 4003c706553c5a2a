"""The layers on an NVIDIA GPU, by CuPy: the reference functions over its arrays, kernels for what needs them."""
