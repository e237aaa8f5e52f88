"""Composition root and life cycle of the daemon."""

from pushd.daemon.assembly import assemble
from pushd.daemon.garbage_collector import Collector
from pushd.daemon.integrations import IntegrationLoader
from pushd.daemon.memory_watch import watch
from pushd.daemon.pid_file import PidFile
from pushd.daemon.service import Daemon
from pushd.daemon.systemd import Systemd

__all__ = ["Collector", "Daemon", "IntegrationLoader", "PidFile", "Systemd", "assemble", "watch"]
