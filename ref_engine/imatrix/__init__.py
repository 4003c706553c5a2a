"""Importance matrices: which inputs of each matrix matter, measured on a text; see `matrix.py`."""

from ref_engine.imatrix.matrix import Entry, ImportanceMatrix
from ref_engine.imatrix.read import read_imatrix
from ref_engine.imatrix.write import write_imatrix

__all__ = ["Entry", "ImportanceMatrix", "read_imatrix", "write_imatrix"]
