"""The domain in plain Python: events, channels, patterns, the log, replay, grants, publish and subscribe."""

from pushd.bus.batch import Batch
from pushd.bus.bus import Bus, ChannelState, published_before
from pushd.bus.channel import Channel, Settings
from pushd.bus.clientaddress import MAX_CACHED, UNIX, limit_key, parse_ip
from pushd.bus.clientinfo import DAEMON, ClientAddress, ClientInfo, Transport, number_of, owner_of, shown
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.counters import Counters, Histogram
from pushd.bus.event import FINGERPRINT_BYTES, Draft, Encoder, Entry, Event, check_type, own_id, sequence_in
from pushd.bus.eventlog import EventLog, LogState
from pushd.bus.fair_queue import FairQueue
from pushd.bus.grants import MAX_PATTERNS, ChannelScope, Grants, Identity, regranted
from pushd.bus.history import Entries, FreeLater, History, at_once, freeing
from pushd.bus.memory_headroom import ENOUGH_BYTES, Headroom, memory
from pushd.bus.partitioned_dict import PartitionedDict
from pushd.bus.patterns import MAX_NAME_BYTES, Pattern, check_name
from pushd.bus.position import HistoryPage, StartPosition
from pushd.bus.publisher import Deleted, DirectPublisher, Outcome, Publisher, SwappablePublisher
from pushd.bus.recipients import Recipient
from pushd.bus.record import record
from pushd.bus.replay import ENTRY_BYTES
from pushd.bus.replaying import Done
from pushd.bus.search import key_of
from pushd.bus.shares import Shares
from pushd.bus.sizes import EVENT_BYTES, OBJECT_BYTES, channel_size, event_size, memory_of, size_in, size_of
from pushd.bus.slices import BYTES_PER_SEND, END_COST, MOST, STEP, Burst, Later, Slice, Slices, in_turns
from pushd.bus.storage import HistoryStorage, MemoryStorage, PublishedId
from pushd.bus.subscriber import Subscriber
from pushd.bus.subscription import Subscription
from pushd.bus.token_buckets import TokenBuckets
from pushd.bus.turn import Turn
from pushd.bus.work import NotInMemory, Work, when_here

__all__ = [
    "BYTES_PER_SEND",
    "DAEMON",
    "END_COST",
    "ENOUGH_BYTES",
    "ENTRY_BYTES",
    "EVENT_BYTES",
    "FINGERPRINT_BYTES",
    "MAX_CACHED",
    "MAX_NAME_BYTES",
    "MAX_PATTERNS",
    "MOST",
    "OBJECT_BYTES",
    "STEP",
    "UNIX",
    "Batch",
    "Burst",
    "Bus",
    "Channel",
    "ChannelScope",
    "ChannelState",
    "ClientAddress",
    "ClientInfo",
    "CloseCause",
    "CloseReason",
    "Counters",
    "Deleted",
    "DirectPublisher",
    "Done",
    "Draft",
    "Encoder",
    "Entries",
    "Entry",
    "Event",
    "EventLog",
    "FairQueue",
    "FreeLater",
    "Grants",
    "Headroom",
    "Histogram",
    "History",
    "HistoryPage",
    "HistoryStorage",
    "Identity",
    "Later",
    "LogState",
    "MemoryStorage",
    "NotInMemory",
    "Outcome",
    "PartitionedDict",
    "Pattern",
    "PublishedId",
    "Publisher",
    "Recipient",
    "Settings",
    "Shares",
    "Slice",
    "Slices",
    "StartPosition",
    "Subscriber",
    "Subscription",
    "SwappablePublisher",
    "TokenBuckets",
    "Transport",
    "Turn",
    "Work",
    "at_once",
    "channel_size",
    "check_name",
    "check_type",
    "event_size",
    "freeing",
    "in_turns",
    "key_of",
    "limit_key",
    "memory",
    "memory_of",
    "number_of",
    "own_id",
    "owner_of",
    "parse_ip",
    "published_before",
    "record",
    "regranted",
    "sequence_in",
    "shown",
    "size_in",
    "size_of",
    "when_here",
]
