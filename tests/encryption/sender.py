"""A Matrix client that sends encrypted messages: matrix-nio, with vodozemac.

It reads commands from standard input, one JSON object on each line, and answers each with one.
"""
import asyncio, json, sys

from nio import AsyncClient, AsyncClientConfig, RoomSendResponse
from vodozemac import Curve25519PublicKey, PkEncryption


async def act(client, command):
    what = command["do"]
    if what == "send":
        sent = await client.room_send(command["room"], command["type"], command["content"],
                                      ignore_unverified_devices=True)
        assert isinstance(sent, RoomSendResponse), sent
        return {"event_id": sent.event_id}
    if what == "encrypt":
        # What it would send; nobody gets it from here.
        await client.joined_members(command["room"])
        if client.olm.should_share_group_session(command["room"]):
            await client.share_group_session(command["room"], ignore_unverified_devices=True)
        kind, content = client.encrypt(command["room"], command["type"], command["content"])
        return {"type": kind, "content": content}
    if what == "rotate":
        client.invalidate_outbound_session(command["room"])
        return {}
    if what == "sync":
        await client.sync(timeout=0, full_state=True)
        # Devices that are new since then.
        if client.should_query_keys:
            await client.keys_query()
        return {}
    if what == "export":
        await client.export_keys(command["file"], command["passphrase"], count=1000)
        return {}
    if what == "backup":
        # Its sessions as entries of a key backup with this public key.
        key = PkEncryption.from_key(Curve25519PublicKey.from_base64(command["public_key"]))
        rooms = {}
        for session in client.olm.inbound_group_store:
            first = session.first_known_index
            data = {"algorithm": "m.megolm.v1.aes-sha2", "sender_key": session.sender_key,
                    "sender_claimed_keys": {"ed25519": session.ed25519}, "forwarding_curve25519_key_chain": [],
                    "session_key": session.export_session(first)}
            ephemeral, mac, ciphertext = key.encrypt(json.dumps(data).encode()).to_base64()
            rooms.setdefault(session.room_id, {"sessions": {}})["sessions"][session.id] = {
                "first_message_index": first, "forwarded_count": 0, "is_verified": True,
                "session_data": {"ciphertext": ciphertext, "mac": mac, "ephemeral": ephemeral}}
        return {"rooms": rooms}
    if what == "read":
        # What this client itself can read of a room, oldest first.
        await client.sync(timeout=0)
        bodies, token = [], client.next_batch
        while token:
            page = await client.room_messages(command["room"], token, limit=200)
            bodies += [event.body for event in page.chunk if hasattr(event, "body")]
            token = page.end if page.chunk else None
        return {"bodies": bodies[::-1]}
    raise ValueError(what)


async def main():
    homeserver, user, password, store = sys.argv[1:]
    config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False)
    client = AsyncClient(homeserver, user, store_path=store, config=config)
    client.trust_env = False
    await client.login(password, device_name="sender")
    await client.sync(timeout=0, full_state=True)
    if client.should_upload_keys:
        await client.keys_upload()
    print(json.dumps({"access_token": client.access_token}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await act(client, json.loads(line))), flush=True)
    await client.close()


asyncio.run(main())
