"""Every layer as a pure function of arrays. Read one file at a time; nothing here knows of models or files.

Axis letters: T tokens, D model width, H query heads, K key/value heads, Hd head width, F feed-forward width,
V vocabulary, S keys.
"""
