"""PyPI `gql`: GraphQL over Absinthe's control topic; version 1 without a query string, refs that are numbers."""

import asyncio
import logging

from gql import Client, gql
from gql.transport.exceptions import TransportError
from gql.transport.phoenix_channel_websockets import PhoenixChannelWebsocketsTransport
from lines import config, obey, say


class Heard(logging.Handler):
    """The library tells nobody of its heartbeats but its log."""

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("<<<") and '"phoenix"' in text and "phx_reply" in text:
            say("heartbeat")


async def main():
    log = logging.getLogger("gql")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(Heard())
    transport = PhoenixChannelWebsocketsTransport(
        url=f"{config['url']}/websocket",
        channel_name=config.get("topic", "__absinthe__:control"),
        heartbeat_interval=config["heartbeat_ms"] / 1000,
    )
    client = Client(transport=transport, fetch_schema_from_transport=False)
    tasks = set()

    async def query(text):
        say("reply", status="ok", response=await session.execute(gql(text)))

    async def subscribe(text):
        async def listen():
            try:
                async for payload in session.subscribe(gql(text)):
                    say("message", topic="", event="subscription:data", payload=payload)
            except TransportError as error:
                say("closed", code=None, error=type(error).__name__)
            else:
                say("left", topic="")

        task = asyncio.create_task(listen())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with client as session:
        say("joined", topic=transport.channel_name, response={})
        await obey(query=query, subscribe=subscribe)


asyncio.run(main())
