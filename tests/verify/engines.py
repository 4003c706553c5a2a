"""Engines for the tests of `verify`, run as commands: python engines.py HOW MODEL TOKENS OUT

good    the readable engine                npy     the same as .npy
wrong   one token's logits shifted         swapped columns in another order
short   the last row is missing            nan     one logit is NaN
crash   ends with status 3                 kill    ends itself with a signal
hang    never ends                         silent  writes nothing
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import ref_engine


def main(how: str, model: str, tokens: str, out: str) -> None:
    if how == "crash":
        print("loading...\ncannot allocate 12 GB", file=sys.stderr)
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(600)
    if how == "silent":
        return
    text = Path(tokens).read_bytes()
    if how == "text":
        ids = [int(line) for line in text.decode().split()]
    else:
        ids = np.frombuffer(text, "<i4").tolist()
    logits = ref_engine.load(model, backend="numpy", activations="f32").logits(ids)
    if how == "wrong":
        logits[5] = np.roll(logits[5], 1)
    if how == "swapped":
        logits = logits[:, ::-1].copy()
    if how == "short":
        logits = logits[:-1]
    if how == "nan":
        logits[3, 4] = np.nan
    if how == "npy":
        with open(out, "wb") as file:
            np.save(file, logits)
    else:
        logits.astype("<f4").tofile(out)


if __name__ == "__main__":
    main(*sys.argv[1:5])
