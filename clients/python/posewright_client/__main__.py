"""``python -m posewright_client``."""

import sys

from posewright_client._cli import main

sys.exit(main())
