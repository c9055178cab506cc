"""PyPI `phoenix-channels-python-client`: version 2 by default, version 1 if told; its JSON has spaces."""

import asyncio

from lines import config, obey, say, url
from phoenix_channels_python_client.client import PHXChannelsClient
from phoenix_channels_python_client.client_types import ReconnectPolicy
from phoenix_channels_python_client.phx_messages import PHXEvent

# Its defaults wait seconds before the first attempt; the order of what happens is the same with these.
POLICY = ReconnectPolicy(
    base_delay_s=0.05,
    max_delay_s=0.2,
    service_restart_min_delay_s=0.05,
    service_restart_max_delay_s=0.1,
    rapid_first_min_delay_s=0.05,
    rapid_second_min_delay_s=0.05,
    rapid_cooldown_base_s=0.05,
    rapid_cooldown_step_s=0.05,
    rapid_cooldown_max_s=0.1,
)


async def main():
    reopened = []

    async def on_reconnect():
        say("open")
        for topic in reopened:
            say("joined", topic=topic, response={})

    async def on_disconnect(error):
        say("closed", code=getattr(getattr(error, "rcvd", None), "code", None), error=str(error))

    client = PHXChannelsClient(
        url("/websocket"),
        "none",
        protocol_version=config.get("protocol", "2.0"),
        heartbeat_interval_s=config.get("heartbeat_ms", 30_000) / 1000,
        reconnect_policy=POLICY,
        on_reconnect=on_reconnect,
        on_disconnect=on_disconnect,
        on_heartbeat_ack=lambda: say("heartbeat"),
    )

    async def join(topic, params=None):
        async def told(message):
            if message.event is PHXEvent.reply:
                say("reply", status=message.payload["status"], response=message.payload["response"])
            elif not isinstance(message.event, PHXEvent):
                say("message", topic=topic, event=message.event, payload=message.payload)

        await client.subscribe_to_topic(topic, told)
        reopened.append(topic)
        say("joined", topic=topic, response={})

    async def leave(topic):
        reopened.remove(topic)
        await client.unsubscribe_from_topic(topic)
        say("left", topic=topic)

    async with client:
        say("open")
        await obey(join=join, leave=leave)


asyncio.run(main())
