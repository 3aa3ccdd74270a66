-- What a person has said of a violation as it now is: {by, at, reason}. Another finding clears it.
ALTER TABLE violations ADD COLUMN acknowledged TEXT;

-- What the collector asks of nodes; each is told once, with the next answer.
CREATE TABLE asked (
    id      TEXT PRIMARY KEY,
    node    TEXT NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('rescan')),
    at      INTEGER NOT NULL,
    by_user TEXT NOT NULL,
    told    INTEGER
) STRICT;
CREATE UNIQUE INDEX asked_waiting ON asked (node, kind) WHERE told IS NULL;
