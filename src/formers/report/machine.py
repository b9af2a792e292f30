"""The machine that a figure was measured on: a figure without it means nothing."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Machine:
    """Processor, cores that this process may use, memory in bytes, threads of PyTorch, and package versions."""

    processor: str
    cores: int
    memory: int | None
    system: str
    threads: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The machine in plain JSON values."""
        return asdict(self)


def this_machine(packages: Iterable[str] = ()) -> Machine:
    """Describe the machine and process at hand, with the versions of those named packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "formers", *sorted(set(packages))):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return Machine(
        processor=_processor(),
        cores=_cores(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()}",
        threads=torch.get_num_threads(),
        versions=versions,
    )


def _processor() -> str:
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
