"""The figures of a preflight as lines for people, wrapped at 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from radcap.aot.chips import GIB
from radcap.training.log.clock import rate_text

_COMPARED = (
    ("fits", "fits"),
    ("batch_size", "batch"),
    ("flops_per_image", "FLOP an image"),
    ("bytes_per_image", "bytes an image"),
    ("needed", "bytes of memory a device"),
    ("all-reduce", "all-reduces"),
    ("all-gather", "all-gathers"),
    ("floor_ms", "floor of a step, ms"),
    ("estimated_ms", "compiler's estimate, ms"),
    ("images_per_s", "images/s at the floor"),
)


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The whole report."""
    chips, devices = report["chips"], report["devices"]
    yield (
        f"{report['graph']} on {report['topology']}: {chips} chips, {devices} devices, "
        f"{report['precision']}"
    )
    batches = report["batches"]
    if len(batches) > 1:
        yield from _table(report)
    yield ""
    yield from _batch(report)
    yield from _buffers(report)
    yield from _operations(report)


def _batch(report: Mapping[str, Any]) -> Iterator[str]:
    memory = report["memory"]
    size = f"batch {report['batch_size']}, {report['rows_per_device']} rows a device"
    if not report["fits"]:
        yield f"{size}: DOES NOT FIT"
        needed = memory["needed"]
        if needed is not None:
            of = memory.get("usable", memory["capacity"])
            yield f"  needs at least {needed / GIB:.2f} GiB a device, of {of / GIB:.2f} GiB: " + (
                f"{(needed - of) / GIB:.2f} GiB too much"
            )
        if "compiler" in memory:
            yield from _wrapped(f"  the compiler: {memory['compiler']}", 4)
        return
    yield (
        f"{size}: FITS, {memory['margin'] / GIB:.1f} of {memory['usable'] / GIB:.1f} GiB a device "
        "to spare"
    )
    parts = ", ".join(
        f"{name} {memory[name] / GIB:.2f}"
        for name in ("arguments", "temporaries", "code", "outputs")
    )
    yield f"  memory         {memory['needed'] / GIB:.2f} GiB a device: {parts}"
    yield (
        f"  work           {report['flops'] / 1e12:.2f} TFLOP and {report['bytes'] / 1e9:.1f} GB a "
        f"batch; an image {report['flops_per_image'] / 1e9:.2f} GFLOP "
        f"and {report['bytes_per_image'] / 1e6:.1f} MB"
    )
    yield from _wrapped(f"  collectives    {_collectives(report['collectives'])}", 17)
    yield f"  floor          {_floor(report)}"
    if report["estimated_ms"] is not None:
        yield (
            f"  estimate       {report['estimated_ms']:.1f} ms by the compiler's own count of "
            "cycles, collectives left out"
        )
    yield f"  at the floor   {rate_text(report['images_per_s'])} images/s"
    yield from _experiment(report)


def _floor(report: Mapping[str, Any]) -> str:
    text = f"{report['floor_ms']:.1f} ms, bound by {report['floor_binds']}"
    if len(report["programs"]) == 1:
        (program,) = report["programs"].values()
        limits = ("compute", "hbm", "interconnect")
        parts = [f"{limit} {program['floor'][f'{limit}_ms']:.1f}" for limit in limits]
        text += f" ({', '.join(parts)})"
    else:
        parts = [f"{row['runs']} x {name}" for name, row in report["programs"].items()]
        text += f" ({' and '.join(parts)})"
    return text


def _collectives(collectives: Mapping[str, Mapping[str, int]]) -> str:
    used = [
        f"{found['count']} {kind} ({found['bytes'] / 1e6:.1f} MB)"
        for kind, found in collectives.items()
        if found["count"]
    ]
    if not collectives["all-gather"]["count"]:
        used.append("no all-gather")
    return ", ".join(used)


