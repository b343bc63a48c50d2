"""`python -m radcap.demo`: a page in the browser that captions the picture dropped on it."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import suppress

from radcap.errors import EXIT_DONE, ConfigError, RadcapError
from radcap.host.console import Arguments, heartbeat, printable, run_command, say
from radcap.host.network import without_faulty_network
from radcap.serving.note import DRAWINGS_ONLY, NOT_FOR_DIAGNOSIS
from radcap.serving.precision import add_arithmetic, check_precision

USAGE = """
usage: python -m radcap.demo WEIGHTS [--host NAME] [--port N] [--device NAME] [--precision NAME]

Serve a page: drop or paste a picture or a DICOM file, read the caption, the other captions found
and their probabilities, see the picture as the model sees it and, word by word, where the decoder
looked. Needs pip install 'radcap[demo]' (and 'radcap[dicom]' for DICOM files). Not for diagnosis.

Uploads, of 100 MB and 50 million pixels at most, are deleted as soon as they are read, no name and
nothing of a DICOM header is shown or logged, and neither the page nor this command calls anybody
else. Ctrl-C ends it.

WEIGHTS   a run folder (its best checkpoint), a checkpoint, an exported folder, a weights file
          (.safetensors .bin .pt .pth), or a Hub id: owner/name or owner/name@revision

options:
  --host NAME         address to listen at (default 127.0.0.1: this machine alone; 0.0.0.0: every
                      machine that can reach this one, without a password)
  --port N            port to listen at (default 7860; 0: any that is free)
  --device NAME       auto (default), cpu, cuda, tpu or xla_cpu
  --precision NAME    fp32 (default), or bf16: faster, other words now and then
  -h, --help          print this and stop

exit status:
  0 ended by Ctrl-C, SIGTERM or SIGHUP   1 failed   2 wrong arguments

examples:
  python -m radcap.demo runs/default
  python -m radcap.demo owner/name --port 8080 --precision bf16
"""

_LAST_PORT = 65_535
INSTALL = "pip install 'radcap[demo]'"


def main(words: Sequence[str]) -> int:
    """Check the words, take the port, load the weights, serve.

    Returns:
        The exit status.
    """
    options = read_options(words)
    if importlib.util.find_spec("gradio") is None:
        raise RadcapError(f"the page needs gradio, which is not installed: {INSTALL}")

    from radcap.demo_app.server import ended_by_signals

    with ended_by_signals(), suppress(KeyboardInterrupt):
        _serve(options)
    say("ended; no upload is kept")
    return EXIT_DONE


def _serve(options: argparse.Namespace) -> None:
    from radcap.demo_app.server import address_of, is_loopback, listen, serve
    from radcap.demo_app.uploads import private_uploads

    with listen(options.host, options.port) as listener, private_uploads() as uploads:
        with without_faulty_network():  # the page itself needs no network
            from radcap.demo_app.blocks import make_page
        from radcap.serving.captioner import Captioner

        with heartbeat("loading the weights"):
            captioner = Captioner.from_pretrained(
                options.weights, device=options.device, precision=options.precision
            )
        say(f"weights: {printable(captioner.pretrained.origin)}")
        page = make_page(captioner, uploads)
        if not is_loopback(listener):
            say(f"open to every machine that can reach {options.host}, without a password")
        say(f"{NOT_FOR_DIAGNOSIS}: captions of a research model")
        if captioner.pretrained.knows_drawings_only:
            say(DRAWINGS_ONLY)
        say(f"page:    {address_of(listener)} (Ctrl-C ends it)")
        serve(page, listener, uploads)


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: naming the argument.
    """
    parser = Arguments()
    parser.add_argument("weights")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    add_arithmetic(parser)
    options = parser.parse_intermixed_args(list(words))
    if not 0 <= options.port <= _LAST_PORT:
        raise ConfigError(f"--port {options.port}: from 0 to {_LAST_PORT}")
    check_precision(options.precision)
    return options


if __name__ == "__main__":
    sys.exit(run_command(main, USAGE))
