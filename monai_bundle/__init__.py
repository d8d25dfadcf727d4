"""The MONAI bundle shipped with Thoracle; this file makes it a package so that wheels and editable installs carry it."""
