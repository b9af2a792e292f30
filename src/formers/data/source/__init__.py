"""Sources of text: files and folders, the standard library, parallel lines, and what is held out of each."""

from formers.data.source.beginning import Beginning
from formers.data.source.files import Documents, documents
from formers.data.source.library import standard_library
from formers.data.source.parallel import pairs
from formers.data.source.sentences import Sentences, sentences
from formers.data.source.split import is_held_out, split, split_text

__all__ = [
    "Beginning",
    "Documents",
    "Sentences",
    "documents",
    "is_held_out",
    "pairs",
    "sentences",
    "split",
    "split_text",
    "standard_library",
]
