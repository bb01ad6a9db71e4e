"""Configures and becomes the Synapse of the compose project's profile `demo`: the secret `access_token` is an application
service's token, so whoever has it may act as any user, and Backscroll archives what its account @_local:demo is in."""

import base64
import json
import os
import pathlib
import secrets
import sys

data = pathlib.Path("/data")
token = pathlib.Path("/run/secrets/access_token").read_text().strip()


def write(name, value):
    (data / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return str(data / name)


if not (data / "signing.key").exists():
    write("signing.key", "ed25519 a_1 " + base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=") + "\n")
free = {"per_second": 1e6, "burst_count": 1000000}
service = write("appservice.yaml", {
    "id": "demo", "url": None, "as_token": token, "hs_token": secrets.token_hex(32), "sender_localpart": "_local",
    "rate_limited": False, "namespaces": {"users": [{"exclusive": False, "regex": "@.*"}]},
})
log = write("log.yaml", {
    "version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": ["stderr"]},
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
})
config = write("homeserver.yaml", {
    "server_name": "demo",
    "listeners": [{"port": 8008, "bind_addresses": ["0.0.0.0"], "type": "http", "resources": [{"names": ["client"]}]}],
    "database": {"name": "sqlite3", "args": {"database": str(data / "homeserver.db")}},
    "signing_key_path": str(data / "signing.key"), "media_store_path": str(data / "media"), "log_config": log,
    "app_service_config_files": [service], "registration_shared_secret": secrets.token_hex(32),
    "enable_registration": False, "report_stats": False, "federation_domain_whitelist": [], "trusted_key_servers": [],
    "rc_message": free, "rc_joins": {"local": free, "remote": free}, "rc_room_creation": free,
})
os.execv(sys.executable, [sys.executable, "-m", "synapse.app.homeserver", "--config-path", config])
