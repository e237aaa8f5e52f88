PRAGMA auto_vacuum = 2;
PRAGMA application_id = 1886745448;
PRAGMA user_version = 2;
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
INSERT INTO "block" VALUES(1099511627777,1,1,1,131,0,4093891852,X'6E6472796E3269343178010000000000000000000040FC54D94103000000016F6E65');
INSERT INTO "block" VALUES(1099511627778,1,2,2,262,0,3350950067,X'6E6472796E3269343178020000000000000000000040FC54D941030000000174776F');
INSERT INTO "block" VALUES(1099511627779,1,3,3,392,0,1231182202,X'6E6472796E3269343178030000000000000000000040FC54D9410200000000FF00');
INSERT INTO "block" VALUES(1099511627780,1,9,9,525,1,906586592,X'6E6472796E3269343178090000000000000000000040FC54D9410500000005040000006D696E65676976656E');
INSERT INTO "block" VALUES(2199023255553,5,4,8,645,0,2126462974,X'6E6472796E3269343178040000000000000000000040FC54D941010000000130050000000000000000000040FC54D941010000000131060000000000000000000040FC54D941010000000132070000000000000000000040FC54D941010000000133080000000000000000000040FC54D941010000000134');
INSERT INTO "block" VALUES(3298534883329,5,4,8,645,0,2126462974,X'6E6472796E3269343178040000000000000000000040FC54D941010000000130050000000000000000000040FC54D941010000000131060000000000000000000040FC54D941010000000132070000000000000000000040FC54D941010000000133080000000000000000000040FC54D941010000000134');
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
    id TEXT NOT NULL,                      -- that the publisher gave
    channel TEXT NOT NULL,                 -- the name of one of its channels
    other INTEGER NOT NULL,                -- 0: the channel that was named first, 1: another one
    "offset" INTEGER NOT NULL,             -- of the event in this channel
    sequence INTEGER NOT NULL,
    fingerprint BLOB,                      -- of what was sent, 8 bytes; NULL: unknown, or not the first channel
    PRIMARY KEY (id, channel, other, "offset")
) STRICT, WITHOUT ROWID;
INSERT INTO "given" VALUES('mine','a',0,4,9,X'8EC2E7450DEB7A5E');
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
INSERT INTO "log" VALUES(1,'ndryn2i41x',9,0,0,0,2,1796063191,9988242,'f7e7d034-81d6-4563-bb33-e4d6059964b3',1);
COMMIT;
