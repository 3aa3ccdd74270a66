"""ENVELOPE KEY: securesystemslib verifies the signature, in-toto-attestation reads and validates the statement."""
import json, sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

with open(sys.argv[1]) as file:
    envelope = Envelope.from_dict(json.load(file))
with open(sys.argv[2], "rb") as file:
    key = SSlibKey.from_crypto(load_pem_public_key(file.read()))
accepted = envelope.verify([key], 1)
signature_keyids = list(envelope.signatures)
assert key.keyid in signature_keyids, f"our keyid is not the one of the TUF convention: {key.keyid} not in {signature_keyids}"

message = ParseDict(json.loads(envelope.payload), statement_pb2.Statement(), ignore_unknown_fields=False)
statement = Statement.copy_from_pb(message)
statement.validate()
print(f"{message.predicate_type} about {message.subject[0].name}: signed by {', '.join(accepted)}")
