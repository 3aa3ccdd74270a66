-- Times are INTEGER microseconds since 1970 UTC, digests BLOBs of 32 bytes, structured values JSON text.
-- What is evidence or history is append-only: triggers refuse UPDATE and DELETE.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- When this collector ran. Its own downtime is a record: silence counts from the later of last seen and its start.
CREATE TABLE collector_runs (
    started    INTEGER PRIMARY KEY,
    last_alive INTEGER NOT NULL,
    stopped    INTEGER,
    version    TEXT NOT NULL
) STRICT;

CREATE TABLE nodes (
    id               TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    grp              TEXT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('pending', 'active', 'suspended', 'banned', 'retired')),
    public_key       TEXT NOT NULL,
    machine          TEXT,
    token_id         TEXT,
    replaces         TEXT,
    enrolled         INTEGER NOT NULL,
    approved         INTEGER,
    approved_by      TEXT,
    -- The last statement taken: the next one must be `sequence + 1` and name `previous`.
    sequence         INTEGER,
    previous         BLOB,
    last_received    INTEGER,
    last_fresh       INTEGER,
    -- The last appraisal.
    verdict          TEXT,
    verdict_reasons  TEXT NOT NULL DEFAULT '[]',
    verdict_since    INTEGER,
    verdict_at       INTEGER,
    assurance        TEXT NOT NULL DEFAULT 'software',
    tree             BLOB,
    image            BLOB,
    -- What the last statement says of itself: coverage, agent, claims, counts.
    stated           TEXT NOT NULL DEFAULT '{}',
    -- Received time of a goodbye that nothing has followed.
    stopped          INTEGER,
    forked           INTEGER NOT NULL DEFAULT 0,
    -- The sequence whose statement lists the differences that still stand, and how many there are.
    differences_at   INTEGER,
    differences      INTEGER NOT NULL DEFAULT 0,
    -- A jump after a gap of cause `lost` is taken once.
    jump_taken       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX nodes_name ON nodes (name);
CREATE INDEX nodes_group ON nodes (grp);

