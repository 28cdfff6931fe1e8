"""`python -m emunet.daemon DESCRIPTOR` is the control process of a lab; `daemon.start` begins it."""

import gc

from emunet.daemon.start import launch_plane

if __name__ == "__main__":
    gc.disable()  # what is loaded now stays: walking it again and again is a tenth of the time until the lab is ready
    plane = launch_plane()  # it loads while we do

    from emunet.daemon.control import main

    main(*plane)
