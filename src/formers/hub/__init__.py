"""Published checkpoints: folders in Hugging Face's format, read and written by one table for each family."""

from formers.hub.published import FORMATS, config_from_spec, spec_from_config
from formers.hub.read import Imported, hold, import_folder, load
from formers.hub.write import export

__all__ = ["FORMATS", "Imported", "config_from_spec", "export", "hold", "import_folder", "load", "spec_from_config"]
