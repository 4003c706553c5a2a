"""`python -m ref_engine` is the command `ref-engine`."""

from ref_engine.cli import main

if __name__ == "__main__":
    main(prog_name="ref-engine")
