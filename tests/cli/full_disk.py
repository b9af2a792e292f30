"""The command line on a full disk: no file may grow beyond a size.

Usage: python full_disk.py BYTES WORDS... A program of its own, since the limit counts for all that a process writes, and
so for what pytest writes about its tests.
"""

import resource
import sys

from formers.cli import main

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a module's, cut short by the limit, would stay behind for others to load
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    sys.exit(main(sys.argv[2:]))
