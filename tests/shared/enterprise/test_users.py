"""Under which name a run is noted: FiftyOne Enterprise's user, else the account of the process."""

import getpass

import fiftyone.operators as foo
import pytest

from shared.enterprise import users


class User:
    """A user as Enterprise's execution context has one; `user_id` of the real context reads `id`."""

    def __init__(self, **known: str) -> None:
        self.id, self.email, self.name, self.role = "64f0", None, None, "MEMBER"
        vars(self).update(known)


def context(user: User | None) -> foo.ExecutionContext:
    ctx = foo.ExecutionContext({})
    ctx.user = user
    return ctx


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (User(email="ann@example.org", name="Ann"), "ann@example.org"),
        (User(name="Ann"), "Ann"),
        (User(), "64f0"),
    ],
)
def test_enterprise_names_the_user(user, name):
    assert users.name(context(user)) == name


def test_without_enterprise_it_is_the_account(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann")
    assert users.name(context(None)) == "ann"


def test_a_container_whose_user_has_no_name(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert users.name(context(None)) is None
