"""How the data fares: rows, what was masked and why, the Hub's faults, and who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from radcap.data.collate import BatchCounts
from radcap.data.hub.download import Traffic
from radcap.training.log.clock import rate_text

# A trainer that waits for more of its time than this is fed too slowly.
_INPUT_BOUND_SHARE = 0.1

_SUMS = (
    *("images", "truncated", "retries", "requests", "hub_bytes", "hub_used", "hub_wait_s"),
    *("rows_wait_s", "decode_s"),
)
_TIMES = ("wait_s", "train_s", "timed_images")


class DataHealth:
    """Counts over a run's whole life, resumed parts and all processes included.

    Attributes:
        counts: `images` trained on, `truncated` captions, `skipped` (masked rows by reason), of
            the Hub `retries`, `requests`, `hub_bytes`, those of them that were used (`hub_used`:
            the others were read ahead when a process ended) and `hub_wait_s`, the seconds that
            connections waited for it; the seconds that loaders waited for rows (`rows_wait_s`)
            and decoded them (`decode_s`), over all loaders; seconds of training (`train_s`), the
            images of these (`timed_images`), and of them the seconds that the first process
            waited for a batch (`wait_s`).
    """

    def __init__(self, counts: Mapping[str, Any] | None) -> None:
        """Args:
        counts: what earlier processes of the run counted.
        """
        given = dict(counts or {})
        self.counts: dict[str, Any] = {name: given.get(name, 0) for name in (*_SUMS, *_TIMES)}
        self.counts["skipped"] = dict(given.get("skipped", {}))

    def add(self, new: BatchCounts) -> None:
        """Add what one process met; `rows` of it are the good ones."""
        traffic = new.traffic
        sums = (
            *(new.rows, new.truncated, traffic.retries, traffic.requests, traffic.bytes),
            *(traffic.used, traffic.wait_s, new.waited_s, new.worked_s),
        )
        for name, value in zip(_SUMS, sums, strict=True):
            self.counts[name] += value
        reasons = self.counts["skipped"]
        for reason, (rows, _) in new.skipped.items():
            reasons[reason] = reasons.get(reason, 0) + rows

    def add_traffic(self, traffic: Traffic) -> None:
        """Add what was asked of the Hub for anything but training batches."""
        self.add(BatchCounts(traffic=traffic))

    def add_time(self, *, train_s: float, wait_s: float, images: int) -> None:
        """Add seconds of training, those of them spent waiting for data, and their images."""
        self.counts["train_s"] += train_s
        self.counts["wait_s"] += wait_s
        self.counts["timed_images"] += images

    @property
    def num_skipped(self) -> int:
        """Masked rows, whatever the reason."""
        return sum(self.counts["skipped"].values())

    @property
    def input_bound(self) -> bool:
        """Whether training waits for data more than now and then."""
        return self.counts["wait_s"] > _INPUT_BOUND_SHARE * self.counts["train_s"]

    def scalars(self) -> dict[str, float]:
        """For TensorBoard, under data/."""
        names = ("truncated", "retries", "hub_wait_s")
        return {"skipped": self.num_skipped} | {name: self.counts[name] for name in names}

    def record(self, step: int, time: float) -> dict[str, Any]:
        """A line of data_health.jsonl.

        Args:
            step: training steps done.
            time: seconds since 1970.
        """
        return {"step": step, "time": time, **self.report()}

    def report(self) -> dict[str, Any]:
        """The counts, who waits for whom, and all of it in words."""
        bound = "input" if self.input_bound else "compute"
        return {**self.counts, "bound": bound, "words": self.words()}

    def facts(self) -> list[str]:
        """What is to be known while training goes on, each in a few words; nothing that is 0."""
        counts = self.counts
        told = (
            (self.num_skipped, "masked"),
            (counts["truncated"], "captions cut"),
            (counts["retries"], "retries"),
        )
        facts = [f"{number:,} {what}" for number, what in told if number]
        if counts["timed_images"]:
            facts.append(f"input-bound by {self._slower}" if self.input_bound else "compute-bound")
        return facts

    @property
    def _rows_share(self) -> float:
        """The share of their time that loaders waited for rows."""
        waited, decoded = self.counts["rows_wait_s"], self.counts["decode_s"]
        return waited / max(waited + decoded, 1e-9)

    @property
    def _slower(self) -> str:
        """What training waits for, where it does."""
        source = "the network" if self.counts["requests"] else "the disk"
        return source if self._rows_share > 0.5 else "decoding"

    def words(self) -> str:
        """One line for people."""
        counts = self.counts
        reasons = ", ".join(f"{reason} {rows}" for reason, rows in counts["skipped"].items())
        masked = f"{self.num_skipped} masked" + (f" ({reasons})" if reasons else "")
        rate = counts["timed_images"] / max(counts["train_s"], 1e-9)
        line = f"data: {counts['images']:,} rows, {masked}, {counts['truncated']} captions cut, "
        if counts["requests"]:
            line += f"{counts['retries']} retries, "
        line += f"waited {counts['wait_s']:.0f} of {counts['train_s']:.0f} s: "
        if not counts["timed_images"]:
            return line + "too short to tell"
        if not self.input_bound:
            return line + f"compute-bound at {rate_text(rate)} images/s"
        possible = counts["timed_images"] / max(counts["train_s"] - counts["wait_s"], 1e-9)
        return line + (
            f"input-bound at {rate_text(rate)} images/s, of {rate_text(possible)} that the device "
            f"could take; {self._slower} is slow (loaders waited for rows {self._rows_share:.0%} "
            "of their time)"
        )
