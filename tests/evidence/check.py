"""Checks a file of `backscroll evidence` with other libraries: canonicaljson, signedjson and PyNaCl.

Exits with 0 if everything fits, else with 1 and a line that says what does not.
"""

import base64
import hashlib
import json
import sys

from canonicaljson import encode_canonical_json
from nacl.signing import VerifyKey
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json

TOP = [
    "event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
    "prev_events", "auth_events", "origin_server_ts",
]
KEPT = {
    "m.room.create": ["creator"],
    "m.room.join_rules": ["join_rule"],
    "m.room.member": ["membership"],
    "m.room.history_visibility": ["history_visibility"],
    "m.room.power_levels": [
        "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default",
    ],
}


def decode(text):
    return base64.b64decode(text + "=" * (-len(text) % 4))


def encode(data, urlsafe):
    encoder = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return encoder(data).decode().rstrip("=")


def kept_content(event, version):
    kind, content = event["type"], event["content"]
    if version >= 11 and kind == "m.room.create":
        return content
    kept = list(KEPT.get(kind, []))
    if kind == "m.room.aliases" and version < 6:
        kept.append("aliases")
    if kind == "m.room.join_rules" and version >= 8:
        kept.append("allow")
    if kind == "m.room.member" and version >= 9:
        kept.append("join_authorised_via_users_server")
    if kind == "m.room.power_levels" and version >= 11:
        kept.append("invite")
    if kind == "m.room.redaction" and version >= 11:
        kept.append("redacts")
    result = {name: content[name] for name in kept if name in content}
    invite = content.get("third_party_invite")
    if kind == "m.room.member" and version >= 11 and isinstance(invite, dict) and "signed" in invite:
        result["third_party_invite"] = {"signed": invite["signed"]}
    return result


def redacted(event, version):
    top = TOP + (["origin", "membership", "prev_state"] if version < 11 else [])
    result = {name: event[name] for name in top if name in event}
    result["content"] = kept_content(event, version)
    return result


def without(event, *names):
    return {name: value for name, value in event.items() if name not in names}


def event_id(event, version):
    if version <= 2:
        return event["event_id"]
    digest = hashlib.sha256(encode_canonical_json(without(redacted(event, version), "signatures", "unsigned")))
    return "$" + encode(digest.digest(), version >= 4)


def check_event(event, version, keys):
    """Checks one event; returns whether its content is whole."""
    digest = hashlib.sha256(encode_canonical_json(without(event, "hashes", "signatures", "unsigned"))).digest()
    whole = digest == decode(event["hashes"]["sha256"])
    assert whole or event == redacted(event, version), "the content hash does not fit"
    server = event["sender"].split(":", 1)[1]
    signed = encode_canonical_json(without(redacted(event, version), "signatures", "unsigned"))
    good = 0
    for key_id, signature in event["signatures"][server].items():
        public_key, valid_until = keys[server, key_id]
        assert version < 5 or event["origin_server_ts"] <= valid_until, "the key was not valid"
        VerifyKey(public_key).verify(signed, decode(signature))
        good += 1
    assert good, "nobody signed it"
    return whole


def read_keys(lists):
    keys = {}
    for answer in lists:
        server = answer["server_name"]
        own = answer["signatures"][server]
        for key_id in own:
            key = decode_verify_key_bytes(key_id, decode(answer["verify_keys"][key_id]["key"]))
            verify_signed_json(answer, server, key)
        assert own, "the list of keys is not signed"
        for key_id, key in answer["verify_keys"].items():
            keys[server, key_id] = decode(key["key"]), answer["valid_until_ts"]
        for key_id, key in answer.get("old_verify_keys", {}).items():
            keys.setdefault((server, key_id), (decode(key["key"]), key["expired_ts"]))
    return keys


def links(event, version):
    return [link[0] if version <= 2 else link for link in event["auth_events"]]


def check(file):
    version, room_id = int(file["room_version"]), file["room_id"]
    keys = read_keys(file["server_keys"])
    event = file["event"]
    assert event_id(event, version) == file["event_id"], "the event has another id"
    whole = check_event(event, version, keys)
    chain = {}
    for ancestor in file["auth_chain"]:
        check_event(ancestor, version, keys)
        chain[event_id(ancestor, version)] = ancestor
    assert len(chain) == len(file["auth_chain"]), "an event is in the chain twice"
    left, reached = links(event, version), set()
    create = "$" + room_id[1:] if version >= 12 else None
    if create:
        left.append(create)
    while left:
        link = left.pop()
        if link not in reached:
            reached.add(link)
            left.extend(links(chain[link], version))
    assert reached == set(chain), "an event is not in the chain"
    roots = [root for root in chain.values() if root["type"] == "m.room.create"]
    assert len(roots) == 1 and not roots[0]["prev_events"], "there is not one root"
    assert roots[0]["content"].get("room_version", "1") == file["room_version"], "another room version"
    for part in [event, *chain.values()]:
        is_root = create and part["type"] == "m.room.create"
        assert is_root or part["room_id"] == room_id, "an event of another room"
    print("whole" if whole else "redacted")


try:
    with open(sys.argv[1], encoding="utf-8") as opened:
        check(json.load(opened))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
