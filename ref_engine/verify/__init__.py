"""Conformance: golden packs held against a backend of ours, a program that writes logits, or a running server.

golden.py   the folder of golden data, every file held to the manifest's hash
case.py     a case, what it found, and how arrays are judged
models.py   the small models of golden data, rebuilt from their specifications
engines/    who is asked for logits
packs/      the cases, a file for each kind of golden data
run.py      choosing and running cases
junit.py    the report as JUnit XML
"""
