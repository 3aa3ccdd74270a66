"""Fills a stopped collector's store with a fleet: nodes, violations with their steps, activity records, each a copy of one that is there
under another name. `fleet.py STATE NODES VIOLATIONS RECORDS`."""
import hashlib, os, random, sqlite3, sys, time, uuid

state, nodes, violations, records = sys.argv[1], *map(int, sys.argv[2:5])
store = sqlite3.connect(os.path.join(state, "store.db"), isolation_level=None)
store.row_factory = sqlite3.Row
now = time.time_ns() // 1000
chance = random.Random(17)


def uuid7(micros):
    bits = (micros // 1000) << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)
    return str(uuid.UUID(int=bits))


def columns(table):
    """Every column but a rowid of the table's own."""
    rows = store.execute(f"PRAGMA table_info({table})").fetchall()
    return [row["name"] for row in rows if not (row["pk"] and row["type"] == "INTEGER" and row["name"] == "seq")]


def template(table):
    row = store.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1" if table != "actions" else "SELECT * FROM actions LIMIT 1").fetchone()
    assert row, f"one row of {table} must be there to be copied"
    return dict(row)


def fill(table, changes):
    names, like = columns(table), template(table)
    sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    store.executemany(sql, ([({**like, **change})[name] for name in names] for change in changes))


def past(days):
    return now - chance.randrange(days * 86_400_000_000)


ids = [hashlib.sha256(f"node {n}".encode()).hexdigest()[: len(template("nodes")["id"])] for n in range(nodes)]
verdicts = ["pristine"] * 9 + ["drifted"]
store.execute("BEGIN")
fill("nodes", ({"id": id, "name": f"web-{n:04}", "grp": f"group-{n % 20}", "verdict": chance.choice(verdicts), "public_key": id, "machine": id} for n, id in enumerate(ids)))

opened, steps, touched = [], [], []
for n in range(violations):
    at = past(60)
    resolved = None if n % 10 == 0 else min(now, at + chance.randrange(3_600_000_000))
    opened.append({
        "id": uuid7(at), "node": ids[n % nodes], "kind": "difference", "path": f"/srv/app/release-{n % 997}/file-{n}.conf", "opened": at, "detected": at,
        "updated": at, "resolved": resolved, "resolution": resolved and "reverted", "severity": chance.choice(["low", "medium", "high", "critical"]),
    })
    steps.append({"id": uuid7(at), "violation": opened[-1]["id"], "step": "opened", "at": at})
    if resolved:
        steps.append({"id": uuid7(resolved), "violation": opened[-1]["id"], "step": "resolved", "at": resolved})
steps.sort(key=lambda step: step["at"])
fill("violations", sorted(opened, key=lambda violation: violation["id"]))
fill("violation_steps", steps)
fill("verdict_changes", ({"node": ids[n % nodes], "at": at, "verdict": chance.choice(verdicts)} for n, at in enumerate(sorted(past(60) for _ in range(violations)))))

kinds = [row["action"] for row in store.execute("SELECT DISTINCT action FROM actions")]
people = [f"person-{n}" for n in range(40)]
times = sorted(past(365) for _ in range(records))
fill("actions", ({"id": uuid7(at), "at": at, "user": chance.choice(people), "action": chance.choice(kinds), "target": chance.choice(ids)} for at in times))
store.execute("COMMIT")
store.execute("ANALYZE")
for table in ("nodes", "violations", "violation_steps", "actions"):
    print(store.execute(f"SELECT count(*) FROM {table}").fetchone()[0], table)
