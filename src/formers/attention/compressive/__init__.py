"""Compressive memory, its compressions and the losses that train them."""
