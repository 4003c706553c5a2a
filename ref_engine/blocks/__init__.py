"""The wiring: layers made of the operations of a backend, written once for all backends and families.

It branches on features (the types and fields of `spec/`), never on names.
"""
