"""TensorBoard's event files, written without a thread: who writes a row learns at once that the disk is full.

A file is a sequence of records: length of the event (8 bytes, little endian), its masked CRC-32C (4), the event (a
serialised `Event`), its masked CRC-32C (4). The first event says the format's version.
"""

from __future__ import annotations

import io
import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaeflow.runs.files import append, naming


class Events:
    """A new event file in `folder` for a run whose first row is at `step`.

    Where events exist already, the run was resumed: TensorBoard is told to forget what they have from `step` on, as it was
    written by a run that was killed. OSError, with the file's name: the disk refuses.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.proto import event_pb2, summary_pb2  # not imported for a table of results

        # By `Any`: protobuf makes these classes when it is imported, where a type checker does not see them.
        event: Any = event_pb2
        summary: Any = summary_pb2
        self._event, self._summary = event.Event, summary.Summary
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        times = [int(found[1]) for path in folder.iterdir() if (found := re.match(r"events\.out\.tfevents\.(\d+)\.", path.name))]
        # TensorBoard reads the files in the order of their names: each is newer than those before it, whatever the clocks say.
        now = max([int(time.time()), *(then + 1 for then in times)])
        self._path = folder / f"events.out.tfevents.{now:010d}.{socket.gethostname()}"
        with naming(self._path):
            self._file = io.FileIO(self._path, "x")
        self._add(file_version="brain.Event:2")
        if times:
            self._add(step=step, session_log=event.SessionLog(status=event.SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One event with all values (tag: number) of a step."""
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        """Close the file."""
        with naming(self._path):
            self._file.close()

    def _add(self, **fields: Any) -> None:
        from tensorboardX.record_writer import masked_crc32c

        content = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(content))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
        append(self._file, self._path, length + next(sums) + content + next(sums))
