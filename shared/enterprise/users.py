"""Who runs an operator, which FiftyOne Enterprise knows and the open-source App does not."""

import getpass
from typing import Any


def name(ctx: Any) -> str | None:
    """The name under which a run, a version or a correction is noted.

    Args:
        ctx: FiftyOne's execution context, whose `user` Enterprise gives an `email`, a `name`, a `role` and an `id`

    Returns:
        the e-mail address, else the name, else the id; without Enterprise the account of this process, if it has one
    """
    user = getattr(ctx, "user", None)
    named = getattr(user, "email", None) or getattr(user, "name", None) or getattr(ctx, "user_id", None)
    return str(named) if named else _account()


def _account() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without a name
        return None
