"""Python and the packages, against what radcap was tested with."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from radcap.config.schema import Config
from radcap.diagnosis.check import FAIL, OK, WARN, Check
from radcap.errors import one_line
from radcap.host.requirements import belongs_to, requirements

_OLDEST, _NEWEST = (3, 11), (3, 13)


def python(config: Config) -> Iterator[Check]:
    """The interpreter."""
    found = ".".join(str(number) for number in sys.version_info[:3])
    place = f"{found} in {sys.prefix}"
    if sys.version_info[:2] < _OLDEST:
        yield Check("python", FAIL, place, "radcap needs Python 3.11, 3.12 or 3.13")
    elif sys.version_info[:2] > _NEWEST:
        yield Check("python", WARN, f"{place}, newer than tested", "use Python 3.11, 3.12 or 3.13")
    else:
        yield Check("python", OK, place)


def packages(config: Config) -> Iterator[Check]:
    """What radcap cannot do without, and what its extras bring."""
    needed, extras = requirements()
    wrong = [fault for entry in needed if (fault := unmet(entry))]
    if wrong:
        pins = " ".join(f"'{entry}'" for entry in needed if unmet(entry))
        yield Check("packages", FAIL, "; ".join(wrong), f"pip install {pins}")
    else:
        yield Check("packages", OK, f"all {len(needed)} in the versions that fit together")
    faults = {name: [unmet(entry) for entry in entries] for name, entries in extras.items()}
    there = [name for name, found in faults.items() if not any(found)]
    missing = [name for name, found in faults.items() if any(f and "missing" in f for f in found)]
    found = f"installed: {', '.join(there) or 'none'}"
    if missing:
        found += f"; not: {', '.join(missing)} (pip install 'radcap[{missing[0]}]')"
    yield Check("extras", OK, found)
    for name, entries in extras.items():
        for entry, fault in zip(entries, faults[name], strict=True):
            if fault and name not in missing:
                yield Check(f"extra {name}", WARN, fault, f"pip install '{entry}'")


def torch(config: Config) -> Iterator[Check]:
    """Whether the two largest packages can be loaded at all."""
    start = time.monotonic()
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # a library missing, or of another build
        reason = one_line(error, names_type=False)
        fix = "pip install --force-reinstall torch==2.9.0 torchvision==0.24.0"
        yield Check("torch", FAIL, f"cannot be loaded: {reason}", fix)
        return
    seconds = time.monotonic() - start
    found = f"{torch.__version__} with torchvision {torchvision.__version__}"
    slow = seconds > 20
    fix = "the packages lie on a slow disk: put the environment on a local one" if slow else ""
    yield Check("torch", WARN if slow else OK, f"{found}, loaded in {seconds:.1f} s", fix)


def unmet(requirement: Requirement) -> str | None:
    """What is wrong with a requirement, in words; None where it is met.

    The extras that it names are looked at too, as libtpu of torch_xla[tpu].
    """
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}, not {requirement.specifier}"
    for extra in requirement.extras:
        for text in metadata.requires(requirement.name) or ():
            nested = Requirement(text)
            if belongs_to(nested, extra) and (fault := unmet(nested)):
                return fault
    return None
