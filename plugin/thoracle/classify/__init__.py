"""Stage 4: the MONAI bundle. torch and MONAI are imported here and nowhere else."""
