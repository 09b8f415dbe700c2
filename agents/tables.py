"""Faust's tables and their recovery, in Headrace's way: Faust knows the tables, the checkpoint alone writes them.

Faust creates their changelogs, assigns them together with their source topics, and shows them in its tools. State is written
by `agents.checkpoint` and read back by `agents.takeover`, in place of Faust's own recovery, which never ends on a changelog
whose last record is a transaction marker, and knows nothing of cuts.
"""

from typing import Any, NoReturn

import faust
from faust.tables.manager import TableManager as FaustTableManager
from faust.tables.recovery import Recovery as FaustRecovery
from faust.types import TP
from mode import Service

from agents.table_store import ReadOnlyTable, ShardRows, Stores


class ShardTable(faust.Table[bytes, bytes]):
    """A table of packed rows by key. Writing through it is refused: a row without its transaction would be a lie."""

    stores: Stores

    def _new_store(self) -> ShardRows:
        return ShardRows(
            "headrace:",
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            stores=lambda: self.stores(),
        )

    def __setitem__(self, key: bytes, value: bytes) -> NoReturn:
        raise ReadOnlyTable(f"{self.name} is written by checkpoints only: send an event instead")

    def __delitem__(self, key: bytes) -> NoReturn:
        raise ReadOnlyTable(f"{self.name} is written by checkpoints only: send an event instead")

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Stores are opened when their shard is taken over, and closed when it is handed on."""


class Recovery(FaustRecovery):
    """Takes over the assigned shards, then lets the streams flow."""

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            stopped = await self.wait_for_stopped(
                self.signal_recovery_start  # type: ignore[arg-type] # asyncio events work, mode's types lag behind
            )
            if stopped:
                break
            self.signal_recovery_start.clear()
            generation = self._generation_id
            self.completed.clear()
            try:
                await self.app.take_over({tp.partition for tp in self.active_tps})  # type: ignore[attr-defined] # ours
                if not self.signal_recovery_start.is_set():
                    await self._resume_streams(generation_id=generation)
            except Exception as error:  # noqa: BLE001 - see below
                # The shards are not ours or their state cannot be trusted: stop here, a restart is the recovery.
                await self.app.crash(error)
                return

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Changelogs are tailed by the take-over, not by the stream consumer."""

    @Service.task
    async def _publish_stats(self) -> None:
        """The take-over reports its own progress."""

    def flush_buffers(self) -> None:
        """There are no buffers of changelog events."""

    def _add(self, table: Any, tp: TP, offsets: Any) -> None:
        self.tp_to_table[tp] = table


class TableManager(FaustTableManager):
    """Faust's manager with our recovery."""

    async def on_start(self) -> None:
        """Begin at once. Faust waits a second for tables that agents make as they start; ours are made before the app starts."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Recovery:
        """The recovery service, made on first use."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery  # type: ignore[return-value] # only ever ours
