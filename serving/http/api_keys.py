"""API keys: a file of hashes, read again when it changes."""

import hashlib
import hmac
import logging
import re
import secrets
import time
from pathlib import Path

logger = logging.getLogger("sightread.api_keys")

LINE = re.compile(r"(?P<name>[\w.@-]{1,64}):(?P<hash>[0-9a-f]{64})")
LOOK_SECONDS = 1.0


class ApiKeysError(Exception):
    """The file of keys cannot be used; the text says what to do."""


class ApiKeys:
    """The keys that open the service, by the names of those who hold them.

    The file has a line `name:sha256` for each key, the SHA-256 of the key in hexadecimal; several keys may have one
    name, so that a new one can be handed out before the old one is taken back. The keys are random and long, so a
    plain hash gives nothing away. A file that changes is read again; one that has become unreadable changes nothing.

    Args:
        path: of the file.

    Raises:
        ApiKeysError: it cannot be read, or a line is not a key's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = self._read()
        self._stamp = self._look()
        self._next_look = 0.0

    def holder(self, key: str) -> str | None:
        """The name that goes with a key, or None. Takes the same time for every wrong key."""
        self._reload()
        presented = _hash(key)
        found = None
        for name, known in self._keys:
            if hmac.compare_digest(known, presented):
                found = name
        return found

    def _reload(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except ApiKeysError as error:
            logger.error("%s; the keys that were read before stay valid", error)  # noqa: TRY400  # it says it all
        else:
            logger.info("%d API keys read", len(self._keys))

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> list[tuple[str, str]]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiKeysError(f"the API keys in {self._path} cannot be read ({error})") from error
        keys = []
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = LINE.fullmatch(line.strip())
            if match is None:
                raise ApiKeysError(
                    f"line {number} of {self._path} is not `name:sha256`: `sightread key NAME` makes such a line"
                )
            keys.append((match["name"], match["hash"]))
        if not keys:
            raise ApiKeysError(f"{self._path} holds no API key: `sightread key NAME` makes one")
        return keys


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def main(arguments: list[str]) -> int:
    """`sightread key NAME`: a new key, and the line of it that goes into the file."""
    import argparse  # noqa: PLC0415  # only this command needs it
    import sys  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="sightread key",
        description="Make an API key. The key goes to its holder and is shown only here; the line with its hash goes "
        "into the file that SIGHTREAD_API_KEYS_FILE names.",
    )
    parser.add_argument("name", help="who will hold it: letters, digits and . @ _ -")
    try:
        name = parser.parse_args(arguments).name
    except SystemExit as asked:
        return int(asked.code or 0)
    key = f"sr_{secrets.token_urlsafe(32)}"
    line = f"{name}:{_hash(key)}"
    if LINE.fullmatch(line) is None:
        print(f"sightread key: {name!r} is not a name: letters, digits and . @ _ -", file=sys.stderr)  # noqa: T201
        return 2
    print(f"for its holder:\n{key}\n\nfor the file:\n{line}")  # noqa: T201
    return 0
