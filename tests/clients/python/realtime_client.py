"""PyPI `realtime`: version 1, topics begin with `realtime:`, heartbeats with the ref null."""

import asyncio
import logging

from lines import config, obey, say
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

NAMES = {
    RealtimeSubscribeStates.SUBSCRIBED: "joined",
    RealtimeSubscribeStates.CHANNEL_ERROR: "errored",
    RealtimeSubscribeStates.CLOSED: "left",
    RealtimeSubscribeStates.TIMED_OUT: "join_timeout",
}


class Heard(logging.Handler):
    """The library tells nobody of its heartbeats but its log."""

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("receive:") and '"phoenix"' in text and "phx_reply" in text:
            say("heartbeat")


async def main():
    log = logging.getLogger("realtime")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(Heard())
    client = AsyncRealtimeClient(config["url"], token="none", initial_backoff=0.1, max_retries=20)
    await client.connect()
    say("open")
    channels = {}

    async def join(topic, params=None):
        options = {
            "config": {
                "broadcast": {"ack": True, "self": False},
                "presence": {"key": config.get("key", ""), "enabled": True},
                "private": False,
                **(params or {}),
            }
        }
        channel = channels[topic] = client.channel(topic, options)
        for event in config.get("events", []):
            channel.on_broadcast(
                event, lambda message: say("message", topic=topic, event=message["event"], payload=message["payload"])
            )
        await channel.subscribe(lambda state, error: say(NAMES[state], topic=topic, response={}))

    async def push(topic, event, payload):
        pushed = await channels[topic].push("broadcast", {"type": "broadcast", "event": event, "payload": payload})
        pushed.receive("ok", lambda response: say("reply", status="ok", response={}))

    async def track(topic, payload):
        await channels[topic].track(payload)

    async def presence(topic):
        state = channels[topic].presence_state()
        say("presence", users={key: len(metas) for key, metas in state.items()})

    async def leave(topic):
        await channels[topic].unsubscribe()

    await obey(join=join, push=push, track=track, presence=presence, leave=leave)
    await client.close()


asyncio.run(main())
