"""The errors that a user can cause: each message says what is wrong and how to mend it, and needs no traceback."""


class FormersError(ValueError):
    """Something in what the user gave; the command line prints it and exits non-zero."""


class ConfigError(FormersError):
    """A spec that cannot be built, or a setting that does not fit it."""


class DataError(FormersError):
    """Data that cannot be read, or that does not hold what was promised."""


class CheckpointError(FormersError):
    """A checkpoint that is missing, damaged, or of another model."""


class NoRuleError(FormersError):
    """A part that a faster way of decoding does not know; its text names the part."""
