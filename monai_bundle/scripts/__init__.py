"""Training and evaluation of the bundle; nothing here is needed to classify."""
