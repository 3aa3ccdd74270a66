-- What each node has pinned (FORMATS.md 5.2), line by line: `was` is the line before a change that no growth and no person explains.
CREATE TABLE pins (
    node        TEXT NOT NULL,
    -- As shown (mtree encoding).
    path        TEXT NOT NULL,
    line        TEXT NOT NULL,
    was         TEXT,
    first       INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    reviewed    INTEGER,
    reviewed_by TEXT,
    PRIMARY KEY (node, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX pins_unreviewed ON pins (node) WHERE reviewed IS NULL;

-- SHA-256 of the plain pinned lines that these rows are.
ALTER TABLE nodes ADD COLUMN pins BLOB;

-- What persons accepted: the line found becomes the pin. `done` is when the node said so.
CREATE TABLE accepts (
    id        TEXT PRIMARY KEY,
    node      TEXT NOT NULL,
    violation TEXT NOT NULL,
    path      TEXT NOT NULL,
    found     TEXT,
    at        INTEGER NOT NULL,
    by_user   TEXT NOT NULL,
    reason    TEXT NOT NULL,
    done      INTEGER
) STRICT;
CREATE INDEX accepts_node ON accepts (node, path);
CREATE INDEX accepts_waiting ON accepts (node) WHERE done IS NULL;
