"""What a repository of the Hub holds: its commit, and of each file the size and hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from radcap.data.faults import DataError
from radcap.data.hub.addresses import endpoint
from radcap.data.hub.answers import MOST_FILE_BYTES
from radcap.data.hub.digest import Digest
from radcap.data.hub.download import Hub
from radcap.files.names import (
    fault_in_path,
    fault_in_repository,
    fault_in_revision,
    is_commit,
    shown,
)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at one commit.

    Attributes:
        url: where its bytes are.
        size: in bytes; None where the Hub states none.
        digest: its hash; None where the Hub states none.
    """

    url: str
    size: int | None
    digest: Digest | None


@dataclass(frozen=True)
class Repository:
    """What the Hub lists of a repository. Nothing of it is to be trusted before it is looked at.

    Attributes:
        hub: where it is.
        commit: that of the revision.
        listed: name -> what the Hub says of the file.
    """

    hub: Hub
    commit: str
    listed: Mapping[str, Mapping[str, Any]]

    def files(self, names: Sequence[str]) -> list[RemoteFile]:
        """What is known of some of its files.

        Raises:
            DataError: one of the names leads elsewhere, or a size is none.
        """
        return [self._file(name) for name in names]

    def _file(self, name: str) -> RemoteFile:
        from huggingface_hub import hf_hub_url

        where = f"{self.hub.kind} {self.hub.hub_id}"
        if fault := fault_in_path(name):
            raise DataError(f"{where} lists a file {shown(name)}: {fault}")
        entry = self.listed[name]
        # A large file has the hash of its content; its blobId is that of a pointer to it.
        large = entry.get("lfs")
        size = large.get("size") if isinstance(large, dict) else entry.get("size")
        value = large.get("sha256") if isinstance(large, dict) else entry.get("blobId")
        if size is not None and not (type(size) is int and 0 <= size <= MOST_FILE_BYTES):
            raise DataError(
                f"{where} lists {shown(name)} with size {shown(size)}, not a number of bytes up to "
                f"{MOST_FILE_BYTES:,}"
            )
        digest = Digest.read(value)
        if value is not None and digest is None:
            raise DataError(f"{where} lists {shown(name)} with hash {shown(value)}, which is none")
        url = hf_hub_url(self.hub.hub_id, name, repo_type=self.hub.kind, revision=self.commit)
        return RemoteFile(url, size, digest)


def list_repository(hub: Hub, revision: str | None) -> Repository:
    """The commit of a revision, and its files.

    Args:
        hub: the repository. HF_ENDPOINT and HF_TOKEN are respected.
        revision: branch, tag or commit; None: the newest.

    Raises:
        RadcapError: the Hub's faults, or a listing that is none.
    """
    if fault := fault_in_repository(hub.hub_id):
        raise DataError(f"{hub.kind} {shown(hub.hub_id)}: {fault}")
    if revision is not None and (fault := fault_in_revision(revision)):
        raise DataError(f"revision {shown(revision)} of {hub.kind} {hub.hub_id}: {fault}")
    url = f"{endpoint()}/api/{hub.kind}s/{hub.hub_id}"
    url += "" if revision is None else f"/revision/{quote(revision, safe='')}"
    answer = hub.ask_json(f"{url}?blobs=true")
    found = _read_listing(hub, url, answer)
    if is_commit(revision) and found.commit != revision:
        raise DataError(f"{url} answers with another commit, {found.commit}")
    return found


def _read_listing(hub: Hub, url: str, answer: Any) -> Repository:
    if not isinstance(answer, dict):
        raise DataError(f"{url} answers with a {type(answer).__name__}, not with a listing")
    commit, entries = answer.get("sha"), answer.get("siblings")
    if not is_commit(commit):
        raise DataError(f"{url} names the commit {shown(commit)}, not 40 hexadecimal digits")
    if not isinstance(entries, list):
        raise DataError(f"{url} answers with siblings {shown(entries)}, not with a list of files")
    listed: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        name = entry.get("rfilename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{url} lists a file without a name: {shown(entry)}")
        listed[name] = entry
    return Repository(hub, str(commit), dict(sorted(listed.items())))
