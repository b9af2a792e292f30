"""Images: read from files, held out, and written into one picture."""

from formers.data.images.grid import write_grid
from formers.data.images.read import Images, Pixels, read_image, read_images
from formers.data.images.split import hold_out

__all__ = ["Images", "Pixels", "hold_out", "read_image", "read_images", "write_grid"]
