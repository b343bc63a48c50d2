"""Folders that the environment names, or should: the home folder, and that of temporary files."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from radcap.errors import ConfigError, RadcapError

NO_TEMPORARY_FOLDER = (
    "no folder for temporary files can be written (tried: TMPDIR, /tmp, /var/tmp, the current "
    "folder and RADCAP_CACHE); export TMPDIR=FOLDER to one that can"
)
_HOME = "~"


def home_folder() -> Path | None:
    """The user's home folder; None where HOME is not set and the system does not know the user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def with_home(text: str) -> str:
    """A path as a person writes it: `~` at its beginning is the home folder.

    A shell leaves it as it stands in `data.path=~/set`. Where there is a file or folder of the name
    `~`, that one is meant.

    Raises:
        ConfigError: no home folder is known.
    """
    if text.partition("/")[0] != _HOME or Path(_HOME).exists():
        return text
    home = home_folder()
    if home is None:
        raise ConfigError(f"{text}: no home folder is known here; set HOME, or write the path out")
    return f"{home}{text.removeprefix(_HOME)}"


def temporary_folder() -> Path:
    """Where temporary files go: TMPDIR, /tmp, the current folder, else one in RADCAP_CACHE.

    The last one is then taken by packages too, and by the processes that this one starts.

    Raises:
        RadcapError: no such folder can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        pass
    cache = os.environ.get("RADCAP_CACHE")
    if cache:
        folder = Path(with_home(cache)).absolute() / "tmp"
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
                return folder
    raise RadcapError(NO_TEMPORARY_FOLDER)


def lacks_temporary_folder(error: OSError) -> bool:
    """Whether that is what a package says; torch looks for the folder at its import."""
    return isinstance(error, FileNotFoundError) and "No usable temporary" in str(error.strerror)


def own_temporary_folder() -> Path:
    """A folder of this user's alone among the temporary ones, the same each time; made here.

    What others may have put in its place would be read as radcap's.

    Raises:
        RadcapError: there is no folder for temporary files.
        ConfigError: that one is somebody else's.
    """
    folder = temporary_folder() / f"radcap-cache-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    others_write = stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or others_write:
        raise ConfigError(
            f"{folder} is no folder that you alone may write to; RADCAP_CACHE names another one"
        )
    return folder


def settle() -> None:
    """Give the packages in use a home and a user's name where the system knows neither.

    A container may run under a number that stands in no list of users. Without a home, packages
    would write into a folder of the name `~`; without a name, some fail. Likewise where no usual
    folder for temporary files can be written.
    """
    with suppress(RadcapError):  # told by whoever needs one
        temporary_folder()
    if home_folder() is None:
        with suppress(RadcapError, OSError):  # told by whoever needs one
            os.environ["HOME"] = str(own_temporary_folder())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
