"""The layers once more, fast: C bodies in sixteen lanes, for the instruction set that the processor has.

In q8 mode each function gives the bits of the reference function of its name. `c/` holds the bodies, written once
over a small vocabulary of vector words (`vec_*.h`) and compiled once for each instruction set (`unit_*.c`).
"""
