"""Start the tool: `python -m gpu_setup`, or by the launcher as a file, with nothing but the environment on sys.path."""

import os
import sys

if not __package__:
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gpu_setup.entry import main

# worker processes (multiprocessing) import this file too
if __name__ == "__main__":
    main()
