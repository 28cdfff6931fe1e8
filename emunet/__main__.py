"""`python -m emunet` is the `emunet` command."""

from emunet.cli.main import main

if __name__ == "__main__":
    main()
