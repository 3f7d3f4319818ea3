"""Modules:

- `vehicle_reid.all`: Everything at once, in fastai's habit. Written by hand: nbdev generates the modules, not this list."""

__version__ = "0.0.1"
