"""Who may connect to a unix socket: the mode and the owner of its file.

On Linux whoever may write to the file may connect. There is no moment at which more may than was asked for: the file is made for
its owner alone, then given away, then opened to others.
"""

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pars.address import UNIX
from sidecar.errors import AddressError, SettingsError

DEFAULT_MODE = "0600"
"""The user of the sidecar alone, which is vLLM's where both run side by side, and what the usual umask of 022 amounts to."""

MAX_ID = 2**32 - 2
"""Of users and groups; the next one is the system call's "leave it"."""

_MODE = re.compile(r"0?[0-7]{3}")


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """mode: permission bits. user_id, group_id: -1 leaves them as the process has them."""

    mode: int = int(DEFAULT_MODE, 8)
    user_id: int = -1
    group_id: int = -1

    @classmethod
    def parse(cls, mode: str, owner: str) -> "SocketAccess":
        """From octal text, and `user:group`, `user`, `:group` or nothing, as names or numbers. Raises SettingsError."""
        if not _MODE.fullmatch(mode):
            raise SettingsError(f"socket_mode is {mode!r}, three octal digits are wanted, as in 0600 or 0660")
        user, _, group = owner.partition(":")
        try:
            user_id = _number(user) if user.isdecimal() or not user else pwd.getpwnam(user).pw_uid
            group_id = _number(group) if group.isdecimal() or not group else grp.getgrnam(group).gr_gid
        except (KeyError, ValueError) as error:
            raise SettingsError(f"socket_owner is {owner!r}: {error.args[0]}") from error
        return cls(int(mode, 8), user_id, group_id)

    @contextlib.contextmanager
    def applied(self, address: str) -> Iterator[None]:
        """Bind inside. Does nothing for TCP. Raises AddressError when the socket cannot be given away."""
        if not address.startswith(UNIX):
            yield
            return
        path = address.removeprefix(UNIX)
        # The umask is the whole process's: files that other threads make in these microseconds get narrower, never wider.
        umask = os.umask(0o777 & ~(self.mode & 0o700))
        try:
            yield
        finally:
            os.umask(umask)
        try:
            os.chown(path, self.user_id, self.group_id, follow_symlinks=False)
            os.chmod(path, self.mode)  # noqa: PTH101 - beside chown, which pathlib lacks
        except OSError as error:
            os.unlink(path)  # noqa: PTH108 - as above
            raise AddressError(f"{address}: cannot set socket_mode and socket_owner: {error.strerror}") from error


def _number(text: str) -> int:
    number = int(text) if text else -1
    if number > MAX_ID:
        raise ValueError(f"{number} is no id of a user or group")
    return number
