"""posewright-serve: sets what libraries read when they are imported, then runs `service.cli`."""

from __future__ import annotations

import os
import sys

LIBRARY_ENVIRONMENT = {
    # OpenCV's idle threads then sleep at once; spinning, they take more CPU than all else around a call.
    "OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER": "0",
}
"""Environment variables of libraries, with defaults of ours; a value that is set already is kept."""


def main() -> int:
    """Serve until interrupted; the program's entry point."""
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from service import cli  # noqa: PLC0415 - it imports the libraries

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
