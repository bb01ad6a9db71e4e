"""Fills a Synapse with the conversation of a small community, the same one every time.

converse.py SYNAPSE_DIR TOKEN_FILE
    creates users and rooms, sends their messages, and lets the account @archivist join every room. Its
    access token is written into TOKEN_FILE, readable by the owner only.
converse.py SYNAPSE_DIR TOKEN_FILE --again
    sends a few more messages.

SYNAPSE_DIR is the directory that deploy/synapse.sh was given. The script has the token of an application
service, with which it can send as any user and with any date: in the story, the community moved here from
another chat and brought its messages with their dates. One thread fills each room, so the messages of a room
and their order are the same every time.
"""

import http.client
import json
import os
import random
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

MINUTE, DAY = 60_000, 86_400_000
BEGIN = int(datetime(2025, 9, 1, 7, 30, tzinfo=timezone.utc).timestamp() * 1000)

PEOPLE = {
    "anna": "Anna Lindqvist", "tomas": "Tomás", "mei": "Mei 梅", "jonas": "Jonas (workshop)", "priya": "Priya N.",
    "oleg": "Oleg", "fatima": "Fatima", "wim": "Wim de Boer", "ruth": "ruth",
}

# A scene is lines of "who: what". The letters stand for users. Marks after the letter:
#   >  replies to the line before        #  writes in a thread on the scene's first line
#   ~  edits the user's last line        !  redacts the user's last line; the text is the reason
#   +  reacts to the line before
SCENES = [
    """a: anyone at the space {when}? I need the {tool} for an hour
b: I am, until six or so
c>: me too, but the {tool} is still in pieces :/
a+: 😢
a#: what happened to it?
c#: the {part} gave up on {day}. new one is ordered
b#: I paid {price} € for the last {part}, keep the receipt
c+: 👍""",
    """a: good morning all
b: morning!
c: moin""",
    """a: has somebody seen the key to the {place}?
b: it hangs next to the {tool}
b~: it hangs next to the coffee machine
a: found it, thanks!
b+: 🎉""",
    """a: what about {dish} for {day} evening?
b: yes please
c: I'm in. vegan?
a>: of course, two pots as always
c+: ❤️
b: I can bring {count} plates
d: count me in as well, and {count} chairs""",
    """a: the heating in the {place} is making that noise again
b: like last time?
a: worse. like a {tool} full of gravel
b>: then it's the {part}. I'll have a look {when}
c+: 🙏""",
    """a: reminder: rent for the {place} is due on {day}
b: paid
c: paid, {price} €
d: will do tonight
d~: done
a+: ✅""",
    """a: does anyone know a good tutorial for {topic}?
b: the wiki page isn't bad
c>: it is from 2019 though
b#: right, I'll update it {when}
a#: I can proofread
c: try this: https://example.org/{topic}
a: thanks, that's what I was looking for""",
    """a: my password is hunter2{count}
a!: wrong window
b: :D
c+: 🙈
a: I never wrote anything""",
    """a: {count} people came to the open evening on {day}!
b: wow
c: and two of them stayed to help with {topic}
a+: 🎉
b+: 🚀
d: we should do that more often
a>: every month, if somebody else makes the coffee""",
    """a: printer two has a clogged nozzle, please don't use it
b: since when?
a: {day}
c>: oh. that may have been me, I tried the {material}
a#: no drama, but write it on the board next time
c#: will do, sorry
c+: 🙏""",
    """a: who ordered {count} kg of {material}?
b: not me
c: me. for the {topic} workshop
a: it's blocking the door of the {place}
c>: on my way""",
    """a: can we talk about the {place} at the next meeting? it needs {topic}
b: put it on the agenda
a: done, point {count}
c: I can't make it on {day}, please write minutes
b+: 👍""",
    """a: photo of the new {tool}: it's beautiful
b: 😍
c: what did it cost?
a>: {price} € used, from the school that closed
d: does it come with a manual?
a: in Czech
b: :)
d+: 😂""",
    """a: the {part} came today
b: finally
a: does someone have a {tool} at home? ours is too big
c>: yes, I'll bring it {when}
a+: ❤️""",
]
WORDS = {
    "when": ["today", "tomorrow", "this afternoon", "on the weekend", "later", "after work"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "tool": ["lathe", "band saw", "laser cutter", "sewing machine", "oscilloscope", "drill press", "soldering station"],
    "part": ["belt", "bearing", "power supply", "pump", "stepper driver", "spindle", "fuse"],
    "place": ["workshop", "kitchen", "basement", "greenhouse", "shed", "studio"],
    "dish": ["dal", "pierogi", "ramen", "chili", "pizza", "shakshuka"],
    "topic": ["welding", "bookbinding", "insulation", "pcb-design", "beekeeping", "3d-scanning", "screen-printing"],
    "material": ["PETG", "plywood", "wood glue", "linen", "aluminium profile", "epoxy", "compost"],
}

# Each room: name, its topics in order, users, number of scenes.
ROOMS = [
    ("General", ["Everything and nothing", "Everything and nothing · open evening every first Friday",
                 "Everything and nothing · we moved here from the old chat"], list(PEOPLE), 290),
    ("Workshop", ["Machines and their moods", "Laser cutter is OUT OF ORDER", "Machines and their moods"],
     ["jonas", "oleg", "anna", "mei", "wim", "ruth"], 45),
    ("Kitchen", ["Who cooks what", "Who cooks what, and who cleans"], ["priya", "fatima", "tomas", "anna", "ruth"], 30),
    ("Garden", ["Bees, beds and compost"], ["wim", "ruth", "mei", "fatima"], 25),
    ("Announcements", ["Read only, more or less", "Members' meeting on 12 December, 19:00"], ["anna", "jonas", "priya"], 8),
    ("Newcomers", ["Ask anything"], ["anna", "tomas", "oleg", "priya"], 12),
]


class Server:
    """The client API, used as any user and with any date. Each thread has a connection of its own."""

    def __init__(self, directory):
        self.address = urlsplit((directory / "url").read_text().strip())
        self.token = (directory / "as_token").read_text().strip()
        self.local = threading.local()
        self.sent = 0

    def call(self, method, path, user, body=None, ts=None):
        query = {"user_id": f"@{user}:localhost"} if user else {}
        if ts is not None:
            query["ts"] = ts
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.address.netloc, timeout=120)
        connection = self.local.connection
        connection.request(
            method, f"/_matrix/client/v3{path}?{urlencode(query)}", json.dumps(body),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise SystemExit(f"converse.py: {method} {path} as {user}: {response.status} {answer}")
        return answer

    def register(self, user):
        return self.call("POST", "/register", None, {"type": "m.login.application_service", "username": user})


class Room:
    """A room, and the time of its next event."""

    def __init__(self, server, creator, name, topic, version="10", seed=None):
        self.server, self.seed = server, seed or name
        self.random = random.Random(self.seed)
        self.now = BEGIN + self.random.randrange(DAY)
        self.transaction = 0
        self.id = server.call("POST", "/createRoom", creator, {
            "name": name, "topic": topic, "preset": "public_chat", "room_version": version,
            "power_level_content_override": {"events": {"m.room.topic": 0, "m.room.tombstone": 50}},
        })["room_id"]

    def send(self, user, kind, content):
        self.transaction += 1
        path = f"/rooms/{quote(self.id, safe='')}/send/{kind}/{quote(self.seed)}{self.transaction}"
        self.server.sent += 1
        return self.server.call("PUT", path, user, content, self.now)["event_id"]

    def state(self, user, kind, content, key=""):
        path = f"/rooms/{quote(self.id, safe='')}/state/{kind}/{quote(key, safe='')}"
        self.server.sent += 1
        return self.server.call("PUT", path, user, content, self.now)["event_id"]

    def redact(self, user, event, reason):
        self.transaction += 1
        path = f"/rooms/{quote(self.id, safe='')}/redact/{quote(event, safe='')}/{quote(self.seed)}{self.transaction}"
        self.server.sent += 1
        return self.server.call("PUT", path, user, {"reason": reason}, self.now)["event_id"]

    def member(self, user, membership, name=None, by=None):
        content = {"membership": membership, **({"displayname": name or PEOPLE.get(user)} if membership == "join" else {})}
        return self.state(by or user, "m.room.member", content, f"@{user}:localhost")

    def pause(self, least, most):
        """Advances the time; nobody writes at night."""
        self.now += self.random.randrange(least, most)
        hour = datetime.fromtimestamp(self.now / 1000, timezone.utc).hour
        if hour >= 22 or hour < 6:
            self.now += 9 * 60 * MINUTE

    def scene(self, people):
        scene = self.random.choice(SCENES)
        cast = dict(zip("abcd", self.random.sample(people, min(4, len(people)))))
        fill = {key: self.random.choice(words) for key, words in WORDS.items()}
        fill["count"], fill["price"] = self.random.randrange(3, 30), self.random.randrange(5, 400)
        first = previous = None
        last = {}
        for line in scene.splitlines():
            who, what = line.split(":", 1)
            user, mark, what = cast.get(who[0]), who[1:], what.strip().format(**fill)
            if user is None:
                continue
            if mark == "~":
                content = {**text("* " + what), "m.new_content": text(what), **relation("m.replace", last[user])}
                self.send(user, "m.room.message", content)
            elif mark == "!":
                self.redact(user, last[user], what)
            elif mark == "+":
                if previous:
                    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": previous, "key": what}}
                    self.send(user, "m.reaction", content)
            else:
                content = text(what)
                if mark == ">":
                    content["m.relates_to"] = {"m.in_reply_to": {"event_id": previous}}
                elif mark == "#":
                    content.update(relation("m.thread", first))
                    content["m.relates_to"].update({"is_falling_back": True, "m.in_reply_to": {"event_id": previous}})
                previous = last[user] = self.send(user, "m.room.message", content)
                first = first or previous
            self.pause(5_000, 4 * MINUTE)


def text(body):
    return {"msgtype": "m.text", "body": body}


def relation(kind, event):
    return {"m.relates_to": {"rel_type": kind, "event_id": event}}


def poll(room, people):
    """A question with three answers, votes, and its end."""
    asker = people[0]
    answers = [{"id": dish, "org.matrix.msc1767.text": dish} for dish in WORDS["dish"][:3]]
    question = {"org.matrix.msc1767.text": "What do we cook for the summer party?"}
    start = room.send(asker, "org.matrix.msc3381.poll.start", {
        "org.matrix.msc1767.text": question["org.matrix.msc1767.text"],
        "org.matrix.msc3381.poll.start": {"kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
                                          "question": question, "answers": answers},
    })
    for user in people:
        room.pause(MINUTE, 30 * MINUTE)
        vote = {"org.matrix.msc3381.poll.response": {"answers": [room.random.choice(answers)["id"]]}}
        room.send(user, "org.matrix.msc3381.poll.response", {**vote, **relation("m.reference", start)})
    room.send(asker, "org.matrix.msc3381.poll.end", {
        "org.matrix.msc3381.poll.end": {}, "org.matrix.msc1767.text": "The poll is over.", **relation("m.reference", start)})


def talk(room, people, topics, scenes):
    """Plays scenes over the months, with topic changes between them; users join and leave."""
    for user in people[1:]:
        room.member(user, "join")
        room.pause(MINUTE, 60 * MINUTE)
    gap = 110 * DAY // scenes
    away = None
    for number in range(scenes):
        due = (number + 1) * len(topics) // (scenes + 1)
        if due != number * len(topics) // (scenes + 1):
            room.state(room.random.choice(people), "m.room.topic", {"topic": topics[due]})
        if number % 40 == 20:
            away = people[-1 - number // 40 % (len(people) - 2)]
            room.member(away, "leave")
        elif number % 40 == 30 and away:
            room.member(away, "join")
            away = None
        if number == scenes // 2:
            poll(room, [user for user in people if user != away])
        if number == scenes * 2 // 3:
            room.member(people[1], "join", PEOPLE[people[1]] + " 🌻")
        room.scene([user for user in people if user != away])
        # A scene takes a quarter of an hour; nobody writes in the rest of the interval.
        room.pause(gap // 3, gap)
    if away:
        room.member(away, "join")


def fill(server, name, topics, people, scenes, rooms):
    upgraded = name == "Newcomers"
    room = Room(server, people[0], name, topics[0], "9" if upgraded else "10")
    rooms.append(room)
    talk(room, people, topics, scenes)
    if name == "Announcements":
        hello = room.send("anna", "m.room.message", text("We have moved: this is our new home. Welcome!"))
        room.state("anna", "m.room.pinned_events", {"pinned": [hello]})
    if name == "General":
        # A spammer, who is banned.
        room.member("spammer", "join", "FREE CRYPTO 💰")
        spam = room.send("spammer", "m.room.message", text("buy now!!! https://example.com/?ref=1234"))
        room.pause(MINUTE, 2 * MINUTE)
        room.redact("anna", spam, "spam")
        room.state("anna", "m.room.member", {"membership": "ban", "reason": "spam"}, "@spammer:localhost")
    if upgraded:
        path = f"/rooms/{quote(room.id, safe='')}/upgrade"
        replacement = server.call("POST", path, people[0], {"new_version": "11"})["replacement_room"]
        new = object.__new__(Room)
        new.__dict__.update(room.__dict__, id=replacement, seed=name + " 2")
        rooms.append(new)
        talk(new, people, topics, scenes)


def begin(server, token_file):
    for user, name in PEOPLE.items():
        server.register(user)
        server.call("PUT", f"/profile/@{user}:localhost/displayname", user, {"displayname": name})
    server.register("spammer")

    rooms, failures = [], []

    def work(*room):
        try:
            fill(server, *room, rooms)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=room, daemon=True) for room in ROOMS]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not failures:
        if sys.stderr.isatty():
            print(f"\r  {server.sent} events so far", end="", file=sys.stderr, flush=True)
        time.sleep(0.2)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if failures:
        raise failures[0]

    archivist = server.register("archivist")
    for room in rooms:
        server.call("POST", f"/join/{quote(room.id, safe='')}", "archivist", {})
    # Written last: if the token file exists, the conversation is complete.
    part = token_file.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(archivist["access_token"] + "\n")
    part.rename(token_file)
    print(f"  {len(PEOPLE)} users sent {server.sent} events in {len(rooms)} rooms; @archivist:localhost has joined them")


def again(server):
    """Sends a few more messages, dated now, in the rooms that the archivist is in."""
    said = 0
    for room_id in server.call("GET", "/joined_rooms", "archivist")["joined_rooms"]:
        room_path = f"/rooms/{quote(room_id, safe='')}"
        if server.call("GET", f"{room_path}/state/m.room.power_levels/", "archivist").get("events_default", 0) > 0:
            continue  # the room has been upgraded and is read-only
        members = server.call("GET", f"{room_path}/joined_members", "archivist")["joined"]
        users = sorted(user[1:].split(":")[0] for user in members if user != "@archivist:localhost")
        for user in random.sample(users, min(2, len(users))):
            said += 1
            server.call("PUT", f"{room_path}/send/m.room.message/{time.time_ns()}", user, text(random.choice(["good morning", "anyone here?", "back again", "☕"])))
    print(f"  the conversation exists already; users sent {said} more messages")


def main():
    directory, token_file = Path(sys.argv[1]), Path(sys.argv[2])
    server = Server(directory)
    if sys.argv[3:] == ["--again"]:
        again(server)
    else:
        begin(server, token_file)


if __name__ == "__main__":
    main()
