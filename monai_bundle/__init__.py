"""The MONAI bundle shipped with Thoracle; a package, so that wheels and editable ones carry it."""
