"""The store: durable histories, which survive a restart of the process."""

from pushd.store.sqlite.check import check
from pushd.store.sqlite.continuity import new_epoch
from pushd.store.sqlite.journal import SqlitePublisher
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.unused import leave
from pushd.store.sqlite.worker import Worker

__all__ = ["SqlitePublisher", "Store", "Worker", "check", "leave", "new_epoch"]
