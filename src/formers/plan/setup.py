"""What somebody wants to run, and on what."""

from dataclasses import dataclass
from typing import Any

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.plan.device import Device
from formers.spec import Site, check
from formers.train import TrainSpec

FILLED = 0.9  # of a device's memory that may be planned: the rest is for its context, and gaps between tensors


@dataclass(frozen=True)
class Setup:
    """A model, and devices of one kind.

    memory: bytes of each device. utilisation: the share of a device's peak that products of matrices reach.
    """

    spec: Any
    devices: int
    device: Device
    memory: int
    utilisation: float

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ConfigError(f"nothing runs on {self.devices} devices; give --devices 1, or more")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--utilisation {self.utilisation:g} is a share of the peak, above 0 and up to 1")
        for name, value in (*self.device.speed.items(), ("memory", self.device.bandwidth), ("link", self.device.link)):
            if value <= 0:
                raise ConfigError(f"a device whose {name} moves at {value:g} never ends; give speeds above 0")
        side = self.spec.target if isinstance(self.spec, EncoderDecoder) else self.spec
        check(self.spec, side.site, self.spec.name)

    @property
    def usable(self) -> int:
        """Bytes of each device that may be planned."""
        return int(FILLED * self.memory)

    def speed(self, precision: str) -> float:
        """Operations a second that one device is taken to reach."""
        return self.utilisation * self.device.speed[precision]

    def require_length(self, length: int) -> None:
        """Raise ConfigError for rows that the model cannot read."""
        sides = (self.spec.source, self.spec.target) if isinstance(self.spec, EncoderDecoder) else (self.spec,)
        longest = min((side.max_length for side in sides if side.max_length is not None), default=None)
        if length < 1:
            raise ConfigError(f"rows of {length} tokens hold nothing; give --length 1, or more")
        if longest is not None and length > longest:
            raise ConfigError(
                f"{self.spec.name} has {longest} positions, too few for rows of {length} tokens; give --length {longest}"
            )

    def require_rows(self, training: TrainSpec) -> None:
        """Raise ConfigError for a batch that devices cannot share out equally."""
        check(training, Site(dim=0), "train")
        share = self.devices * training.accumulation
        if training.batch % share:
            pieces = f" in {training.accumulation} pieces each" if training.accumulation > 1 else ""
            mend = -(-training.batch // share) * share
            raise ConfigError(
                f"a batch of {training.batch} rows does not split equally over {self.devices} devices{pieces}; "
                f"give --batch {mend}"
            )
