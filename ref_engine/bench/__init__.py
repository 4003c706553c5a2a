"""How fast: the same work by this engine and by others, in turn, each in a process of its own.

works.py    what is done: prefill, decode, several sequences, load and first token
ours.py     a process that does one of them with this engine
llama.py    the same with llama.cpp's API; it imports nothing of this package, for it may run in another environment
turns.py    A B A B, medians and their spread
profile.py  time, bytes and multiply-adds of each operation, and the machine's ceilings beside them
"""
