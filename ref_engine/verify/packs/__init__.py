"""The cases, a module for each kind of golden data."""
