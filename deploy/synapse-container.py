#!/opt/synapse/bin/python
"""The Synapse of the compose project's profile `demo`.

  synapse-container.py              configure Synapse and become it
  synapse-container.py login NAME   print an access token of @NAME:demo, who is registered if need be
  synapse-container.py say WHAT N   have @speaker:demo say so many things in a room that @archive:demo joins; both exist

/data/as_token is an application service's, and with it one may speak as any user and as fast as one likes. It is no token
for Backscroll: Synapse answers the /sync of an application service's own account with NotImplementedError.
"""

import base64
import json
import os
import pathlib
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request

data = pathlib.Path("/data")
# The tokens and the signing key are nobody else's to read.
os.umask(0o077)


def write(name, value):
    (data / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return str(data / name)


def run():
    if not (data / "signing.key").exists():
        write("signing.key", "ed25519 a_1 " + base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=") + "\n")
    if not (data / "as_token").exists():
        write("as_token", secrets.token_hex(32))
    free = {"per_second": 1e6, "burst_count": 1000000}
    service = write("appservice.yaml", {
        "id": "demo", "url": None, "as_token": (data / "as_token").read_text(), "hs_token": secrets.token_hex(32),
        "sender_localpart": "_local", "rate_limited": False,
        "namespaces": {"users": [{"exclusive": False, "regex": "@.*"}]},
    })
    log = write("log.yaml", {
        "version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": ["stderr"]},
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    })
    config = write("homeserver.yaml", {
        "server_name": "demo",
        "listeners": [
            {"port": 8008, "bind_addresses": ["0.0.0.0"], "type": "http", "resources": [{"names": ["client"]}]},
        ],
        "database": {"name": "sqlite3", "args": {"database": str(data / "homeserver.db")}},
        "signing_key_path": str(data / "signing.key"), "media_store_path": str(data / "media"), "log_config": log,
        "app_service_config_files": [service], "macaroon_secret_key": secrets.token_hex(32), "enable_registration": False,
        "report_stats": False, "federation_domain_whitelist": [], "trusted_key_servers": [],
        "rc_message": free, "rc_joins": {"local": free, "remote": free}, "rc_room_creation": free,
    })
    os.execv(sys.executable, [sys.executable, "-m", "synapse.app.homeserver", "--config-path", config])


def call(method, path, body, user=None):
    token = (data / "as_token").read_text()
    query = "?" + urllib.parse.urlencode({"user_id": user}) if user else ""
    request = urllib.request.Request("http://127.0.0.1:8008/_matrix/client/v3" + path + query, method=method,
                                     data=json.dumps(body).encode(), headers={"Authorization": "Bearer " + token})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def login(name):
    kind = "m.login.application_service"
    try:
        try:
            answer = call("POST", "/register", {"type": kind, "username": name})
        except urllib.error.HTTPError as error:
            reason = json.load(error)
            if reason.get("errcode") != "M_USER_IN_USE":
                sys.exit(f"Synapse does not register {name}: {reason.get('errcode')} {reason.get('error')}")
            answer = call("POST", "/login", {"type": kind, "identifier": {"type": "m.id.user", "user": name}})
    except (OSError, ValueError) as error:
        sys.exit(f"Synapse does not log {name} in: {error}; is it healthy?")
    print(answer["access_token"])


def say(what, count):
    """Faster than users may. The archive's account joins when something has been said."""
    speaker, known = "@speaker:demo", data / "room"
    if not known.exists():
        known.write_text(call("POST", "/createRoom", {"preset": "public_chat"}, speaker)["room_id"])
    room = "/rooms/" + urllib.parse.quote(known.read_text())
    for number in range(count):
        call("PUT", f"{room}/send/m.room.message/{what}{number}", {"msgtype": "m.text", "body": f"{what} {number}"},
             speaker)
    call("POST", f"{room}/join", {}, "@archive:demo")


if len(sys.argv) == 1:
    run()
elif len(sys.argv) == 3 and sys.argv[1] == "login":
    login(sys.argv[2])
elif len(sys.argv) == 4 and sys.argv[1] == "say":
    say(sys.argv[2], int(sys.argv[3]))
else:
    sys.exit(__doc__)
