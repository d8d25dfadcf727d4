"""``python -m thoracle``."""

from thoracle.cli import main

main()
