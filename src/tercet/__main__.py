"""`python -m tercet`: the command line, for launchers that start a module."""

from tercet.cli import main

if __name__ == "__main__":
    main()
