"""`python -m emunet.daemon DESCRIPTOR` is the control process of a lab; `daemon.start` begins it."""

from emunet.daemon.control import main

if __name__ == "__main__":
    main()