CREATE TABLE certificates (
    serial  TEXT PRIMARY KEY,
    node    TEXT NOT NULL REFERENCES nodes (id),
    der     BLOB NOT NULL,
    issued  INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_node ON certificates (node, issued);

CREATE TABLE join_tokens (
    id          TEXT PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    grp         TEXT NOT NULL,
    uses_left   INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    revoked     INTEGER
) STRICT;

-- Signed envelopes by the SHA-256 of their payload.
CREATE TABLE evidence (
    sha256 BLOB PRIMARY KEY,
    kind   TEXT NOT NULL,
    bytes  BLOB NOT NULL,
    stored INTEGER NOT NULL
) STRICT;
CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;
CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is append-only'); END;

CREATE TABLE attestations (
    node     TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    payload  BLOB NOT NULL,
    received INTEGER NOT NULL,
    fresh    INTEGER NOT NULL,
    verdict  TEXT,
    reasons  TEXT NOT NULL,
    PRIMARY KEY (node, sequence, payload)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    payload  BLOB PRIMARY KEY,
    envelope BLOB NOT NULL
) STRICT;

-- The log (FORMATS.md section 7) until there are tiles: a leaf is a row.
CREATE TABLE log (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    type     TEXT NOT NULL,
    node     TEXT,
    sequence INTEGER,
    digest   BLOB NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE INDEX log_node ON log (node, id);
CREATE TRIGGER log_no_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TABLE images (
    payload      BLOB PRIMARY KEY,
    name         TEXT NOT NULL,
    version      TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    tree         BLOB NOT NULL,
    entries      INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    manifest     BLOB NOT NULL,
    manifest_size INTEGER NOT NULL,
    -- The envelope, and the parts of its statement that pages ask for.
    envelope     BLOB NOT NULL,
    repository   TEXT NOT NULL DEFAULT '',
    commit_sha   TEXT NOT NULL DEFAULT '',
    ref          TEXT NOT NULL DEFAULT '',
    author       TEXT NOT NULL DEFAULT '',
    created      INTEGER NOT NULL,
    expires      INTEGER,
    published    INTEGER NOT NULL,
    published_by TEXT NOT NULL,
    -- The manifest is here and has been read back.
    complete     INTEGER NOT NULL DEFAULT 0,
    revoked      INTEGER
) STRICT;
CREATE INDEX images_name ON images (name, epoch);
CREATE INDEX images_manifest ON images (manifest);

CREATE TABLE assignments (
    payload      BLOB PRIMARY KEY,
    grp          TEXT NOT NULL,
    envelope     BLOB NOT NULL,
    image        BLOB NOT NULL,
    from_time    INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    approved_by  TEXT NOT NULL
) STRICT;
CREATE INDEX assignments_group ON assignments (grp, from_time);

-- The assignment that holds for a group now.
CREATE TABLE group_assignment (
    grp     TEXT PRIMARY KEY,
    payload BLOB NOT NULL REFERENCES assignments (payload)
) STRICT;

CREATE TABLE violations (
    id         TEXT PRIMARY KEY,
    node       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    -- As shown (mtree encoding); empty where the kind has no path.
    path       TEXT NOT NULL DEFAULT '',
    expect     TEXT,
    expected   TEXT,
    found      TEXT,
    fields     TEXT NOT NULL DEFAULT '[]',
    actor      TEXT,
    severity   TEXT NOT NULL,
    opened     INTEGER NOT NULL,
    detected   INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    resolved   INTEGER,
    resolution TEXT,
    image      BLOB,
    count      INTEGER,
    mount      TEXT,
    detail     TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE UNIQUE INDEX violations_open ON violations (node, kind, path) WHERE resolved IS NULL;
CREATE INDEX violations_node ON violations (node, id);
CREATE INDEX violations_resolved ON violations (resolved, id);

-- One row for each time a violation was opened, updated or resolved; `record` is the violation as it then was.
CREATE TABLE violation_steps (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT NOT NULL UNIQUE,
    violation TEXT NOT NULL,
    step      TEXT NOT NULL CHECK (step IN ('opened', 'updated', 'resolved')),
    at        INTEGER NOT NULL,
    record    TEXT NOT NULL
) STRICT;
CREATE INDEX violation_steps_violation ON violation_steps (violation, seq);
CREATE TRIGGER violation_steps_no_update BEFORE UPDATE ON violation_steps BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;
CREATE TRIGGER violation_steps_no_delete BEFORE DELETE ON violation_steps BEGIN SELECT RAISE(ABORT, 'steps are append-only'); END;

-- Every change of a node's verdict.
CREATE TABLE verdict_changes (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    node     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    verdict  TEXT,
    was      TEXT,
    reasons  TEXT NOT NULL
) STRICT;
CREATE INDEX verdict_changes_node ON verdict_changes (node, seq);

CREATE TABLE touched (
    id       TEXT PRIMARY KEY,
    node     TEXT NOT NULL,
    path     TEXT NOT NULL,
    event    TEXT NOT NULL,
    count    INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    actor    TEXT,
    sequence INTEGER NOT NULL,
    reviewed INTEGER,
    reviewed_by TEXT
) STRICT;
CREATE INDEX touched_node ON touched (node, id);
CREATE INDEX touched_unreviewed ON touched (node) WHERE reviewed IS NULL;

-- What waits to be told: `id` is the step's id and becomes the `webhook-id`, so a second delivery has the same one.
-- `channel` is the webhook's URL.
CREATE TABLE outbox (
    id           TEXT NOT NULL,
    channel      TEXT NOT NULL,
    body         BLOB NOT NULL,
    created      INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER NOT NULL,
    delivered    INTEGER,
    given_up     INTEGER,
    last_error   TEXT,
    PRIMARY KEY (id, channel)
) STRICT;
CREATE INDEX outbox_waiting ON outbox (next_attempt) WHERE delivered IS NULL AND given_up IS NULL;

-- Bounded evidence of what was refused: the newest thousand.
CREATE TABLE refusals (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    door   TEXT NOT NULL,
    node   TEXT,
    code   TEXT NOT NULL,
    detail TEXT NOT NULL,
    sha256 BLOB,
    sample BLOB
) STRICT;

CREATE TABLE accounts (
    user          TEXT PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role          TEXT NOT NULL,
    disabled      INTEGER,
    created       INTEGER NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id      TEXT PRIMARY KEY,
    hash    BLOB NOT NULL UNIQUE,
    user    TEXT NOT NULL,
    role    TEXT NOT NULL,
    expires INTEGER,
    created INTEGER NOT NULL,
    revoked INTEGER,
    label   TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE sessions (
    id_hash  BLOB PRIMARY KEY,
    user     TEXT NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    csrf     TEXT NOT NULL DEFAULT ''
) STRICT;

-- The activity log: what people and pipelines did.
CREATE TABLE actions (
    id     TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    user   TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE TRIGGER actions_no_update BEFORE UPDATE ON actions BEGIN SELECT RAISE(ABORT, 'actions are append-only'); END;
CREATE TRIGGER actions_no_delete BEFORE DELETE ON actions BEGIN SELECT RAISE(ABORT, 'actions are append-only'); END;
