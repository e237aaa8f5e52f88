PRAGMA auto_vacuum = 2;
PRAGMA application_id = 1886745448;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE block (
    place INTEGER PRIMARY KEY,             -- key of the channel * 1099511627776 + offset of the first event
    count INTEGER NOT NULL,                -- how many events
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    bytes INTEGER NOT NULL,                -- how much all events of the channel took, up to the last of these
    given INTEGER NOT NULL,                -- how many have an id that their publisher gave
    checksum INTEGER NOT NULL,             -- CRC-32 of the events
    events BLOB NOT NULL                   -- see pushd/store/block.py
) STRICT;
INSERT INTO "block" VALUES(1099511627777,1,1,1,131,0,222063697,X'787A3863716C38757861010000000000000000000040FC54D94103000000016F6E65');
INSERT INTO "block" VALUES(1099511627778,1,2,2,262,0,1048889838,X'787A3863716C38757861020000000000000000000040FC54D941030000000174776F');
INSERT INTO "block" VALUES(1099511627779,1,3,3,392,0,3473173478,X'787A3863716C38757861030000000000000000000040FC54D9410200000000FF00');
INSERT INTO "block" VALUES(1099511627780,1,9,9,525,1,858729477,X'787A3863716C38757861090000000000000000000040FC54D9410500000005040000006D696E65676976656E');
INSERT INTO "block" VALUES(2199023255553,5,4,8,645,0,483707844,X'787A3863716C38757861040000000000000000000040FC54D9410100000009050000006200632F6430050000000000000000000040FC54D9410100000009050000006200632F6431060000000000000000000040FC54D9410100000009050000006200632F6432070000000000000000000040FC54D9410100000009050000006200632F6433080000000000000000000040FC54D9410100000009050000006200632F6434');
INSERT INTO "block" VALUES(3298534883329,5,4,8,645,0,483707844,X'787A3863716C38757861040000000000000000000040FC54D9410100000009050000006200632F6430050000000000000000000040FC54D9410100000009050000006200632F6431060000000000000000000040FC54D9410100000009050000006200632F6432070000000000000000000040FC54D9410100000009050000006200632F6433080000000000000000000040FC54D9410100000009050000006200632F6434');
CREATE TABLE channel (
    key INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    first INTEGER NOT NULL,                -- the offset of the oldest event that it keeps
    dropped INTEGER NOT NULL,              -- the sequence of the one before that
    bytes INTEGER NOT NULL,                -- how much all events took that came before the oldest
    "offset" INTEGER NOT NULL,             -- of its latest event, if there is no block that says so
    sequence INTEGER NOT NULL              -- of its latest event, likewise
) STRICT;
INSERT INTO "channel" VALUES(1,'a',1,0,0,1,1);
INSERT INTO "channel" VALUES(2,'b',1,0,0,5,8);
INSERT INTO "channel" VALUES(3,'c/d',1,0,0,5,8);
CREATE TABLE given (
    id TEXT PRIMARY KEY,                   -- that the publisher gave
    sequence INTEGER NOT NULL,
    places TEXT NOT NULL                   -- JSON: the offset by the name of each channel, the first one first
) STRICT, WITHOUT ROWID;
INSERT INTO "given" VALUES('mine',9,'{"a":4}');
CREATE TABLE log (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,                   -- 10 characters; new when continuity was lost
    sequence INTEGER NOT NULL,             -- of the latest event
    given_up_sequence INTEGER NOT NULL,    -- the latest event of channels that are forgotten
    given_up_offset INTEGER NOT NULL,      -- the highest offset of channels that are forgotten
    began INTEGER NOT NULL,                -- the latest event before this epoch
    seal INTEGER NOT NULL,                 -- what the file pushd.seal says, or one more
    sealed INTEGER NOT NULL,               -- when the file pushd.seal was last changed, in seconds; 0: not known
    inode INTEGER NOT NULL,                -- of this file: another one is a copy
    boot TEXT NOT NULL,                    -- the kernel's id of the boot that wrote last
    is_safe INTEGER NOT NULL               -- 1: what was acknowledged is on the disk
) STRICT;
INSERT INTO "log" VALUES(1,'xz8cql8uxa',9,0,0,0,2,1795416560,10159619,'a6813bfe-3ff4-4ce5-8a6e-a255cdeb3c14',1);
COMMIT;
