"""What the page's own code asks for; whatever else is refused before gradio sees it.

gradio answers what it cannot read with a fault of its own: status 500 and a traceback on the
console. Here each request has a known address and a known form, and a body is handed on in that
form alone.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

# Inputs of the page's functions, by gradio's number for each: caption_upload, pressed.
INPUTS = {0: 3, 1: 1}
UPLOAD = "/gradio_api/upload"
_CALL = "/gradio_api/call/caption"
_JOIN = "/gradio_api/queue/join"
_CANCEL, _RESET = "/gradio_api/cancel", "/gradio_api/reset"

_NAME = r"[A-Za-z0-9_-]{1,64}"  # of a session, an event or an upload
_READ = re.compile(
    "/|/(config|theme.css|favicon.ico|robots.txt|manifest.json)/?"
    r"|/(assets|static|svelte)/[\w./@+-]+"
    "|/gradio_api/(info|app_id|startup-events|theme.css|queue/data|upload_progress)/?"
    f"|/gradio_api/heartbeat/{_NAME}|{_CALL}/{_NAME}",
    re.ASCII,
)
_WRITTEN = (UPLOAD, _CALL, _JOIN, _CANCEL, _RESET)
_ASKED = {  # allowed in the query string, which gradio reads
    "session_hash": re.compile(_NAME),
    "upload_id": re.compile(_NAME),
    "event_id": re.compile(_NAME),
    "deep_link": None,  # a file that gradio would look for
}
_MAX_QUERY = 4096
_FILE = {"_type": "gradio.FileData"}


class RequestError(Exception):
    """A request that is not answered.

    Attributes:
        status: of the answer, 400 or more.
        reason: for whoever asked, in a sentence.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def check_address(method: str, path: str, query: bytes) -> None:
    """Refuse what the page does not have.

    Raises:
        RequestError: 404, 405 or 400.
    """
    written = path.rstrip("/") in _WRITTEN
    if (not written and not _READ.fullmatch(path)) or ".." in path.split("/"):
        raise RequestError(404, "There is nothing here.")
    if method not in (("POST",) if written else ("GET", "HEAD")):
        raise RequestError(405, "That cannot be done here.")
    if len(query) > _MAX_QUERY:
        raise RequestError(414, "The address is too long.")
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        form = _ASKED.get(name)
        if name in _ASKED and (form is None or not form.fullmatch(value)):
            raise RequestError(400, f"{name} is not of this page.")
    if path.rstrip("/") == "/gradio_api/queue/data" and b"session_hash=" not in query:
        raise RequestError(400, "There is no session_hash.")
    if path.rstrip("/") == "/gradio_api/upload_progress" and b"upload_id=" not in query:
        raise RequestError(400, "There is no upload_id.")


def has_form(path: str) -> bool:
    """Whether what is sent to an address is JSON, for `read_body`."""
    return path.rstrip("/") in _WRITTEN and path.rstrip("/") != UPLOAD


def read_body(path: str, body: bytes, uploads: Path) -> bytes:
    """The known part of what was sent to one of gradio's addresses.

    Uploads that a refused body names are deleted: nothing else would, for minutes.

    Args:
        path: one that `has_form`.
        body: what was sent.
        uploads: the folder of uploads, each in a folder of its own.

    Raises:
        RequestError: 400 for what is no JSON, 422 for what is not of the known form.
    """
    try:
        sent = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RequestError(400, "The request is not JSON.") from None
    if not isinstance(sent, dict):
        raise RequestError(422, "The request is no JSON object.")
    try:
        return json.dumps(_known(path.rstrip("/"), sent, uploads)).encode()
    except RequestError:
        values = sent.get("data")
        for value in values if isinstance(values, list) else ():
            if (upload := upload_of(value, uploads)) is not None:
                shutil.rmtree(upload.parent, ignore_errors=True)
        raise


def _known(path: str, sent: Mapping[str, Any], uploads: Path) -> dict[str, Any]:
    if path == _RESET:
        return {"event_id": _name(sent, "event_id")}
    if path == _CANCEL:
        names = {name: _name(sent, name) for name in ("session_hash", "event_id")}
        return {**names, "fn_index": _function(sent)}
    number = 0 if path == _CALL else _function(sent)
    known: dict[str, Any] = {"data": _data(sent, number, uploads)}
    if path == _JOIN or sent.get("session_hash") is not None:
        known["session_hash"] = _name(sent, "session_hash")
    if path == _JOIN:
        known |= {"fn_index": number, "event_data": _event(sent), "trigger_id": _trigger(sent)}
    return known


def _data(sent: Mapping[str, Any], function: int, uploads: Path) -> list[Any]:
    values = sent.get("data")
    if not isinstance(values, list) or len(values) != INPUTS[function]:
        raise RequestError(422, f"data is no list of {INPUTS[function]}.")
    file, numbers = (values[:1], values[1:]) if function == 0 else ([], values)
    if not all(value is None or _is_number(value) for value in numbers):
        raise RequestError(422, "data holds what is no number.")
    if file and file[0] is not None:
        if upload_of(file[0], uploads) is None:
            raise RequestError(422, "data holds a file that was not uploaded here.")
        file = [{"path": file[0]["path"], "meta": _FILE}]
    return [*file, *numbers]


def upload_of(value: Any, uploads: Path) -> Path | None:
    """The path of an upload that a value names, there or not; None for anything else.

    Args:
        value: what a browser says of a file: a mapping with its `path`.
        uploads: the folder of uploads, each in a folder of its own.
    """
    name = value.get("path") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    try:
        path = Path(name).resolve()
        return path if path.parent.parent == uploads.resolve() else None
    except (OSError, ValueError):  # no name that a file can have
        return None


def _event(sent: Mapping[str, Any]) -> dict[str, Any] | None:
    event = sent.get("event_data")
    if event is None:
        return None
    if not isinstance(event, dict):
        raise RequestError(422, "event_data is no object.")
    return {"number": event["number"]} if _is_number(event.get("number")) else {}


def _trigger(sent: Mapping[str, Any]) -> int | None:
    trigger = sent.get("trigger_id")
    if trigger is not None and (not _is_number(trigger) or trigger != int(trigger)):
        raise RequestError(422, "trigger_id is no whole number.")
    return None if trigger is None else int(trigger)


def _function(sent: Mapping[str, Any]) -> int:
    number = sent.get("fn_index")
    if not _is_number(number) or number not in INPUTS:
        raise RequestError(422, "fn_index is no function of this page.")
    return int(number)


def _name(sent: Mapping[str, Any], key: str) -> str:
    value = sent.get(key)
    if not isinstance(value, str) or not re.fullmatch(_NAME, value):
        raise RequestError(422, f"{key} is not of this page.")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _no_number(text: str) -> float:
    raise ValueError(text)
