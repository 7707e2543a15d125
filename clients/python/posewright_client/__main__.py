"""``python -m posewright_client``: the same as ``posewright-client``."""

import sys

from posewright_client.cli.main import main

sys.exit(main())
