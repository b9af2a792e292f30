"""What identifies a file."""

import hashlib
from pathlib import Path


def digest_of_file(path: Path) -> str:
    """The SHA-256 of what is in a file. Raises OSError."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
