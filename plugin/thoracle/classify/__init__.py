"""Stage 4: the MONAI bundle. torch and MONAI are imported here and nowhere else."""

import os

# OpenMP reads this when torch is loaded. Threads that spin while they wait for the next layer
# take the processor from the listener: actively waiting ones doubled the CPU time of a study.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
