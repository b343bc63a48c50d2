"""One host's part of the batches of an order, and how it is dealt to workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radcap.data.order import Order, Slots


@dataclass(frozen=True)
class Share:
    """One host's rows of the batches of an order, and how batches are numbered.

    Slot k of a global batch belongs to host k mod num_hosts. Batches are numbered on and on:
    through the epochs, or with `max_rows` through passes over the first rows of epoch 0.
    """

    order: Order
    max_rows: int | None = None
    host: int = 0
    num_hosts: int = 1

    @property
    def places(self) -> range:
        """This host's slots of a global batch."""
        return range(self.host, self.order.batch_size, self.num_hosts)

    @property
    def batches_per_pass(self) -> int:
        rows = self.order.num_rows if self.max_rows is None else self.max_rows
        return -(-rows // self.order.batch_size)

    def locate(self, number: int) -> tuple[int, int]:
        """(epoch, batch in it) of batch number `number`."""
        rounds, batch = divmod(number, self.batches_per_pass)
        return (rounds if self.max_rows is None else 0), batch

    def slots(self, number: int, streams: np.ndarray | None = None) -> Slots:
        """This host's slots of a batch: padding beyond `max_rows` and, with `streams` (see
        `Order.slots`), for rows of other streams."""
        epoch, batch = self.locate(number)
        slots = self.order.slots(epoch, batch, streams)
        if self.max_rows is not None:
            slots = slots.first(self.max_rows - batch * self.order.batch_size)
        return slots.take(self.places)

    def deal(self, workers: int) -> np.ndarray:
        """The worker that reads each stream: int64 [streams].

        Lanes are dealt longest first: towards the end of an epoch the longest alone have rows
        left, and no worker should have them all. (In stored order a stream is a row group.)
        """
        if not self.order.shuffle:
            return np.arange(len(self.order.group_rows)) % workers
        dealt = np.empty(self.order.lanes, dtype=np.int64)
        for host in range(self.num_hosts):
            lanes = np.arange(host, self.order.lanes, self.num_hosts)
            longest_first = lanes[np.argsort(-self.order.lane_rows[lanes], kind="stable")]
            dealt[longest_first] = np.arange(len(lanes)) % workers
        return dealt


def useful_workers(workers: int, share: Share) -> int:
    """At most one worker for each lane of the share (in stored order: each row group)."""
    order = share.order
    if order.shuffle:
        return min(workers, max(1, order.lanes // share.num_hosts))
    return min(workers, len(order.group_rows))
