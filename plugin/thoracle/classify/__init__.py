"""Stage 4: the MONAI bundle. torch, MONAI and OpenVINO are imported here and nowhere else."""

import os
import sys

# OpenMP reads this when torch is loaded. Threads that spin while they wait for the next layer
# take the processor from the listener: actively waiting ones doubled the CPU time of a study.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Importing openvino, and each conversion, is reported to Google Analytics with an identifier kept
# in the home folder, unasked, when this package that its wheel depends on can be imported. None
# makes the import fail, and openvino then takes a stub of its own: nothing is ever sent.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None is Python's own way
