"""What a device can do at its peak, by name, and how memory is written."""

import re
from typing import NamedTuple

from formers.errors import ConfigError

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class Device(NamedTuple):
    """speed: operations a second in products of matrices, by precision; memory: bytes, None: unknown; bandwidth: bytes a
    second between it and its memory; link: bytes a second that it sends to other devices."""

    name: str
    speed: dict[str, float]
    memory: int | None
    bandwidth: float
    link: float


# Published peaks without sparsity, of the modules for servers (SXM). NVLink is told for both directions together: half
# of it sends. fp32 is without TF32, as PyTorch computes by default.
# A100: NVIDIA A100 Tensor Core GPU datasheet, 2021. H100 and H200: NVIDIA H100 and H200 Tensor Core GPU datasheets, 2024.
# For a CPU nothing is published that would hold for all: a few cores with AVX2, two channels of memory, 10-gigabit Ethernet.
DEVICES = {
    "cpu": Device("cpu", {"fp32": 0.2e12, "bf16": 0.2e12}, None, 40e9, 1.25e9),
    "a100": Device("a100", {"fp32": 19.5e12, "bf16": 312e12}, 80 * 10**9, 2.039e12, 300e9),
    "h100": Device("h100", {"fp32": 67e12, "bf16": 989.5e12}, 80 * 10**9, 3.35e12, 450e9),
    "h200": Device("h200", {"fp32": 67e12, "bf16": 989.5e12}, 141 * 10**9, 4.8e12, 450e9),
}


def bytes_of(text: str) -> int:
    """The bytes that 80GB or 75.5GiB are. Raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    units = {name.lower(): size for name, size in UNITS.items()}
    if found is None or not float(found[1]):
        raise ConfigError(f"{text!r} is no amount of memory; write one such as 80GB or 75GiB")
    if found[2].lower() not in units:
        told = f"has the unit {found[2]!r}" if found[2] else "has no unit"
        raise ConfigError(f"memory of {text!r} {told}; write one such as {found[1]}GB or {found[1]}GiB")
    return round(float(found[1]) * units[found[2].lower()])
