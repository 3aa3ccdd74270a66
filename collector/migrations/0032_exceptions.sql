-- Differences that were accepted: the exact line found at a path, on a node or in a group, until an end.
CREATE TABLE exceptions (
    id            TEXT PRIMARY KEY,
    -- The violation at which it was asked for, where it was one.
    violation     TEXT,
    node          TEXT,
    grp           TEXT,
    -- As shown (mtree encoding).
    path          TEXT NOT NULL,
    expected      TEXT,
    -- None where what is missing is accepted.
    found         TEXT,
    reason        TEXT NOT NULL,
    ticket        TEXT NOT NULL DEFAULT '',
    owner         TEXT NOT NULL,
    ends          INTEGER NOT NULL,
    requested     INTEGER NOT NULL,
    requested_by  TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'refused', 'withdrawn', 'revoked')),
    decided       INTEGER,
    decided_by    TEXT,
    decision      TEXT,
    revoked       INTEGER,
    revoked_by    TEXT,
    revoke_reason TEXT,
    CHECK ((node IS NULL) <> (grp IS NULL))
) STRICT;
CREATE INDEX exceptions_violation ON exceptions (violation);
CREATE INDEX exceptions_state ON exceptions (state, ends);

-- Which nodes rely on which exception, as their last fresh statement says.
CREATE TABLE excepted (
    node      TEXT NOT NULL,
    path      TEXT NOT NULL,
    exception TEXT NOT NULL REFERENCES exceptions (id),
    since     INTEGER NOT NULL,
    PRIMARY KEY (node, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX excepted_exception ON excepted (exception, node);
