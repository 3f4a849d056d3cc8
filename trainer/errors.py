"""What can go wrong before training starts.

TrainerError
├── DataError        a file, column, data set or pair list is not what was asked for
├── ConfigError      a setting or recipe cannot work
├── CheckpointError  a checkpoint or release file cannot be read
└── ExpectationError a finished run missed the range its recipe promised
"""


class TrainerError(Exception):
    """Base of all. The message is meant for the person at the terminal."""


class DataError(TrainerError):
    """A file, column, data set or pair list is not what was asked for."""


class ConfigError(TrainerError):
    """A setting or recipe cannot work."""


class CheckpointError(TrainerError):
    """A checkpoint or release file cannot be read."""


class ExpectationError(TrainerError):
    """A finished run missed the range its recipe promised."""
