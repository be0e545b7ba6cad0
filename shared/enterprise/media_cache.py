"""FiftyOne Enterprise's media cache, which reads every cloud that an admin gave FiftyOne credentials for.

Its `fo.media_cache` is what `sample.local_path`, `get_local_paths()` and `download_context()` go through: it has the
credentials, a bound and a clean-up of its own. It is used file by file from our reading threads, because
`download_context()` fetches ahead only for a loop over sample objects.
"""

import sys
from collections.abc import Callable
from functools import partial

from ..errors import ImageError, StorageError


def fetcher() -> Callable[[str], str] | None:
    """A function from a URI to the path of its cached copy, or None without Enterprise.

    The function raises an ImageError where there is no such file, and a StorageError where the cloud fails. FiftyOne
    is not imported for this: where it is not there already, nobody is in FiftyOne.
    """
    cache = getattr(sys.modules.get("fiftyone"), "media_cache", None)
    local_path = getattr(cache, "get_local_path", None)
    return partial(_fetch, local_path) if local_path else None


def _fetch(local_path: Callable[..., str], uri: str) -> str:
    try:
        # Without `skip_failures=False` a failed download is a path to nothing.
        return local_path(uri, skip_failures=False)
    except Exception as error:
        # Each cloud's client has errors of its own; what they share is how "not found" looks.
        if _says_missing(error):
            raise ImageError(f"There is no file at {uri}.") from error
        message = (
            f"FiftyOne could not fetch {uri} ({type(error).__name__}): check its cloud credentials and the network."
        )
        raise StorageError(message) from error


def _says_missing(error: BaseException | None) -> bool:
    """Whether an error of any cloud's client, or one that it was raised from, is "not found"."""
    while error is not None:
        answer = getattr(error, "response", None)
        said = [getattr(error, name, None) for name in ("code", "status", "status_code")]
        said.append(answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None)
        said.append(getattr(answer, "status_code", None))
        if isinstance(error, FileNotFoundError) or any(code in said for code in (404, "404", "NoSuchKey")):
            return True
        error = error.__cause__ or error.__context__
    return False
