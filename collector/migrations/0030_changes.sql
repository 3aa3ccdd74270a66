-- Deployments: somebody asks that a group be an image, somebody else says yes or no. The signed assignment follows from a yes.
CREATE TABLE deployments (
    id            TEXT PRIMARY KEY,
    grp           TEXT NOT NULL,
    image         BLOB NOT NULL,
    -- Seconds that what the group may be now stays allowed beside it; none where it ends at once.
    keep_previous INTEGER,
    reason        TEXT NOT NULL DEFAULT '',
    requested     INTEGER NOT NULL,
    requested_by  TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'refused', 'withdrawn')),
    decided       INTEGER,
    decided_by    TEXT,
    decision      TEXT,
    -- The assignment that was signed, and until when those before it stay allowed.
    assignment    BLOB REFERENCES assignments (payload),
    until         INTEGER,
    -- What the group had to be before.
    previous      BLOB,
    -- When another took over, and how far this one had come by then.
    superseded    INTEGER,
    reached       INTEGER,
    nodes         INTEGER
) STRICT;
CREATE UNIQUE INDEX deployments_waiting ON deployments (grp) WHERE state = 'waiting';
CREATE INDEX deployments_group ON deployments (grp, id);
CREATE INDEX deployments_image ON deployments (image, id);

-- Assignments made before there were requests: each one a deployment that held at once.
INSERT INTO deployments (id, grp, image, reason, requested, requested_by, state, decided, decided_by, assignment)
    SELECT printf('%08x-%04x-7000-8000-', (from_time / 1000) >> 16, (from_time / 1000) & 65535) || lower(hex(substr(payload, 1, 6))),
        grp, image, '', from_time, requested_by, 'approved', from_time, approved_by, payload
    FROM assignments;
UPDATE deployments SET superseded = (
        SELECT min(later.decided) FROM deployments later WHERE later.grp = deployments.grp AND later.decided > deployments.decided
    );
UPDATE deployments SET previous = (
        SELECT earlier.image FROM deployments earlier WHERE earlier.grp = deployments.grp AND earlier.decided < deployments.decided
        ORDER BY earlier.decided DESC LIMIT 1
    );

-- Which image a node compared with, from when: one row for each time that it was another one.
CREATE TABLE node_images (
    node     TEXT NOT NULL,
    since    INTEGER NOT NULL,
    image    BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (node, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX node_images_image ON node_images (image, since);
INSERT INTO node_images (node, since, image, sequence)
    SELECT id, coalesce(last_received, enrolled), image, coalesce(sequence, 0) FROM nodes WHERE image IS NOT NULL;

ALTER TABLE images ADD COLUMN revoked_by TEXT;
ALTER TABLE images ADD COLUMN revoke_reason TEXT;
