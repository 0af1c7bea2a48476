"""Authentication: the user of a request, passed to the view as the immutable value `user`."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flask import Request, request
from sqlalchemy import inspect

from ..database.commit_guard import end_read

User = TypeVar("User")


class Authentication(Generic[User]):
    """An authentication scheme: `operation(auth=bearer)`.

    `identify` returns the user of a request, or raises `Problem(401, …, headers={"WWW-Authenticate": …})`.
    The user is a value such as a frozen dataclass, never a row, because the transaction of `identify` ends
    before the view runs. `scheme` is a security scheme of OpenAPI 3.1, and `name` its name in the document.
    `identity` returns a stable part of the user, such as the id, because an Idempotency-Key belongs to one
    user.
    """

    def __init__(
        self,
        identify: Callable[[Request], User],
        *,
        name: str,
        scheme: dict[str, Any],
        identity: Callable[[User], str] | None = None,
    ) -> None:
        self.identify, self.name, self.scheme, self.identity = identify, name, scheme, identity

    def user(self) -> User:
        """Return the user of the request. Raises `TypeError` if it is a database row."""
        user = self.identify(request)
        if inspect(user, raiseerr=False) is not None:
            raise TypeError(
                f"{self.name} returns a row, {user!r}: return a value, such as a frozen dataclass"
            )
        end_read()
        return user
