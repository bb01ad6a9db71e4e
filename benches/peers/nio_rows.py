"""What a script on matrix-nio does to keep a history: it walks each room back and inserts a row for each event.

nio_rows.py URL DATABASE_URL; makes its table, prints how many events it stored.
"""

import asyncio
import sys

import psycopg
from nio import AsyncClient, MessageDirection, RoomMessagesResponse, SyncResponse
from psycopg.types.json import Jsonb

# As many as Synapse gives.
PAGE = 1000

TABLE = """
create table peer_events (
    room_id text not null, event_id text not null, type text, sender text, origin_server_ts bigint, event jsonb not null,
    primary key (room_id, event_id))
"""
INSERT = "insert into peer_events values (%s, %s, %s, %s, %s, %s) on conflict do nothing"


def row(room_id, event):
    source = event.source
    return (
        room_id, source["event_id"], source.get("type"), source.get("sender"), source.get("origin_server_ts"), Jsonb(source)
    )


async def walk(client, database_url, room_id, token):
    stored = 0
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        while token:
            page = await client.room_messages(room_id, start=token, limit=PAGE, direction=MessageDirection.back)
            if not isinstance(page, RoomMessagesResponse):
                raise SystemExit(f"{room_id}: {page}")
            if not page.chunk:
                break
            async with connection.cursor() as cursor:
                await cursor.executemany(INSERT, [row(room_id, event) for event in page.chunk])
            await connection.commit()
            stored += len(page.chunk)
            token = page.end
    return stored


async def main(url, database_url):
    client = AsyncClient(url, "@archive:bench.test")
    client.restore_login("@archive:bench.test", "D", "replay")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(TABLE)
    answer = await client.sync(full_state=True)
    if not isinstance(answer, SyncResponse):
        raise SystemExit(answer)
    rooms = answer.rooms.join.items()
    walks = [walk(client, database_url, room_id, room.timeline.prev_batch) for room_id, room in rooms]
    print(sum(await asyncio.gather(*walks)))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
