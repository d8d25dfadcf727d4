"""How well a model reads labelled images: figures with intervals, thresholds, plots, and a command.

``metrics``, ``calibration`` and ``thresholds`` need numpy alone, and know nothing of images.
"""
