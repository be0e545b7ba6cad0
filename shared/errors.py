"""The suite's errors: each message is one sentence for a scientist, and says what to do.

Everything that can go wrong because of input, storage or the surroundings is one of these; any
other exception is a bug of ours and keeps its traceback.
"""


class SuiteError(Exception):
    """Base of the errors whose message is meant for the person who started the run."""

    # Shown by FiftyOne as "mbari.InputError: ...", whichever zip the class was loaded from.
    __module__ = "mbari"


class InputError(SuiteError):
    """A parameter, a view, a label or a file that the person chose cannot be used."""

    __module__ = "mbari"


class WeightsError(SuiteError):
    """Model weights that are missing, damaged, of the wrong kind, or not to be trusted."""

    __module__ = "mbari"


class StorageError(SuiteError):
    """The artifact root, the media or the scratch disk could not be read, written or trusted."""

    __module__ = "mbari"


class AccessError(StorageError):
    """Storage refuses the credentials, or does not let them do this: trying again by itself changes nothing."""

    __module__ = "mbari"


class ReadOnlyError(AccessError):
    """Storage that can be read from here, and may not be written."""

    __module__ = "mbari"


class ImageError(SuiteError):
    """One image that cannot be read; a run skips it, counts it and goes on."""

    __module__ = "mbari"
