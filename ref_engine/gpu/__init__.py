"""The layers on an NVIDIA GPU, through CuPy: the reference functions over its arrays, and kernels for what needs them."""
