"""The page of radcap.demo with the weights beside this file. Not for diagnosis.

    pip install -r requirements.txt
    python app.py

A Space of Hugging Face runs it like this too. There it listens to everybody, and anywhere else to
this machine alone.
"""

import os
import sys
from pathlib import Path

from radcap.demo import USAGE, main
from radcap.host.console import run_command

os.chdir(Path(__file__).resolve().parent)  # the page names the weights as they are named here
host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
sys.argv[1:1] = ["weights", "--host", host]
sys.exit(run_command(main, USAGE))
