"""The tree digest of a plain manifest (FORMATS.md section 4), written a second time."""
import hashlib, re, sys


def sha256(data):
    return hashlib.sha256(data).digest()


def raw(shown):
    """A shown path as bytes: without its `./`, octal escapes read."""
    path = b"" if shown == b"." else shown.removeprefix(b"./")
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), path)


def node(entries, depth):
    """`entries` are (key, leaf), sorted, all with the same first `depth` bits of key."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        return entries[0][1]
    ones = next((i for i, (key, _) in enumerate(entries) if key[depth // 8] >> (7 - depth % 8) & 1), len(entries))
    return sha256(b"\1" + node(entries[:ones], depth + 1) + node(entries[ones:], depth + 1))


entries = []
for line in open(sys.argv[1], "rb").read().split(b"\n"):
    if line and not line.startswith(b"#"):
        entries.append((sha256(raw(line.split(b" ")[0])), sha256(b"\0" + line)))
print(node(sorted(entries), 0).hex())
