"""The file: one connection, the one thread that uses it, the one place that knows its errors."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from catga.errors import ConnectionLost
from catga_sample.queues import make

T = TypeVar("T")


class InDoubt(ConnectionLost):
    """The commit itself failed: it may have taken effect."""


class Database:
    """Runs functions on the file, one after the other, while the event loop goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: ThreadPoolExecutor | None = None
        self._stack = contextlib.ExitStack()
        self._db: sqlite3.Connection

    async def open(self, fsync: bool, patience: float) -> None:
        """Open or make the file; every call waits so many seconds for other writers."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catga-sample")
        await self._in_thread(self._open, fsync, patience)

    async def read(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(connection, *args)`; writers do not hinder it. Raises `ConnectionLost`."""
        return await self._in_thread(lambda: work(self._db, *args))

    async def write(self, work: Callable[..., T], *args: Any) -> T:
        """Return `work(connection, *args)`, with all it writes committed together.

        Raises `InDoubt` when the commit failed, `ConnectionLost` when surely nothing was changed.
        """
        return await self._in_thread(self._transact, work, *args)

    async def close(self) -> None:
        """Close the file, after what was asked for before. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._stack.close)
            await asyncio.to_thread(thread.shutdown)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        if self._thread is None:
            raise ConnectionLost(f"{self.path} is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except sqlite3.Error as error:
            advice = "it must be writable, on a local disk with room, and not locked for long"
            raise ConnectionLost(f"{self.path} cannot be used: {error}; {advice}") from error

    def _open(self, fsync: bool, patience: float) -> None:
        db = sqlite3.connect(self.path, patience, isolation_level=None)
        self._db = self._stack.enter_context(contextlib.closing(db))
        self._transact(make)
        with contextlib.suppress(sqlite3.OperationalError):  # another process is doing just that
            db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        db.execute("PRAGMA foreign_keys = ON")

    def _transact(self, work: Callable[..., T], *args: Any) -> T:
        done = False
        try:
            self._db.execute("BEGIN IMMEDIATE")  # who only reads at first can be refused later
            result = work(self._db, *args)
            done = True
            self._db.commit()
            return result
        except BaseException as error:
            self._db.rollback()
            if done:
                raise InDoubt(f"{self.path}: the commit failed: {error}") from error
            raise
