"""PyPI `phx-events`: version 1 without saying so, JSON in binary frames, joins with the ref null; it only listens."""

import asyncio
import threading

from lines import commands, config, say, url
from phx_events.client import PHXChannelsClient


def end_with_input(loop, ended):
    for _ in commands():
        pass
    loop.call_soon_threadsafe(ended.set)


async def main(topic, events):
    client, ended = PHXChannelsClient(url("/websocket")), asyncio.Event()
    threading.Thread(target=end_with_input, args=(asyncio.get_running_loop(), ended), daemon=True).start()

    def told(message, _client):
        say("message", topic=message.topic, event=str(message.event), payload=message.payload)

    async def listen():
        try:
            await client.start_processing()
            say("closed", code=None)
        except Exception as error:
            say("closed", code=getattr(error, "code", None), error=type(error).__name__)

    async with client:
        joined = client.register_topic_subscription(topic)
        for event in events:
            client.register_event_handler(event, [told])
        listening = asyncio.create_task(listen())
        await joined.wait()
        say("joined", topic=topic, response={})
        await ended.wait()
        listening.cancel()


asyncio.run(main(config["topic"], config["events"]))