def _experiment(report: Mapping[str, Any]) -> Iterator[str]:
    experiment, host = report["experiment"], report["host"]
    if experiment["hours"] is not None:
        steps = f"{experiment['steps']:,} steps, " if experiment["steps"] else ""
        yield (
            f"  experiment     {steps}{experiment['images']:,} images: at the floor "
            f"{experiment['hours']:.3f} h, {experiment['core_hours']:.2f} core-hours"
        )
    elif report["graph"] == "train":
        yield "  experiment     of unknown length: set trainer.max_steps"
    hub = f", {rate_text(host['mb_per_s'])} MB/s from the Hub" if host["mb_per_s"] else ""
    yield (
        f"  to feed it     {rate_text(host['images_per_s'])} images/s{hub}, "
        f"{host['decode_cores']:.1f} cores of decoding"
    )
    yield (
        f"                 (a core of this machine decodes {rate_text(host['decode_rate'])} "
        "images/s of its time)"
    )


def _buffers(report: Mapping[str, Any]) -> Iterator[str]:
    for name, program in report["programs"].items():
        if program["largest_buffers"]:
            yield ""
            yield f"largest buffers of {name}, a device"
            for row in program["largest_buffers"]:
                yield f"  {row['bytes'] / 2**20:9.1f} MiB  {row['shape']:<24.24s}  {row['module']}"


def _operations(report: Mapping[str, Any]) -> Iterator[str]:
    for name, program in report["programs"].items():
        if not program["costliest_operations"]:
            continue
        total = program["estimated_cycles"] or 1
        yield ""
        yield f"costliest operations of {name}, share of the compiler's cycles"
        for row in program["costliest_operations"]:
            share = 100 * row["cycles"] / total
            yield f"  {share:5.1f} %  {row['makes']:<40.40s}  {row['module']}"
        parts = [
            f"{part} {100 * cycles / total:.0f} %"
            for part, cycles in program["cycles_by_module"].items()
        ]
        yield from _wrapped(f"  in all: {', '.join(parts[:6])}", 4)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, 100, subsequent_indent=" " * indent, drop_whitespace=True)


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "    batch  rows/device  fits   GiB/device  MB/image  floor ms   images/s"
    for row in report["batches"]:
        memory = row["memory"]
        needed = "?" if memory["needed"] is None else f"{memory['needed'] / GIB:.2f}"
        line = f"{row['batch_size']:9d}  {row['rows_per_device']:11d}  "
        line += f"{'yes' if row['fits'] else 'no':4s}  {needed:>11s}"
        if row["images_per_s"] is not None:
            line += f"  {row['bytes_per_image'] / 1e6:8.1f}  {row['floor_ms']:8.1f}"
            line += f"  {rate_text(row['images_per_s']):>9s}"
        yield line
    largest = report["largest_batch_that_fits"]
    yield f"largest that fits: {'none' if largest is None else largest}"


def change_lines(before: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    """What changed since an earlier report."""
    differ = [n for n in ("topology", "graph", "precision") if before.get(n) != report[n]]
    yield ""
    yield "change since the earlier preflight"
    for name in differ:
        yield f"  {name}: {str(before.get(name))[:60]} -> {report[name]}"
    for name, program in report["programs"].items():
        earlier = _entry(before, "programs", name, "stablehlo_fingerprint")
        if earlier == program["stablehlo_fingerprint"]:
            yield f"  {name}: the very same program"
    for name, title in _COMPARED:
        old, new = _figure(before, name), _figure(report, name)
        if old is None and new is None:
            continue
        change = ""
        if _is_number(old) and _is_number(new) and old:
            change = f"  {100 * (new / old - 1):+.1f} %"
        yield f"  {title:28s} {_text(old):>14s} -> {_text(new):>14s}{change}"


def _figure(report: Mapping[str, Any], name: str) -> Any:
    if name == "needed":
        return _entry(report, "memory", "needed")
    if name in ("all-reduce", "all-gather"):
        return _entry(report, "collectives", name, "count")
    return _entry(report, name)


def _entry(report: Any, *names: str) -> Any:
    """An entry of nested mappings, as a file of unknown origin holds them."""
    value = report
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)[:60]
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
