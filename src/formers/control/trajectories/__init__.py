"""Recorded trajectories: what was seen, done and earned, episode by episode, and who did it."""

from formers.control.trajectories.policies import Noisy, Policy, Random, mixed_skill
from formers.control.trajectories.record import record
from formers.control.trajectories.store import Trajectories, open_trajectories, write_trajectories

__all__ = [
    "Noisy",
    "Policy",
    "Random",
    "Trajectories",
    "mixed_skill",
    "open_trajectories",
    "record",
    "write_trajectories",
]
