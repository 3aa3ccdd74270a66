-- Login sessions on nodes, as their statements tell them (FORMATS.md 5.2): one row a session, merged by node, boot and session id.
CREATE TABLE logins (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    node     TEXT NOT NULL,
    boot     TEXT NOT NULL,
    session  INTEGER NOT NULL,
    auid     INTEGER NOT NULL,
    user     TEXT,
    origin   TEXT,
    tty      TEXT,
    started  INTEGER NOT NULL,
    ended    INTEGER,
    -- Commands that are kept below, and those that are not.
    commands INTEGER NOT NULL DEFAULT 0,
    dropped  INTEGER NOT NULL DEFAULT 0,
    told     INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    UNIQUE (node, boot, session)
) STRICT;
CREATE INDEX logins_node ON logins (node, id);
CREATE INDEX logins_root ON logins (started) WHERE auid = 0;

CREATE TABLE login_commands (
    login     TEXT NOT NULL,
    at        INTEGER NOT NULL,
    pid       INTEGER NOT NULL,
    exe       TEXT NOT NULL,
    arguments TEXT,
    exit      INTEGER,
    PRIMARY KEY (login, at, pid, exe)
) STRICT, WITHOUT ROWID;
