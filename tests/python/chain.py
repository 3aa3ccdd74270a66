"""The evidence of every node in the collector's store: sequences without a hole, each naming the one before it."""
import base64, hashlib, json, os, sqlite3, sys

store = sqlite3.connect(f"file:{os.path.join(sys.argv[1], 'store.db')}?mode=ro", uri=True)
rows = store.execute(
    "SELECT a.node, a.sequence, a.payload, e.bytes FROM attestations a JOIN evidence e ON e.sha256 = a.payload ORDER BY a.node, a.received, a.sequence"
).fetchall()
last = {}
late = 0
for node, sequence, payload, envelope in rows:
    statement = base64.b64decode(json.loads(envelope)["payload"])
    assert hashlib.sha256(statement).digest() == payload, (node, sequence)
    predicate = json.loads(statement)["predicate"]
    assert predicate["sequence"] == sequence, (node, sequence)
    before, digest = last.get(node, (-1, None))
    assert sequence == before + 1, f"{node}: {sequence} was stored after {before}"
    assert predicate.get("previous") == (digest and digest.hex()), f"{node}: {sequence} does not name the one before it"
    late += "challenge" not in predicate
    last[node] = (sequence, payload)
assert rows, "no attestations at all"
print(f"{len(rows)} statements of {len(last)} nodes in one chain each; {late} without a challenge")
