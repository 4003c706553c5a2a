"""The places that models are pulled from, one file each."""
